//! From the end of a case's process to its record. A pass is exit status 0 *and* a complete record of that very
//! case that says so; everything else fails, and says why.

use super::pool::{End, Finished};
use accuracy_core::files;
use accuracy_core::record::Library;
use accuracy_core::record::{self, Cause, CheckName, Gate, Planned, Record, Unfinished, Verdict};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;

/// How much of a case's output goes into its record.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 8 << 10;
const LINE_LENGTH: usize = 200;

/// What a test process that died of a signal could still say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fault {
    reason: String,
    causes: Vec<Cause>,
}

/// Where the end of a case's process is judged from.
pub struct Evidence<'a> {
    pub planned: &'a Planned,
    /// Folder of records.
    pub records: &'a Path,
    pub attempt: u32,
    /// What the process printed.
    pub output: &'a Path,
    /// The files of kernels, as they were before the first case.
    pub libraries: &'a BTreeSet<Library>,
    /// Tells the process what to fill memory with. A process that dies leaves no record that says so.
    pub poison: u64,
}

impl Evidence<'_> {
    /// The record of a case whose process has ended.
    pub fn judge(&self, finished: &Finished) -> Record {
        let path = record::record_path(self.records, &self.planned.id, self.attempt);
        let left = path.exists().then(|| record::read_record(&path));
        let mut record = match (&finished.end, left) {
            (End::Exited(status), Some(Ok(record))) => self.with_record(*status, record),
            (End::Exited(status), Some(Err(e))) => {
                self.crashed(&format!("{}; its record cannot be used: {e}", describe(*status)))
            }
            (End::Exited(status), None) if status.success() => {
                self.crashed("exited with status 0 but left no record, so nothing was judged")
            }
            (End::Exited(status), None) => {
                self.crashed(&format!("{} before it left a record", describe(*status)))
            }
            (End::TimedOut(limit), _) => {
                let reason =
                    format!("not finished after {} s (--timeout), so it was killed", limit.as_secs_f64());
                self.died(Verdict::TimedOut, &reason)
            }
            (End::Stuck, _) => {
                let reason = "killed, but did not die: it is stuck in the kernel, perhaps in a device driver";
                self.died(Verdict::TimedOut, reason)
            }
            (End::Interrupted, _) => self.planned.unfinished(Unfinished::InterruptedWhile),
            (End::NoPlace, _) => self.planned.without_result(
                Verdict::NotRun,
                "no device is left for it: none of its architecture answers any more",
            ),
            (End::NotStarted(e), _) => self
                .planned
                .without_result(Verdict::NotRun, format!("its process could not be started: {e:#}")),
        };
        if !finished.left.is_empty() {
            let left: Vec<String> = finished.left.iter().map(ToString::to_string).collect();
            fail(
                &mut record,
                CheckName::ProcessLeftBehind,
                &format!("it left processes running, which were killed: {}", left.join(", ")),
            );
        }
        if record.seconds == 0.0 {
            record.seconds = finished.took.as_secs_f64();
        }
        record
    }

    fn with_record(&self, status: ExitStatus, record: Record) -> Record {
        if record.id != self.planned.id {
            return self.crashed(&format!(
                "{}; its record is of another case: {}",
                describe(status),
                record.id
            ));
        }
        if let Some(what) = contradiction(self.planned, &record) {
            return self.crashed(&format!("its record contradicts itself: {what}"));
        }
        let other = record.libraries.iter().find(|judged| {
            let of_binding = |l: &&Library| {
                (&l.package, &l.name, &l.path) == (&judged.package, &judged.name, &judged.path)
            };
            self.libraries.iter().filter(of_binding).any(|library| library.hash != judged.hash)
        });
        if let Some(other) = other {
            return self.crashed(&format!(
                "{} was written while the run was going on: what was judged is not what the run began with",
                other.path.display()
            ));
        }
        if record.verdict == Verdict::Skipped && self.planned.fuzz.is_none() {
            // Those that are skipped have no process, but for a drawn shape that a launcher refuses.
            return self.crashed("it was to run, and its record says that it was skipped");
        }
        // A failing case ends as a failing test does. Anything else happened after the record was written.
        let expected = match record.gate {
            Gate::Pass => status.success(),
            Gate::Fail => status.code().is_some(),
        };
        if !expected {
            return self.crashed(&format!(
                "{} after it had left a record (verdict {})",
                describe(status),
                record.verdict
            ));
        }
        record
    }

    fn crashed(&self, reason: &str) -> Record {
        let mut causes = Vec::new();
        let mut reason = reason.to_string();
        if let Some(fault) = self.fault() {
            if !fault.reason.is_empty() {
                reason = format!("{reason}: {}", fault.reason);
            }
            causes = fault.causes;
        }
        Record { causes, ..self.died(Verdict::Crashed, &reason) }
    }

    /// The record of a process that was started and left none of its own.
    fn died(&self, verdict: Verdict, reason: &str) -> Record {
        let record = self.planned.without_result(verdict, self.with_tail(reason));
        Record { poison: Some(self.poison), ..record }
    }

    fn fault(&self) -> Option<Fault> {
        let path = record::record_path(self.records, &self.planned.id, self.attempt).with_extension("fault");
        // A process that is dying may not get to the end of it.
        serde_json::from_slice(&files::read(&path, files::RECORD).ok()?).ok()
    }

    fn with_tail(&self, reason: &str) -> String {
        match tail(self.output) {
            Some(tail) => format!("{reason}\n{tail}"),
            None => reason.into(),
        }
    }
}

/// Whether a record may let its case pass: it is correct or skipped, or fails as the test declares that it does.
pub fn may_pass(record: &Record) -> bool {
    let clean =
        matches!(record.verdict, Verdict::Correct | Verdict::Skipped) && record.failed_checks.is_empty();
    clean || is_known_failure(record)
}

/// Why a record cannot be what the framework wrote of a case; `None` where there is no reason to doubt it.
pub fn contradiction(planned: &Planned, record: &Record) -> Option<String> {
    record.contradiction().or_else(|| planned.disagreement(record))
}

/// Why a case was not run to its end, where that says nothing about the case.
pub fn unfinished(record: &Record) -> Option<Unfinished> {
    record.unfinished.filter(|_| record.verdict == Verdict::NotRun)
}

/// Whether a case passes only because its test declares the failure.
pub fn is_known_failure(record: &Record) -> bool {
    let judged =
        !matches!(record.verdict, Verdict::Crashed | Verdict::TimedOut | Verdict::NotRun | Verdict::Skipped);
    record.gate == Gate::Pass && judged && record.known_failure.is_some()
}

fn fail(record: &mut Record, check: CheckName, reason: &str) {
    record.gate = Gate::Fail;
    record.failed_checks.push(check.into());
    record.reason = match record.reason.is_empty() {
        true => reason.into(),
        false => format!("{reason}\n{}", record.reason),
    };
}

/// `killed by SIGSEGV`, `exited with status 3`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("killed by {}", signal_name(signal)),
        (None, None) => format!("ended with {status}"),
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGABRT => "SIGABRT (abort)",
        libc::SIGBUS => "SIGBUS (bus error)",
        libc::SIGFPE => "SIGFPE (arithmetic error)",
        libc::SIGHUP => "SIGHUP",
        libc::SIGILL => "SIGILL (illegal instruction)",
        libc::SIGINT => "SIGINT",
        libc::SIGKILL => "SIGKILL (perhaps out of memory)",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGSEGV => "SIGSEGV (segmentation fault)",
        libc::SIGSYS => "SIGSYS (forbidden system call)",
        libc::SIGTERM => "SIGTERM",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGXCPU => "SIGXCPU (out of processor time)",
        libc::SIGXFSZ => "SIGXFSZ (file too large)",
        other => return format!("signal {other}"),
    };
    name.into()
}

/// The last lines of what a case printed, made fit for a terminal.
fn tail(path: &Path) -> Option<String> {
    let mut file = files::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<String> =
        text.lines().map(without_libtest).map(printable).filter(|l| !l.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    (!last.is_empty()).then(|| last.join("\n"))
}

/// A line without what libtest adds to a run of one test, which says nothing here.
fn without_libtest(line: &str) -> &str {
    let line = line.trim_end();
    let own = match line.strip_prefix("test ").and_then(|rest| rest.split_once(" ...")) {
        Some((name, rest)) if !name.contains(' ') => rest.trim_start(),
        _ => line,
    };
    let noise = matches!(own, "running 1 test" | "ok" | "FAILED" | "failures:")
        || own.starts_with("test result: ")
        || own.starts_with("note: run with `RUST_BACKTRACE")
        || own.starts_with("note: Some details are omitted")
        // What the process said as it died is told as the reason.
        || own.starts_with("{\"reason\":\"memory access ");
    if noise { "" } else { own }
}

/// A line without control characters, cut where it is long; one that is hardly text is only counted.
fn printable(line: &str) -> String {
    let odd = |c: char| c == '\u{fffd}' || c.is_control() && c != '\t';
    let (length, strange) = (line.chars().count(), line.chars().filter(|c| odd(*c)).count());
    if strange * 4 > length {
        return format!("({length} characters that are no text)");
    }
    let clean = |c: char| {
        if c == '\t' {
            ' '
        } else if odd(c) {
            '\u{fffd}'
        } else {
            c
        }
    };
    let mut text: String = line.chars().map(clean).take(LINE_LENGTH).collect();
    if length > LINE_LENGTH {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail_of(bytes: &[u8]) -> Option<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        tail(file.path())
    }

    #[test]
    fn what_libtest_adds_is_left_out() {
        let output = b"\nrunning 1 test\ntest fp8::gemm::c0 ... it says\nmore\nFAILED\n\nfailures:\n\ntest result: FAILED. 0 passed\n";
        assert_eq!(tail_of(output).unwrap(), "it says\nmore");
        assert_eq!(tail_of(b"running 1 test\ntest fp8::gemm::c0 ... ok\n"), None);
        let fault = b"before\n{\"reason\":\"memory access 512 bytes past the end of `y` (64 bytes)\",\"causes\":[]}\n";
        assert_eq!(tail_of(fault).unwrap(), "before");
    }

    #[test]
    fn only_the_end_of_a_long_output_is_kept() {
        let output: String = (0..100_000).map(|i| format!("line {i}\n")).collect();
        let tail = tail_of(output.as_bytes()).unwrap();
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.ends_with("line 99999"));
    }

    #[test]
    fn nothing_in_it_can_drive_a_terminal() {
        let tail = tail_of(b"red \x1b[31mtext\x1b[0m of some length\n\xff\xfe\x00\x01\n").unwrap();
        assert!(!tail.chars().any(|c| c.is_control() && c != '\n'), "{tail:?}");
        assert!(tail.contains("(4 characters that are no text)"), "{tail:?}");
    }
}
