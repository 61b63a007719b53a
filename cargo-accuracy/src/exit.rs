//! The exit statuses of every command.

/// What the process tells its caller. The numbers are those of cargo and of common test runners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Something ran and everything was correct.
    Correct = 0,
    /// The command line or the configuration cannot be understood. clap's own errors use the same number.
    Usage = 2,
    /// Nothing ran: no case was found, the filters matched none, or all of them were skipped.
    NothingRan = 4,
    /// A case, a whole test or a lint finding failed the gate.
    Failed = 100,
    /// The tests could not be built, or the command could not finish.
    Unfinished = 101,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        std::process::ExitCode::from(code as u8)
    }
}

/// A mistake in the command line or the configuration: ends the process with [`ExitCode::Usage`].
#[derive(Debug)]
pub struct UsageError(pub String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// An [`anyhow::Error`] that ends the process with [`ExitCode::Usage`].
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    UsageError(message.into()).into()
}

/// An error with its causes, as one line. Some errors have their cause's text in their own; it is not told twice.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for part in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = part;
        } else if !text.ends_with(&part) {
            text = format!("{text}: {part}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use accuracy_core::record::RecordError;
    use anyhow::Context as _;

    #[test]
    fn no_cause_is_told_twice() {
        let full = || std::io::Error::from_raw_os_error(libc::ENOSPC);
        let record = RecordError::Write { path: "run/a.json".into(), source: full() };
        assert_eq!(
            chain(&anyhow::Error::new(record)),
            "cannot write run/a.json: No space left on device (os error 28)"
        );
        let plain = Err::<(), _>(full()).context("cannot write b").unwrap_err();
        assert_eq!(chain(&plain), "cannot write b: No space left on device (os error 28)");
    }
}
