//! Reads the lint's configuration from its file, and refuses a rule that does not exist.

use super::config::LintConfig;
use super::rules::by_code;
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::path::Path;

/// Files that may hold the configuration, nearest first.
const FILES: [&str; 2] = [".config/accuracy.toml", "accuracy.toml"];

impl LintConfig {
    /// Reads the configuration of `root`; defaults where there is none.
    pub fn load(root: &Path) -> Result<Self> {
        for file in FILES {
            let path = root.join(file);
            if path.is_file() {
                return Self::read(&path);
            }
        }
        Ok(Self::default())
    }

    pub fn read(path: &Path) -> Result<Self> {
        let text = super::read(path, super::LARGEST)
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    pub fn parse(text: &str) -> Result<Self> {
        // Other tables of the file belong to other commands.
        #[derive(Deserialize)]
        struct File {
            #[serde(default)]
            lint: LintConfig,
        }
        let file: File = toml::from_str(text)?;
        for code in file.lint.rules.keys() {
            if by_code(code).is_none() {
                bail!("lint.rules.{code}: no such rule; `lint --explain` lists them");
            }
        }
        Ok(file.lint)
    }
}
