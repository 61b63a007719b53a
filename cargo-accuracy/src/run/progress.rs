//! What is seen while cases run: a bar on a terminal, and each failure as it happens.

use super::outcome::unfinished;
use crate::report::style;
use accuracy_core::record::{Gate, Record};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal as _, stderr};

pub struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    failed: usize,
}

impl Progress {
    pub fn new(cases: usize, quiet: bool) -> Progress {
        let bar = (!quiet && cases > 0 && stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len} in {elapsed}{msg}")
                .expect("the template is valid")
                .progress_chars("=> ");
            ProgressBar::with_draw_target(Some(cases as u64), ProgressDrawTarget::stderr()).with_style(style)
        });
        Progress { bar, quiet, failed: 0 }
    }

    pub fn started(&self, id: &str) {
        if let Some(bar) = &self.bar {
            let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
            let test = accuracy_core::identity::path(id);
            bar.set_message(format!("{failed}  {test}"));
        }
    }

    pub fn finished(&mut self, record: &Record) {
        if record.gate == Gate::Fail {
            self.failed += 1;
        }
        if record.gate == Gate::Fail && unfinished(record).is_none() {
            self.say(&format!("{} {}", style::verdict(record), record.id));
        }
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// A line above the bar.
    pub fn say(&self, line: &str) {
        if self.quiet {
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| crate::say!("{line}")),
            None => crate::say!("{line}"),
        }
    }

    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
