//! `cargo accuracy triage`: from two dumps of a model and its checkpoint to the operation that goes wrong first.
//!
//! [`side`] finds values in a dump, with [`layout`] telling which rows are whose and [`ranks`] joining parts; [`stale`] finds
//! those that are not fresh, [`profile`] compares layers, [`recognise`] reads models that no family describes, [`replay`] recomputes
//! operations in float64 from a dump's own inputs, [`fits`] finds factors and places in what is wrong, [`cache`] compares what earlier passes left, [`judge`] tells errors from rounding, [`jump`] does without a replay, [`whole`] asks what the logits of a right run may be off by.
//! [`walk`] asks the questions of one forward pass, [`passes`] chooses the passes, [`findings`] is the answer, which
//! [`text`], [`json`] and [`html`] write. What a model computes is [`accuracy_core::model`], how dumps are read [`accuracy_core::dumps`].

mod cache;
mod findings;
mod fits;
mod html;
mod json;
mod judge;
mod jump;
mod layout;
mod mapping;
mod passes;
mod profile;
mod ranks;
mod recognise;
mod replay;
mod side;
mod stale;
mod text;
mod value;
mod walk;
mod whole;

use crate::exit::{ExitCode, usage};
use crate::output::{Format, OutputArgs, width};
use accuracy_core::dumps::DumpSet;
use accuracy_core::weights::Checkpoint;
use anyhow::Context as _;
use std::io::Write as _;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  cargo accuracy triage --reference ref --candidate cand --checkpoint model
  cargo accuracy triage --reference ref --candidate cand --checkpoint model \\
      --all-layers
  cargo accuracy triage --reference ref --candidate cand    compares layers only

Reads the dumps of accuracy_dump.py (`cargo accuracy compare --print-hook`), SGLang's dumper and hook, msprobe and the \
model debugger of transformers, and plain safetensors, npy and .pt files. With a checkpoint, triage computes each operation \
in float64 from the inputs that the operation had in each dump. The dump that differs from that by more than rounding is \
the wrong one. Models are recognised by their config.json; --mapping describes others.

Exit status: 0 nothing is wrong; 100 a fault was found; 101 the dumps do not hold enough to decide; 4 the dumps have \
nothing in common; 2 wrong usage.";

/// Columns of the text where it goes to a file or a pipe.
const PLAIN_WIDTH: usize = 80;

/// Flags of `cargo accuracy triage`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = EXAMPLES,
    mut_arg("reports", |report| report.help("Write a report; `-` as PATH is standard output, and the text then goes to \
        standard error (repeatable; formats: json, html)"))
)]
pub struct TriageArgs {
    /// Dump of a run that is known to be right: a file or a folder
    #[arg(long, value_name = "DIR")]
    pub reference: PathBuf,
    /// Dump of the suspect run: a file or a folder
    #[arg(long, value_name = "DIR")]
    pub candidate: PathBuf,
    /// The model's weights and config.json: a folder, an index, or a repository in the Hugging Face cache
    #[arg(long, value_name = "CHECKPOINT")]
    pub checkpoint: Option<String>,
    /// TOML file with the operations of a model that triage does not know
    #[arg(long, value_name = "FILE", requires = "checkpoint")]
    pub mapping: Option<PathBuf>,
    /// Number of the forward pass to look at [default: every pass that both dumps have, until one shows a fault]
    #[arg(long, value_name = "N")]
    pub step: Option<u64>,
    /// Replay every operation of every layer, instead of only the operations that are wrong in the first bad layer
    #[arg(long)]
    pub all_layers: bool,
    /// Accept two dumps that are the same byte for byte, which are otherwise taken for one dump given twice
    #[arg(long)]
    pub allow_identical: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

pub fn command(args: TriageArgs) -> anyhow::Result<ExitCode> {
    args.output.apply_color();
    args.output.expect_distinct()?;
    args.output.expect_formats("triage", &[Format::Json, Format::Html])?;
    let checkpoint = match &args.checkpoint {
        Some(spec) => Some(Checkpoint::open_named(spec).with_context(|| format!("the checkpoint {spec}"))?),
        None => None,
    };
    let mapping = args.mapping.as_deref().map(mapping::read).transpose()?;
    let reference = DumpSet::open(&args.reference).context("the reference")?;
    let candidate = DumpSet::open(&args.candidate).context("the candidate")?;
    let options = walk::Options {
        checkpoint: checkpoint.as_ref(),
        mapping,
        step: args.step,
        all_layers: args.all_layers,
        allow_identical: args.allow_identical,
    };
    let findings = passes::walk(reference, candidate, &options).map_err(usage)?;
    for sink in &args.output.reports {
        let text = match sink.format {
            Format::Html => html::render(&findings),
            _ => json::render(&findings)?,
        };
        sink.write_text(&text)?;
    }
    let taken = args.output.stdout_taken();
    let columns = width(taken).or(Some(PLAIN_WIDTH));
    let text = text::render(&findings, args.output.verbose, args.output.quiet, columns);
    if taken {
        crate::screen::stderr().write_all(text.as_bytes())?;
    } else {
        let mut stdout = crate::screen::stdout();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
    }
    Ok(match findings.verdict {
        findings::Verdict::Agrees => ExitCode::Correct,
        findings::Verdict::Fault => ExitCode::Failed,
        findings::Verdict::Inconclusive => ExitCode::Unfinished,
        findings::Verdict::NothingInCommon => ExitCode::NothingRan,
    })
}
