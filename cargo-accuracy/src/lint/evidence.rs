//! What speaks for and against a suspected parameter: its name, a twin that honours it, documentation,
//! sibling parameters that are guarded. The sum decides severity and confidence.

use super::config::{Confidence, LintConfig};
use super::effects::{Effects, Reason};
use super::index::{FnId, Index, param};
use super::ir::ParamKind;
use super::names::{self, Meaning};
use super::source::{Fate, Language};

/// Everything a rule reads.
pub struct Context<'s> {
    pub index: &'s Index<'s>,
    pub effects: &'s Effects,
    pub config: &'s LintConfig,
}

#[derive(Debug, Clone, Copy)]
pub struct Evidence {
    pub meaning: Meaning,
    /// A member of the same dispatch table or `forward_*` family that honours the parameter.
    pub family: Option<FnId>,
    /// A function of the same job elsewhere that honours it.
    pub twin: Option<FnId>,
    pub documented: bool,
    /// Another parameter of the function is guarded.
    pub sibling_guarded: bool,
    pub score: i32,
}

impl<'s> Context<'s> {
    /// Whether findings inside this function make sense at all.
    pub fn reportable(&self, id: FnId) -> bool {
        let f = self.index.function(id);
        let t = f.traits;
        let name = f.name.as_str();
        let alone = t.interface && !self.index.families.contains_key(&id);
        if t.stub
            || t.accessor
            || alone
            || f.opaque
            || self.index.is_fake(id)
            || self.index.mirrors.contains(&id)
        {
            return false;
        }
        if name.starts_with("__") && name.ends_with("__") && name != "__init__" && name != "__call__" {
            return false;
        }
        if matches!(name, "backward" | "setup_context" | "jvp" | "vjp" | "symbolic" | "main") {
            return false;
        }
        if let Some(class) = &f.class {
            let class = class.to_lowercase();
            if ["fake", "mock", "stub", "dummy", "logger", "logging"].iter().any(|d| class.contains(d)) {
                return false;
            }
        }
        let words = names::words(name);
        if words.iter().any(|w| {
            matches!(
                w.as_str(),
                "mock"
                    | "stub"
                    | "dummy"
                    | "noop"
                    | "nop"
                    | "log"
                    | "logger"
                    | "print"
                    | "debug"
                    | "dump"
                    | "test"
            )
        }) {
            return false;
        }
        let guards = &self.config.guards.decorators;
        !f.decorators.iter().any(|(path, args)| {
            let last = path.rsplit('.').next().unwrap_or(path);
            guards.iter().any(|g| g == last) || last.contains("requirement") && !args.is_empty()
        })
    }

    pub fn evidence(&self, id: FnId, p: usize, reason: Option<&Reason>) -> Evidence {
        let f = self.index.function(id);
        let parameter = &f.params[p];
        let names_config = &self.config.names;
        let meaning = names::meaning(&parameter.name, names_config);
        let honouring = |other: FnId| {
            let o = self.index.function(other);
            if self.index.is_fake(other) {
                return false;
            }
            param(o, &parameter.name, names_config).is_some_and(|(i, q)| {
                q.kind != ParamKind::Receiver && self.effects.honours(self.index, other, i)
            })
        };
        let family =
            self.index.families.get(&id).and_then(|members| members.iter().copied().find(|m| honouring(*m)));
        // What wraps the function is no twin of it: it may do itself what the function leaves out.
        let wraps = |other: FnId| {
            (0..self.index.function(other).calls.len())
                .any(|c| self.effects.callee(other, c as u32) == Some(id))
        };
        let explicit = names_config_pair(self, id).filter(|t| honouring(*t));
        let mut twins = self.index.twins(id);
        // The nearest first: the same file, then equal stems in order of definition.
        let file = self.index.functions[id as usize].0;
        twins.sort_by_key(|t| (self.index.functions[*t as usize].0 != file, *t));
        let twin = explicit.or_else(|| twins.into_iter().find(|t| honouring(*t) && !wraps(*t)));
        let sibling_guarded = f.params.iter().enumerate().any(|(i, q)| i != p && q.guarded);

        // A native launcher that takes a split has a kernel to hand it to.
        let native = self.index.file(id).language == Language::Cpp
            && f.params
                .iter()
                .any(|p| p.annotation.as_deref().is_some_and(|a| a.to_lowercase().contains("tensor")));
        let split = names::same_quantity(&parameter.name, "splitk", names_config);
        let meaning = if native && split { Meaning::Numeric } else { meaning };
        let mut score = match meaning {
            Meaning::Semantic => 3,
            Meaning::Numeric => 2,
            Meaning::Neutral => 0,
            Meaning::Tuning => -3,
        };
        if family.is_some() {
            score += 3;
        }
        if twin.is_some() {
            score += 2;
        }
        score += i32::from(parameter.documented);
        // Where the quantised format itself is refused, its scales have nothing to scale.
        let words = names::words(&parameter.name);
        let scales = words.iter().any(|w| w.ends_with("scale") || w.ends_with("scales") || w == "zp");
        let format_guarded = f.params.iter().any(|q| q.guarded && names::selects_quantisation(&q.name));
        if scales && format_guarded {
            score -= 3;
        } else {
            score += i32::from(sibling_guarded);
        }
        match reason {
            Some(Reason::Local(Fate::Logged | Fate::Overwritten | Fate::DeadEnd)) => score += 1,
            Some(Reason::Local(Fate::Discarded)) => score -= 2,
            Some(Reason::Local(Fate::Checked | Fate::Raised)) => score -= 2,
            Some(Reason::Forwarded { callee, param, .. }) => {
                let end = self.index.function(*callee);
                let fate = end.params[*param as usize].fate;
                score += i32::from(matches!(fate, Fate::Logged | Fate::Overwritten | Fate::DeadEnd));
                score -= 2 * i32::from(matches!(fate, Fate::Checked | Fate::Raised));
                score += i32::from(end.params[*param as usize].documented && !parameter.documented);
            }
            _ => {}
        }
        if f.traits.device {
            score -= if self.index.file(id).language == Language::Cpp { 3 } else { 2 };
            if parameter.name.to_lowercase().ends_with("ptr")
                || !matches!(reason, Some(Reason::Local(Fate::NeverRead)))
            {
                score -= 2;
            }
        }
        // A private helper's signature is its module's business, unless something speaks for the parameter.
        if f.name.starts_with('_')
            && !f.traits.method
            && score <= 3
            && self.index.file(id).language == Language::Python
        {
            score -= 1;
        }
        // Whoever calls it has made sure that there is nothing to honour.
        if self.effects.guarded_by_callers(self.index, id, p) {
            score -= 3;
        }
        // The same values in the device's memory are there to be read.
        let honoured = |name: &str| {
            let other = f.params.iter().position(|q| q.name == name);
            other.is_some_and(|q| self.effects.honours(self.index, id, q))
        };
        if names::mirrored(&parameter.name).is_some_and(honoured) || self.verified_beside(id, &parameter.name)
        {
            score -= 4;
        }
        if self.index.callbacks.contains(&id) && family.is_none() {
            score -= 1;
        }
        // What works in place has no output to lay out.
        let words = names::words(&f.name);
        let of_output = names::words(&parameter.name);
        if words.iter().any(|w| w == "inplace") && of_output.iter().any(|w| w == "output" || w == "out") {
            score -= 3;
        }
        // Backward passes use saved statistics.
        let backward = names::words(&f.name).iter().any(|w| matches!(w.as_str(), "bwd" | "backward"));
        if backward && names::same_quantity(&parameter.name, "eps", names_config) {
            score -= 3;
        }
        if matches!(reason, Some(Reason::Local(Fate::Overwritten))) && (twin.is_some() || family.is_some()) {
            score += 1;
        }
        if f.traits.nested {
            score -= 3;
        }
        if self.index.overrides.contains(&id) && family.is_none() {
            score -= 2;
        }
        let native = self.index.file(id).language == Language::Cpp;
        if names::is_predicate(&f.name) || names::describes(&f.name) && !native {
            score -= 3;
        }
        if self.index.file(id).language == Language::Python && names::is_tool(&self.index.file(id).path) {
            score -= 3;
        }
        Evidence { meaning, family, twin, documented: parameter.documented, sibling_guarded, score }
    }

    /// Whether the class has a method that decides when this one is called, and which looks at the parameter:
    /// `forward_verifier` or `can_forward` beside `forward`.
    fn verified_beside(&self, id: FnId, parameter: &str) -> bool {
        let f = self.index.function(id);
        let Some((class, _)) = f.qualname.rsplit_once('.') else { return false };
        self.index.file(id).functions.iter().any(|g| {
            g.qualname.rsplit_once('.').is_some_and(|(c, _)| c == class)
                && g.name != f.name
                && g.name.contains(&f.name)
                && names::is_predicate(&g.name)
                && g.params.iter().any(|q| q.name == parameter && q.fate == Fate::Used)
        })
    }
}

fn names_config_pair(cx: &Context, id: FnId) -> Option<FnId> {
    if cx.config.pairs.is_empty() {
        return None;
    }
    let name = cx.index.dotted(id);
    let other = cx
        .config
        .pairs
        .get(&name)
        .cloned()
        .or_else(|| cx.config.pairs.iter().find(|(_, v)| **v == name).map(|(k, _)| k.clone()))?;
    cx.index.by_dotted(&other)
}

impl Evidence {
    pub fn confidence(&self) -> Confidence {
        match self.score {
            6.. => Confidence::High,
            3..=5 => Confidence::Medium,
            _ => Confidence::Low,
        }
    }
}
