//! `--trace CASE`: runs one case, and prints the instructions of one wave that its test process has written.

use super::args::RunArgs;
use super::folder::RunFolder;
use super::plan::{Case, Settings};
use crate::exit::usage;
use crate::output;
use accuracy_core::files;
use accuracy_core::record::Record;
use accuracy_core::trace::{Request, Traced};

/// Identities that an error names.
const NAMED: usize = 5;
/// Most bytes of a trace that are printed.
const LIMIT: u64 = 1 << 30;

/// # Errors
/// A usage error where a trace is asked for and nothing is emulated: a device does not tell what its registers hold.
pub fn check(args: &RunArgs, settings: &Settings) -> anyhow::Result<()> {
    if args.trace.case.is_some() && !settings.emulates {
        return Err(usage(
            "--trace shows the instructions of an emulated wave: add --emulate, or leave --trace out",
        ));
    }
    Ok(())
}

/// Leaves the one case of which a trace is asked for.
///
/// # Errors
/// A usage error where no case has this identity, or more than one; `none` says which there are.
pub fn only(args: &RunArgs, selected: &mut Vec<Case>, none: impl FnOnce() -> String) -> anyhow::Result<()> {
    let Some(wanted) = &args.trace.case else { return Ok(()) };
    if selected.iter().any(|case| case.planned.id == *wanted) {
        selected.retain(|case| case.planned.id == *wanted);
    }
    match &selected[..] {
        [_] => Ok(()),
        [] => Err(usage(format!("--trace: {}", none()))),
        several => {
            let ids = several.iter().take(NAMED).map(|case| format!("\n  {}", case.planned.id));
            let more = match several.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!("\n  and {more} more"),
            };
            Err(usage(format!(
                "--trace shows one case, and `{wanted}` is in the identities of {}; give the whole identity of one of \
                 them:{}{more}",
                several.len(),
                ids.collect::<String>()
            )))
        }
    }
}

/// The trace that the test process is asked for, if any.
pub fn request(args: &RunArgs, folder: &RunFolder) -> Option<Request> {
    args.trace.case.as_ref()?;
    Some(Request { to: folder.path.join("trace.txt"), wanted: args.trace.wanted() })
}

/// Prints the trace, and says why there is none.
///
/// # Errors
/// If it cannot be printed.
pub fn show(args: &RunArgs, records: &[Record]) -> anyhow::Result<Option<String>> {
    let Some(case) = &args.trace.case else { return Ok(None) };
    let Some(record) = records.first() else {
        return Ok(Some(format!("there is no trace of {case}: it was not run")));
    };
    let id = &record.id;
    let without = |why: &str| Ok(Some(format!("there is no trace of {id}: {why}")));
    match &record.trace {
        None => without(&format!("it is {}: {}", record.verdict.name(), record.reason)),
        Some(Traced::Impossible(why)) => without(why),
        Some(Traced::Written(written)) => match files::read_text(&written.file, LIMIT) {
            Err(error) => without(&format!("{} cannot be read: {error}", written.file.display())),
            Ok(text) => {
                let head = format!("trace of {id}");
                let end = format!("the trace is in {}\n", written.file.display());
                let lines = [head, text, end];
                output::write_lines(&args.output, lines.iter())?;
                Ok(None)
            }
        },
    }
}
