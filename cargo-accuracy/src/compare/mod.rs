//! `cargo accuracy compare`: two files or folders of tensors, tensor by tensor.
//!
//! [`pairs`] finds which tensor is to be compared with which, [`text`] and [`json`] write. Reading is
//! [`accuracy_core::dumps`].

mod json;
mod pairs;
mod text;

use crate::exit::ExitCode;
use crate::output::OutputArgs;
use accuracy_core::dumps::{DumpSet, Producer};
use accuracy_core::metrics::Comparison;
use accuracy_core::record::{CheckName, CheckResult, Verdict};
use accuracy_core::verdict::{LeastCosine, comparison_checks, none, tier};
use anyhow::Context as _;
use pairs::{Pair, Problem};
use std::io::Write as _;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  cargo accuracy compare reference.npy out.npy
  cargo accuracy compare dumps/reference dumps/candidate
  cargo accuracy compare --common hf/ sglang/ layers.3.    only shared tensors
  cargo accuracy compare --report json=- A B
  cargo accuracy compare --print-hook > accuracy_dump.py   to dump a model

Reads safetensors, npy, npz and .pt, and the dumps of accuracy_dump.py, SGLang (dumper and forward hook), msprobe and the \
Hugging Face model debugger. Code in a pickle is never run. `cargo accuracy triage` finds the operation behind a \
difference.

Exit status: 0 every tensor agrees; 100 a tensor differs, or the two cannot be aligned; 101 a file cannot be read; 4 \
there is nothing to compare; 2 wrong usage.";

/// Flags of `cargo accuracy compare`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct CompareArgs {
    /// The reference: a file or a folder
    #[arg(value_name = "A", required_unless_present = "print_hook")]
    reference: Option<PathBuf>,
    /// The file or folder that is compared with the reference
    #[arg(value_name = "B", required_unless_present = "print_hook")]
    candidate: Option<PathBuf>,
    /// Compare only tensors whose names contain one of these
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// Least cosine that counts as correct
    #[arg(long, value_name = "COSINE", default_value_t = LeastCosine::DEFAULT)]
    min_cos: LeastCosine,
    /// Do not fail for a tensor that only one side has; a tensor that both have and that cannot be compared still fails
    #[arg(long)]
    common: bool,
    /// Program that wrote A, if the files do not show it: accuracy, sglang-dumper, sglang-hook, msprobe, huggingface, files
    #[arg(long, value_name = "PRODUCER")]
    a_from: Option<Producer>,
    /// Program that wrote B
    #[arg(long, value_name = "PRODUCER")]
    b_from: Option<Producer>,
    /// Print accuracy_dump.py, which dumps the hidden states of any torch model in a format that this tool reads
    #[arg(long, exclusive = true)]
    print_hook: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// The hook that users drop in.
const HOOK: &str = include_str!("../../hooks/accuracy_dump.py");

/// How one tensor compares.
struct Row {
    pair: Pair,
    comparison: Comparison,
    /// Elements that are not equal, of tensors of integers.
    unequal: Option<u64>,
    checks: Vec<CheckResult>,
    verdict: Verdict,
}

impl Row {
    fn failed(&self) -> Vec<&str> {
        self.checks.iter().filter(|c| !c.ok).map(|c| c.check.name()).collect()
    }

    fn passes(&self) -> bool {
        self.checks.iter().all(|c| c.ok)
    }

    fn is_equal(&self) -> bool {
        match self.unequal {
            Some(unequal) => unequal == 0,
            None => self.comparison.rel_l2 == Some(0.0),
        }
    }
}

/// Everything that a report says.
struct Outcome {
    reference: DumpSet,
    candidate: DumpSet,
    min_cos: f64,
    rows: Vec<Row>,
    problems: Vec<Problem>,
    /// That a side lacks a tensor is told but does not fail.
    common: bool,
    filters: Vec<String>,
}

impl Outcome {
    fn exit_code(&self) -> ExitCode {
        let problems = self.problems.iter().any(|p| !self.common || p.kind.is_common());
        if self.rows.iter().any(|r| !r.passes()) || problems {
            ExitCode::Failed
        } else if self.rows.iter().all(|row| row.pair.reference.shape().contains(&0)) {
            ExitCode::NothingRan
        } else {
            ExitCode::Correct
        }
    }
}

pub fn command(args: CompareArgs) -> anyhow::Result<ExitCode> {
    args.output.apply_color();
    args.output.expect_distinct()?;
    args.output.expect_json("compare")?;
    let (Some(reference), Some(candidate)) = (&args.reference, &args.candidate) else {
        crate::screen::stdout().write_all(HOOK.as_bytes())?;
        return Ok(ExitCode::Correct);
    };
    let reference = open(reference, args.a_from)?;
    let candidate = open(candidate, args.b_from)?;
    let wanted =
        |name: &str| args.filters.is_empty() || args.filters.iter().any(|f| name.contains(f.as_str()));
    let (found, problems) = pairs::align(&reference, &candidate, &wanted);
    let mut rows = Vec::new();
    for pair in found {
        rows.push(row(pair, args.min_cos.get())?);
    }
    let outcome = Outcome {
        reference,
        candidate,
        min_cos: args.min_cos.get(),
        rows,
        problems,
        common: args.common,
        filters: args.filters.clone(),
    };
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
    Ok(outcome.exit_code())
}

fn open(path: &std::path::Path, producer: Option<Producer>) -> anyhow::Result<DumpSet> {
    match producer {
        Some(producer) => DumpSet::open_as(path, producer),
        None => DumpSet::open(path),
    }
    .with_context(|| format!("cannot read {}", path.display()))
}

fn row(pair: Pair, min_cos: f64) -> anyhow::Result<Row> {
    let (a, b) = (pair.reference.open()?, pair.candidate.open()?);
    let comparison = a.compare(&b);
    let unequal =
        a.integers().zip(b.integers()).map(|(a, b)| a.iter().zip(&b).filter(|(x, y)| x != y).count() as u64);
    // Integers name things: token ids, positions, experts. Being close counts for nothing.
    let (checks, verdict) = match unequal {
        Some(unequal) => {
            let verdict = if unequal == 0 { Verdict::Correct } else { Verdict::Broken };
            (vec![none(CheckName::Equal, &pair.name, unequal, "")], verdict)
        }
        None => (comparison_checks(&pair.name, &comparison, min_cos, None), tier(comparison.cos, min_cos)),
    };
    Ok(Row { pair, comparison, unequal, checks, verdict })
}
