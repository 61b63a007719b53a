//! `--since REV`: only findings whose function, or one of whose related functions, git says has changed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::LintReport;

/// Changed line ranges by path, as the work tree stands against a revision.
pub struct Changes(BTreeMap<String, Vec<(u32, u32)>>);

impl Changes {
    pub fn since(revision: &str, folder: &Path) -> Result<Self> {
        if revision.starts_with('-') {
            bail!("`{revision}` is no revision");
        }
        let inside = Command::new("git")
            .current_dir(folder)
            .args(["rev-parse", "--is-inside-work-tree"])
            .output()
            .context("cannot run git for --since")?;
        if !inside.status.success() {
            bail!("--since {revision}: {} is in no git repository", folder.display());
        }
        let out = Command::new("git")
            .current_dir(folder)
            .args([
                "-c",
                "core.quotePath=false",
                "diff",
                "--no-color",
                "--no-ext-diff",
                "--unified=0",
                "--relative",
                revision,
                "--",
            ])
            .output()
            .context("cannot run git for --since")?;
        if !out.status.success() {
            bail!("git diff {revision}: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        let mut changes = Self::parse(&String::from_utf8_lossy(&out.stdout));
        let out = Command::new("git")
            .current_dir(folder)
            .args(["-c", "core.quotePath=false", "ls-files", "--others", "--exclude-standard"])
            .output()
            .context("cannot run git for --since")?;
        for path in String::from_utf8_lossy(&out.stdout).lines() {
            changes.0.insert(path.to_owned(), vec![(1, u32::MAX)]);
        }
        Ok(changes)
    }

    fn parse(diff: &str) -> Self {
        let mut out: BTreeMap<String, Vec<(u32, u32)>> = BTreeMap::new();
        let mut path = None;
        for line in diff.lines() {
            if let Some(p) = line.strip_prefix("+++ ") {
                path = p.strip_prefix("b/").map(str::to_owned);
            } else if line.starts_with("@@ ")
                && let Some(path) = &path
                && let Some(new) = line.split(' ').find_map(|w| w.strip_prefix('+'))
            {
                let (start, count) = new.split_once(',').unwrap_or((new, "1"));
                let start: u32 = start.parse().unwrap_or(1);
                let count: u32 = count.parse().unwrap_or(1);
                // A pure deletion changes what surrounds it.
                let end = if count == 0 { start + 1 } else { start + count - 1 };
                out.entry(path.clone()).or_default().push((start, end));
            }
        }
        Self(out)
    }

    fn touches(&self, path: &str, from: u32, to: u32) -> bool {
        self.0.get(path).is_some_and(|r| r.iter().any(|(a, b)| *a <= to && *b >= from))
    }

    pub fn restrict(&self, report: &mut LintReport) {
        report.findings.retain(|f| {
            self.touches(&f.path, f.span.0, f.span.1)
                || f.twin_span.as_ref().is_some_and(|(path, from, to)| self.touches(path, *from, *to))
                || f.related.iter().chain(&f.code_flow).any(|p| self.touches(&p.path, p.line, p.line))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::Changes;

    #[test]
    fn hunks_become_line_ranges_and_deletions_touch_their_surroundings() {
        let diff = "+++ b/a.py\n@@ -3,2 +4,3 @@ def f\n+x\n@@ -9,2 +10,0 @@\n+++ /dev/null\n@@ -1 +0,0 @@\n";
        let c = Changes::parse(diff);
        assert!(c.touches("a.py", 6, 6) && !c.touches("a.py", 7, 9) && c.touches("a.py", 10, 10));
        assert!(!c.touches("b.py", 1, 100));
    }
}
