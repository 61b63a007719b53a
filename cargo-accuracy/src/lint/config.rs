//! `[lint]` of `.config/accuracy.toml` or of `accuracy.toml`: which files, which rules at which level, which
//! names mean what. Unknown keys are errors that name the key.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LintConfig {
    /// Globs or folders to read; everything when empty.
    pub include: Vec<String>,
    /// Globs that are passed over.
    pub exclude: Vec<String>,
    pub min_confidence: Confidence,
    pub baseline: Option<PathBuf>,
    pub rules: BTreeMap<String, RuleSetting>,
    pub names: Names,
    pub guards: Guards,
    /// Explicit twins by dotted name, where names do not help.
    pub pairs: BTreeMap<String, String>,
    /// Read tests, benchmarks and test doubles too.
    pub tests: bool,
    /// Files larger than this many bytes are reported and passed over.
    pub max_file_size: u64,
}

impl Default for LintConfig {
    fn default() -> Self {
        Self {
            include: Vec::new(),
            exclude: Vec::new(),
            min_confidence: Confidence::default(),
            baseline: None,
            rules: BTreeMap::new(),
            names: Names::default(),
            guards: Guards::default(),
            pairs: BTreeMap::new(),
            tests: false,
            max_file_size: 4 << 20,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    Low,
    #[default]
    Medium,
    High,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Error,
    #[serde(alias = "warning")]
    Warn,
    Note,
    Off,
}

/// `SP202 = "error"` or `SP001 = { level = "warn", require = "semantic-or-twin" }`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct RuleSetting {
    pub level: Level,
    pub require: Option<Require>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Require {
    /// Report whatever the name.
    Any,
    SemanticOrTwin,
    Twin,
}

impl TryFrom<toml::Value> for RuleSetting {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            level: Level,
            require: Option<Require>,
        }
        match value {
            toml::Value::String(s) => {
                let level =
                    Level::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(&s))
                        .map_err(|_| format!("`{s}` is no level: error, warn, note or off"))?;
                Ok(Self { level, require: None })
            }
            other => {
                let t: Table = other.try_into().map_err(|e: toml::de::Error| e.message().to_owned())?;
                Ok(Self { level: t.level, require: t.require })
            }
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Names {
    pub semantic: Vec<String>,
    pub perf: Vec<String>,
    pub backend_tokens: Vec<String>,
    pub aliases: Vec<Vec<String>>,
}

impl Names {
    pub fn is_semantic(&self, name: &str) -> bool {
        self.semantic.iter().any(|g| glob(g, name))
    }
    pub fn is_perf(&self, name: &str) -> bool {
        self.perf.iter().any(|g| glob(g, name))
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Guards {
    /// Check macros and functions whose first argument must hold.
    pub functions: Vec<String>,
    /// Decorators that check the parameters of what they decorate.
    pub decorators: Vec<String>,
}

/// `*` matches any run of characters.
pub fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        last = Some(part);
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    match last {
        None => rest.is_empty(),
        Some(part) => text.len() >= first.len() + part.len() && text.ends_with(part),
    }
}

impl LintConfig {
    /// What it leaves out of what the lint would find by itself, each in words.
    pub fn loosened(&self) -> Vec<String> {
        let mut all = Vec::new();
        if !self.include.is_empty() {
            all.push(format!("the lint reads nothing but {}", self.include.join(", ")));
        }
        if !self.exclude.is_empty() {
            all.push(format!("the lint passes over {}", self.exclude.join(", ")));
        }
        if self.min_confidence > Confidence::default() {
            all.push("the lint's findings of medium confidence are notes".into());
        }
        let weaker = |setting: &RuleSetting| setting.level != Level::Error;
        let rules: Vec<&str> =
            self.rules.iter().filter(|(_, s)| weaker(s)).map(|(rule, _)| rule.as_str()).collect();
        if !rules.is_empty() {
            all.push(format!("lint rules {} are no errors", rules.join(", ")));
        }
        if let Some(baseline) = &self.baseline {
            all.push(format!("lint findings in {} do not count", baseline.display()));
        }
        all
    }
}
