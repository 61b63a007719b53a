//! `cargo accuracy logs`: what a server's log says about the kernels that ran, and proof that one did.
//!
//! [`rules`] are data, [`structured`] reads lines of JSON, [`scan`] searches, [`text`] and [`json`] write.

mod json;
mod rules;
mod scan;
mod structured;
mod text;

use crate::exit::{ExitCode, usage};
use crate::output::OutputArgs;
use anyhow::Context as _;
use rules::{Rules, Severity};
use scan::{News, Scan};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  cargo accuracy logs server.log worker-*.log.gz
  docker logs server 2>&1 | cargo accuracy logs -
  cargo accuracy logs --expect 'import \\[module_gemm_a8w8' server.log
  cargo accuracy logs --rules ours.toml --fail-on warning server.log
  cargo accuracy logs --rules     # known programs, and what is looked for

Of a line of JSON, the message is read, with time, level and logger before it.

A rule that you add:
  [[rule]]
  id = \"our-fallback\"
  severity = \"error\"
  contains = [\"using slow path\"]   # optional: a line has one of these
  pattern = 'using slow path for (?P<what>\\w+)'

A line does not count as proof for --expect if it reports a warning or an error, announces what will be tried, or holds a \
user's text. A rule marks such lines with role = \"announcement\" or role = \"user_text\" and has no severity. A rule with \
role = \"harmless\" marks lines in which only errors count.

Exit status: 0 no finding of the severity of --fail-on; 100 there is one, or an --expect was not seen; 101 a log cannot \
be read; 4 the logs are empty, or no line is from a known program, so that nothing could be found; 2 wrong usage.";

/// Flags of `cargo accuracy logs`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct LogsArgs {
    /// Log files, plain or gzipped; `-` is standard input, whose findings are printed as they come
    #[arg(value_name = "FILE", required_unless_present_any = ["list_rules", "rules"])]
    files: Vec<PathBuf>,
    /// A pattern that some line must match, as proof that the intended kernel ran (repeatable)
    #[arg(long, value_name = "REGEX")]
    expect: Vec<String>,
    /// Add the rules in this file; a rule with the id of a built-in one replaces it (repeatable). Without FILE: print the
    /// programs whose log lines are known, and the rules
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    rules: Option<Vec<PathBuf>>,
    /// Use no built-in rules
    #[arg(long)]
    own_rules_only: bool,
    /// Print the known programs and all rules, those of --rules FILE too, instead of reading a log
    #[arg(long)]
    list_rules: bool,
    /// The lowest severity that makes the command fail
    #[arg(long, value_name = "SEVERITY", value_enum, default_value_t = Severity::Error)]
    fail_on: Severity,
    /// Number of lines shown before and after the first occurrence of each finding
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(..=20))]
    context: u8,
    #[command(flatten)]
    output: OutputArgs,
}

/// Everything that a report says.
struct Outcome<'a> {
    rules: &'a Rules,
    scan: &'a Scan<'a>,
    fail_on: Severity,
}

impl Outcome<'_> {
    fn failed(&self) -> bool {
        self.scan.findings().iter().any(|f| self.rules[f.rule].severity >= self.fail_on)
            || self.scan.expected().any(|e| e.first.is_none())
    }

    /// Whether there was nothing to look for: no log has a line of a producer that is known, and what was expected
    /// says nothing either.
    fn nothing_read(&self) -> bool {
        self.scan.sources.iter().all(|s| s.blank || s.unknown) && self.scan.expected().next().is_none()
    }
}

pub fn command(args: LogsArgs) -> anyhow::Result<ExitCode> {
    args.output.apply_color();
    args.output.expect_distinct()?;
    args.output.expect_json("logs")?;
    let files = args.rules.as_deref().unwrap_or_default();
    let listed = args.list_rules || args.rules.as_ref().is_some_and(Vec::is_empty);
    if args.files.is_empty() != listed {
        return Err(usage(match listed {
            true => "--rules without a FILE and --list-rules print rules, and read no log",
            false => "no log is named; `-` is standard input",
        }));
    }
    let rules = rules::load(files, args.own_rules_only)?;
    if listed {
        crate::screen::stdout().write_all(text::list(&rules).as_bytes())?;
        return Ok(ExitCode::Correct);
    }
    if rules.rules.is_empty() && args.expect.is_empty() {
        return Err(usage(
            "there is no rule to look for: the files of --rules hold none, and --own-rules-only leaves the others out",
        ));
    }
    let mut scan = Scan::new(&rules, &args.expect, args.context.into())
        .map_err(|e| usage(format!("--expect: {e:#}")))?;
    for path in &args.files {
        let source = if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() };
        let mut log = open(path)?;
        let mut tell = |news: News<'_>| {
            let text = text::news(&rules, &news, &args);
            if args.output.stdout_taken() {
                return crate::screen::stderr().write_all(text.as_bytes());
            }
            let mut stdout = crate::screen::stdout();
            stdout.write_all(text.as_bytes())?;
            stdout.flush()
        };
        // The end of what is written to a pipe may be hours away.
        let read = match is_stdin(path) {
            true => scan.follow(&source, &mut log, &mut tell),
            false => scan.read(&source, &mut log),
        };
        read.with_context(|| format!("cannot read {source}"))?;
    }
    let outcome = Outcome { rules: &rules, scan: &scan, fail_on: args.fail_on };
    let taken = args.output.stdout_taken();
    let text = text::render(&outcome, &args.output, crate::output::width(taken));
    if taken {
        crate::screen::stderr().write_all(text.as_bytes())?;
    } else {
        let mut stdout = crate::screen::stdout();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
    }
    for sink in &args.output.reports {
        sink.write_text(&json::render(&outcome)?)?;
    }
    Ok(if outcome.failed() {
        ExitCode::Failed
    } else if outcome.nothing_read() {
        ExitCode::NothingRan
    } else {
        ExitCode::Correct
    })
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A log's bytes, extracted where they are gzipped, as many members as there are.
fn open(path: &Path) -> anyhow::Result<Box<dyn Read>> {
    let mut raw: Box<dyn Read> = if is_stdin(path) {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(accuracy_core::files::open(path).with_context(|| format!("cannot open {}", path.display()))?)
    };
    let mut magic = [0; 2];
    let mut read = 0;
    while read < 2 {
        match raw.read(&mut magic[read..]).with_context(|| format!("cannot read {}", path.display()))? {
            0 => break,
            n => read += n,
        }
    }
    let whole = std::io::Cursor::new(magic[..read].to_vec()).chain(raw);
    Ok(if magic == [0x1f, 0x8b] {
        Box::new(flate2::read::MultiGzDecoder::new(whole))
    } else {
        Box::new(whole)
    })
}
