//! The packages whose faults are judged, each with its tables and what is asked of it.

use crate::naming::Names;
use anyhow::Context as _;
use bug_zoo::{CHAINS, Variant, tables, variants};
use std::collections::BTreeMap;
use std::path::Path;

/// The package of those who had not read the diagnosis.
pub const BLIND: &str = "blind-faults";
const ZOO: &str = "bug-zoo";

pub struct Package {
    pub name: String,
    chains: BTreeMap<String, Vec<Variant>>,
    /// The names that its tables have for causes.
    pub names: Names,
    /// Percent of its faults for which the true cause has to come first.
    pub least_named: usize,
}

impl Package {
    pub fn zoo() -> Package {
        let chains = CHAINS.iter().map(|&(chain, _)| (chain.to_owned(), variants(chain))).collect();
        Package { name: ZOO.into(), chains, names: Names::Finer, least_named: 95 }
    }

    /// A package in the folder `examples`, by its name, with tables in its folder `faults`.
    ///
    /// # Errors
    /// If there are none, or they cannot be read.
    pub fn with_faults(root: &Path, name: &str) -> anyhow::Result<Package> {
        let chains = tables::read(&root.join("examples").join(name).join("faults")).with_context(|| {
            format!(
                "`{name}` is no package of the folder examples with tables of faults; kernel-faults is one"
            )
        })?;
        let names = if name == BLIND { Names::Families } else { Names::Finer };
        Ok(Package { name: name.to_owned(), chains, names, least_named: 80 })
    }

    pub fn is_zoo(&self) -> bool {
        self.name == ZOO
    }

    pub fn variant(&self, chain: &str, name: &str) -> Option<Variant> {
        self.chains.get(chain)?.iter().find(|v| v.name == name).cloned()
    }
}

/// The set of a chain whose name is a letter, an underscore and something else: that letter.
pub fn set(chain: &str) -> Option<&str> {
    chain.split_once('_').map(|(set, _)| set).filter(|set| set.len() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_one_letter() {
        assert_eq!(set("a_mla"), Some("a"));
        assert_eq!(set("user_window"), None);
        assert_eq!(set("bs"), None);
    }

    #[test]
    fn a_package_without_tables_is_named() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let error = Package::with_faults(&root, "triton").err().expect("it has no tables");
        assert!(error.to_string().contains("`triton` is no package"), "{error}");
    }
}
