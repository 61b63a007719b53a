//! Colours, and how a verdict is written.

use crate::run::outcome::is_known_failure;
use accuracy_core::record::{Gate, Record, Verdict};
use anstyle::{AnsiColor, Style};

pub const GOOD: Style = AnsiColor::Green.on_default();
pub const WARN: Style = AnsiColor::Yellow.on_default().bold();
pub const BAD: Style = AnsiColor::Red.on_default().bold();
pub const NOTE: Style = AnsiColor::Cyan.on_default();
pub const DIM: Style = Style::new().dimmed();
pub const BOLD: Style = Style::new().bold();
pub const PLAIN: Style = Style::new();

/// `text` in a style; nothing but the text where colours are off.
pub fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

pub fn of(record: &Record) -> Style {
    match (record.verdict, record.gate) {
        (Verdict::Skipped, Gate::Pass) => DIM,
        (_, Gate::Pass) if is_known_failure(record) => WARN,
        (_, Gate::Pass) => GOOD,
        (Verdict::Suspicious | Verdict::Inconclusive, Gate::Fail) => WARN,
        (_, Gate::Fail) => BAD,
    }
}

/// The verdict in words: what failed shouts, what passes does not.
pub fn verdict_text(record: &Record) -> String {
    match (record.gate, record.verdict) {
        (Gate::Pass, verdict) if is_known_failure(record) => format!("{verdict} (known)"),
        (Gate::Pass, verdict) => verdict.to_string(),
        // The tier is right, but something else is not.
        (Gate::Fail, Verdict::Correct) => "FAILED".into(),
        (Gate::Fail, verdict) => verdict.name().to_uppercase().replace('_', " "),
    }
}

pub fn verdict(record: &Record) -> String {
    paint(of(record), verdict_text(record))
}
