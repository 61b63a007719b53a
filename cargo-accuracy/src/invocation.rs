//! How this program was called, and how a call is written down for a person to repeat.

use std::ffi::OsString;

/// The flag of `run` that names an archive.
pub const ARCHIVE: &str = "--archive";

/// `cargo accuracy X` reaches this program as `cargo-accuracy accuracy X`; drops the extra word.
pub fn arguments(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    if arguments.get(1).is_some_and(|a| a == "accuracy") {
        arguments.remove(1);
    }
    arguments
}

/// The one of `commands` that a filter may have been meant for: one letter is missing, too much, or another.
pub fn command_like<'a>(filter: &str, commands: &'a [String]) -> Option<&'a str> {
    let near = |name: &str| {
        let (a, b) = (filter.as_bytes(), name.as_bytes());
        let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
        let (a, b) = (&a[same..], &b[same..]);
        matches!((a, b), ([_, x @ ..], y) | (y, [_, x @ ..]) if x == y)
            || matches!((a, b), ([_, x @ ..], [_, y @ ..]) if x == y)
    };
    commands.iter().map(String::as_str).find(|name| near(name))
}

/// Quotes a word so that a POSIX shell reads it back.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
