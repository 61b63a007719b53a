//! What one statement of a checkpoint's configuration says, and of which modules. [`super::config`] reads the files, and
//! [`super::dialect`] knows how each producer words its statements.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::names::ModulePattern;
use super::online::Place;
use super::{Scheme, WeightsError};
use crate::quant::Granularity;

/// One scheme that the configuration says some weights have. A checkpoint of mixed precision has several.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// `None` where it is named by a word that is not known: then the tensors decide alone.
    pub scheme: Option<Scheme>,
    /// `None` where the configuration leaves it to the tensors.
    pub granularity: Option<Granularity>,
    /// Scales are powers of two, however they are stored.
    pub ue8m0: bool,
    /// Whether zero points are stored minus one, as in GPTQ's first version; `None` where that is not said.
    pub zeros_minus_one: Option<bool>,
    /// Whether zero is the middle of the codes everywhere, where the configuration says.
    pub symmetric: Option<bool>,
    /// Eight codes share a word in AWQ's order, where the configuration says.
    pub reordered: Option<bool>,
    /// Integer codes have no sign.
    pub unsigned: bool,
    /// Codes are stored `[K, N]` and scales likewise, whatever the scheme's usual order.
    pub transposed: bool,
    /// The configuration would name blocks and does not: a scale is of the tensor or of a row.
    pub without_blocks: bool,
    /// The input is quantised with a scale that the checkpoint has.
    pub static_input: bool,
    /// The modules that have it; none for all that no other claim names.
    pub targets: Patterns,
    /// The modules that do not have it after all.
    pub skips: Arc<Patterns>,
    /// As the configuration words it, for messages.
    pub text: String,
}

impl Claim {
    pub fn new(scheme: Option<Scheme>, text: String) -> Claim {
        Claim {
            scheme,
            granularity: None,
            ue8m0: false,
            zeros_minus_one: None,
            symmetric: None,
            reordered: None,
            unsigned: false,
            transposed: false,
            without_blocks: false,
            static_input: false,
            targets: Patterns::default(),
            skips: Arc::default(),
            text,
        }
    }

    /// Whether it is of all modules that no other claim names.
    pub fn is_of_others(&self) -> bool {
        self.targets.is_empty() || self.targets.has_class()
    }
}

/// Entries of `targets`, `ignore` and the like. Plain names, of which there may be tens of thousands, are looked up.
#[derive(Clone, Debug, Default)]
pub(super) struct Patterns {
    names: HashSet<String>,
    all: Vec<ModulePattern>,
}

impl Patterns {
    pub fn push(&mut self, pattern: ModulePattern) {
        if pattern.is_name() {
            self.names.insert(pattern.text().to_owned());
        }
        self.all.push(pattern);
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn has_class(&self) -> bool {
        self.all.iter().any(ModulePattern::is_class)
    }

    /// The entry that names this module, or a module around it.
    pub fn names(&self, module: &str) -> Option<&str> {
        if self.all.is_empty() {
            return None;
        }
        let ends = module.match_indices('.').map(|(dot, _)| dot).chain([module.len()]);
        ends.map(|end| &module[..end]).find_map(|name| self.names.get(name).map(String::as_str)).or_else(
            || {
                let others = self.all.iter().filter(|pattern| !pattern.is_name());
                others.into_iter().find(|pattern| pattern.names(module)).map(ModulePattern::text)
            },
        )
    }

    pub fn may_mean(&self, module: &str) -> bool {
        self.all.iter().any(|pattern| pattern.may_mean(module))
    }
}

impl FromIterator<ModulePattern> for Patterns {
    fn from_iter<I: IntoIterator<Item = ModulePattern>>(patterns: I) -> Patterns {
        let mut all = Patterns::default();
        patterns.into_iter().for_each(|pattern| all.push(pattern));
        all
    }
}

/// A word of the configuration that is not known here: modules that it speaks of are read by their tensors alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// The configuration file.
    pub path: PathBuf,
    /// The member that has it: `quant_algo`.
    pub key: String,
    /// As it is written there.
    pub word: String,
    /// The modules that it is said of, as the configuration names them; none for all that nothing else names.
    pub modules: Vec<String>,
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} `{}` is not known here, so ", self.path.display(), self.key, self.word)?;
        match &self.modules[..] {
            [] => write!(f, "weights are")?,
            [one] => write!(f, "`{one}` is")?,
            [first, rest @ ..] => write!(f, "`{first}` and {} more are", rest.len())?,
        }
        f.write_str(" read by names, dtypes and shapes of their tensors alone")
    }
}

/// What is wrong or not known in a configuration, collected while it is read.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub problems: RefCell<Vec<WeightsError>>,
    pub unknown: RefCell<Vec<UnknownWord>>,
    pub transforms: RefCell<Vec<Transform>>,
}

/// A transform that the configuration speaks of.
#[derive(Clone, Debug)]
pub(super) struct Transform {
    pub name: String,
    pub place: Place,
    pub targets: Patterns,
    pub ignore: Patterns,
    /// The configuration does not say of which modules: of all that are quantised.
    pub everywhere: bool,
}

impl Transform {
    pub fn acts_on(&self, module: &str) -> bool {
        (self.everywhere || self.targets.names(module).is_some()) && self.ignore.names(module).is_none()
    }
}
