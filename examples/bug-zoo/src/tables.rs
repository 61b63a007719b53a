//! Tables of faults: the rows of the zoo and of packages with chains of their own, and what a row says.

use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::path::Path;

/// The first line of every table.
const HEAD: &str = "name,truth,setup,models,what";
/// The truth of a fault that docs/names.md has no name for.
pub const UNKNOWN: &str = "unknown";

/// A row of a table.
#[derive(Clone, Debug)]
pub struct Variant {
    pub chain: String,
    pub name: String,
    /// Its place in the table, by which the zoo's launchers know it.
    pub number: i32,
    /// The true cause: any one of several where they cannot be told apart from outside, all of them where there are
    /// several at once; none for a right kernel.
    pub truth: Truth,
    /// How the chain is declared and called.
    setup: String,
    /// The bug in the field that it models.
    pub models: String,
    pub what: String,
}

/// What is wrong with a variant, in the names that records use for causes.
#[derive(Clone, Debug, PartialEq)]
pub enum Truth {
    Right,
    OneOf(Vec<String>),
    All(Vec<String>),
}

impl Truth {
    fn parse(text: &str) -> Truth {
        let each = |separator| text.split(separator).map(|name: &str| name.trim().to_owned()).collect();
        match text {
            "" => Truth::Right,
            _ if text.contains('+') => Truth::All(each('+')),
            _ => Truth::OneOf(each('|')),
        }
    }

    fn causes(&self) -> &[String] {
        match self {
            Truth::Right => &[],
            Truth::OneOf(causes) | Truth::All(causes) => causes,
        }
    }
}

impl std::fmt::Display for Truth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let between = if matches!(self, Truth::All(_)) { " and " } else { " or " };
        f.write_str(&self.causes().join(between))
    }
}

impl Variant {
    /// A row of five fields. Only the last, which may stand in quotation marks, may have commas.
    pub fn parse(chain: &str, line: &str, number: i32) -> Option<Variant> {
        let mut fields = line.splitn(5, ',');
        let mut next = || fields.next().map(str::trim);
        let (name, truth, setup, models, what) = (next()?, next()?, next()?, next()?, next()?);
        let bare = what.strip_prefix('"').and_then(|what| what.strip_suffix('"'));
        let (name, setup, models) = (name.to_owned(), setup.to_owned(), models.to_owned());
        let what = bare.map_or(what.to_owned(), |what| what.replace("\"\"", "\""));
        Some(Variant {
            chain: chain.to_owned(),
            name,
            number,
            truth: Truth::parse(truth),
            setup,
            models,
            what,
        })
    }

    /// Where the fault shows: coordinates of a case, as `shuffle_scale=true`. Elsewhere it changes nothing.
    pub fn shows_where(&self) -> impl Iterator<Item = (&str, &str)> {
        self.setup.split(' ').filter_map(|word| word.split_once('='))
    }

    /// Whether its setup has this word.
    pub fn is(&self, word: &str) -> bool {
        self.setup.split(' ').any(|w| w == word)
    }
}

/// The variants of each chain of a package: those in the tables of its folder `faults`, each named after its chain.
///
/// # Errors
/// If the folder or a table cannot be read, or a row has no five fields.
pub fn read(dir: &Path) -> anyhow::Result<BTreeMap<String, Vec<Variant>>> {
    let mut chains = BTreeMap::new();
    for entry in
        std::fs::read_dir(dir).with_context(|| format!("cannot read the folder {}", dir.display()))?
    {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "csv") {
            continue;
        }
        let shown = path.display();
        let chain = path.file_stem().and_then(|stem| stem.to_str());
        let chain = chain.with_context(|| format!("{shown}: expected the name of a chain"))?;
        let text = std::fs::read_to_string(&path).with_context(|| shown.to_string())?;
        let mut lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
        match lines.next() {
            Some((head, _)) if head.trim() == HEAD => {}
            other => {
                bail!("{shown}: expected the first line {HEAD:?}, found {:?}", other.map(|(line, _)| line))
            }
        }
        let mut variants = Vec::new();
        for (line, at) in lines {
            let variant = Variant::parse(chain, line, i32::try_from(variants.len())?);
            variants.push(variant.with_context(|| format!("{shown}:{at}: expected five fields, {HEAD}"))?);
        }
        chains.insert(chain.to_owned(), variants);
    }
    Ok(chains)
}

/// For tests: every row has a name of its own and says what it does.
#[cfg(test)]
pub(crate) fn assert_told(chain: &str, variants: &[Variant]) {
    let names: std::collections::HashSet<_> = variants.iter().map(|v| &v.name).collect();
    assert_eq!(names.len(), variants.len(), "{chain} has a name twice");
    for variant in variants {
        assert!(!variant.what.is_empty(), "{chain}: {}", variant.name);
        let models = variant.truth == Truth::Right || !variant.models.is_empty();
        assert!(models, "{chain}: {} does not say what it models", variant.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn causes(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_row_has_its_truth_and_a_sentence_with_commas() {
        let of = |line: &str| Variant::parse("bs", line, 0).map(|v| (v.truth, v.what));
        let what = "a, \"b\", and c".to_owned();
        let row = |truth: &str| of(&format!("4,{truth},,models,\"a, \"\"b\"\", and c\""));
        assert_eq!(row(""), Some((Truth::Right, what.clone())));
        assert_eq!(row("gain|rope"), Some((Truth::OneOf(causes(&["gain", "rope"])), what.clone())));
        assert_eq!(row("gain+rope"), Some((Truth::All(causes(&["gain", "rope"])), what)));
        assert_eq!(of("4,gain,,"), None);
    }

    #[test]
    fn a_table_that_cannot_be_read_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let said = |text: &str| {
            std::fs::write(dir.path().join("bs.csv"), text).unwrap();
            read(dir.path()).map(|chains| chains["bs"].len()).map_err(|e| format!("{e:#}"))
        };
        assert_eq!(said(&format!("{HEAD}\n0,,,,right\n\n4,gain,,scale,twice\n")), Ok(2));
        assert!(said("name,what\n").unwrap_err().contains("bs.csv: expected the first line"));
        assert!(
            said(&format!("{HEAD}\n0,,,,right\n4,gain\n")).unwrap_err().contains("bs.csv:3: expected five")
        );
        let missing = read(&dir.path().join("none")).unwrap_err();
        assert!(format!("{missing:#}").contains("cannot read the folder"));
    }
}
