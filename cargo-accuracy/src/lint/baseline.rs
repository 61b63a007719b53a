//! Known findings: fingerprints, never lines, so that moving code changes nothing.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{LintReport, Severity, Suppression};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    schema: u32,
    /// Fingerprint to what it stands for, for whoever reads the file.
    findings: BTreeMap<String, String>,
}

impl Baseline {
    pub fn of(report: &LintReport) -> Self {
        let findings = report
            .findings
            .iter()
            .filter(|f| {
                f.severity != Severity::Note && !matches!(f.suppressed, Some(Suppression::InSource(_)))
            })
            .map(|f| {
                (f.fingerprint.clone(), format!("{} {} {}({})", f.rule, f.path, f.function, f.parameter))
            })
            .collect();
        Self { schema: 1, findings }
    }

    pub fn load(path: &Path) -> Result<Self> {
        let text = super::read(path, super::LARGEST)
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("cannot read the baseline {}", path.display()))?;
        let out: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is no lint baseline", path.display()))?;
        if out.schema != 1 {
            bail!(
                "{}: baseline schema {} is not 1; write it anew with --save-baseline",
                path.display(),
                out.schema
            );
        }
        Ok(out)
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("cannot write the baseline {}", path.display()))
    }

    /// Marks what is known.
    pub fn apply(&self, report: &mut LintReport) {
        for f in &mut report.findings {
            if f.suppressed.is_none() && self.findings.contains_key(&f.fingerprint) {
                f.suppressed = Some(Suppression::Baseline);
            }
        }
    }
}
