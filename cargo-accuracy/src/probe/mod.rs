//! `cargo accuracy probe`: deterministic prompts with known answers against a server.
//!
//! [`client`] speaks to the server, with [`answer`], [`refusal`], [`patience`] and [`error`] for what it may say;
//! [`judge`] says what a completion is worth, [`thinking`] which part of it is an answer; [`run`] asks and compares,
//! [`text`] writes.

mod answer;
mod client;
mod error;
mod judge;
mod patience;
mod prompts;
mod refusal;
mod run;
mod text;
mod thinking;

use crate::exit::{ExitCode, usage};
use crate::output::OutputArgs;
use client::{Client, Settings};
use judge::Verdict;
use run::{Probed, Run};
use serde::Serialize;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  cargo accuracy probe --url http://127.0.0.1:8000 --model org/name
  cargo accuracy probe --url http://127.0.0.1:8000 \\
      --reference-url http://127.0.0.1:8001
  cargo accuracy probe --url http://127.0.0.1:8000 \\
      --prompts ours.toml --own-prompts-only

Each prompt is sent three times alone and once among the others, with temperature 0 and a fixed seed, to \
/v1/completions, or to /v1/chat/completions if the server has no other. A verdict is exact (begins with the answer), \
contains, plausible (reads like text), thinking (cut before an answer), garbage (repeated tokens, spaces, replacement \
characters, few words, many scripts) or error.

If the server limits its rate, loads its model or fails temporarily, the probe waits, up to --patience seconds. If it \
rejects a field of the request (seed, logprobs, ...), the field is left out and the report says so. A model that thinks \
first needs more tokens: --max-tokens 2048, or --body '{\"chat_template_kwargs\": {\"enable_thinking\": false}}'.

A prompt that you add:
  [[prompt]]
  id = \"our-fact\"
  prompt = \"Our product is called\"
  expect = [\"Widget\"]      # if left out: any text that is not garbage

Exit status: 0 every answer is right, or no worse than the reference server's; 100 an answer is wrong, or no answer is \
right on either server; 101 a server answers nothing, or some prompts got no answer because of the server or the number \
of tokens while the others are right; 2 wrong usage.";

/// Flags of `cargo accuracy probe`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ProbeArgs {
    /// Address of the server: http://host:port
    #[arg(long, value_name = "URL")]
    url: String,
    /// Address of a server with the same model that is known to be right
    #[arg(long, value_name = "URL")]
    reference_url: Option<String>,
    /// Name of the model, if the server needs one
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Name of the model at the reference server [default: the same as --model]
    #[arg(long, value_name = "NAME", requires = "reference_url")]
    reference_model: Option<String>,
    /// Environment variable that holds the servers' API key
    #[arg(long, value_name = "VARIABLE", default_value = "OPENAI_API_KEY")]
    api_key_env: String,
    /// Add the prompts in this file; a prompt with the id of a built-in one replaces it (repeatable)
    #[arg(long, value_name = "FILE")]
    prompts: Vec<PathBuf>,
    /// Use no built-in prompts
    #[arg(long, requires = "prompts")]
    own_prompts_only: bool,
    /// Number of simultaneous requests when all prompts are sent at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    concurrency: u8,
    /// Maximum number of seconds for one answer
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Maximum number of seconds, in total, to wait for a server that limits its rate, loads its model or fails temporarily
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(0..=86400))]
    patience: u64,
    /// Use only /v1/chat/completions
    #[arg(long)]
    chat: bool,
    /// Minimum number of tokens to allow for each answer; a model that thinks before it answers needs 2048 or more
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// A JSON object whose fields are added to every request
    #[arg(long, value_name = "JSON", value_parser = object)]
    body: Option<serde_json::Map<String, serde_json::Value>>,
    /// Seed that is sent with each request
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    output: OutputArgs,
}

/// Everything that a report says.
#[derive(Serialize)]
struct Outcome {
    schema: u32,
    tool: Tool,
    url: String,
    reference: Option<String>,
    /// Prompts with a wrong answer.
    failed: usize,
    /// Prompts that were not answered, or not each time, for reasons that say nothing of the kernels.
    unanswered: usize,
    /// How the server wants to be asked, and what it refused.
    remarks: Vec<String>,
    reference_remarks: Vec<String>,
    /// What all prompts together say.
    conclusion: Option<String>,
    /// Whether both servers answered at all; without that the prompts are not told one by one.
    #[serde(skip)]
    answered: bool,
    #[serde(rename = "prompts")]
    probed: Vec<Probed>,
}

#[derive(Serialize)]
struct Tool {
    name: &'static str,
    version: &'static str,
}

fn object(text: &str) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    serde_json::from_str(text).map_err(|e| format!("no JSON object: {e}"))
}

pub fn command(args: ProbeArgs) -> anyhow::Result<ExitCode> {
    args.output.apply_color();
    args.output.expect_distinct()?;
    args.output.expect_json("probe")?;
    let prompts = prompts::load(&args.prompts, args.own_prompts_only)?;
    let key = std::env::var(&args.api_key_env).ok().filter(|k| !k.is_empty());
    let settings = Settings {
        api_key: key,
        seed: args.seed,
        timeout: Duration::from_secs(args.timeout),
        patience: Duration::from_secs(args.patience),
        chat: args.chat,
        max_tokens: args.max_tokens,
        body: args.body.clone().unwrap_or_default(),
    };
    let client = |url: &str, model: Option<&str>| Client::new(url, model, settings.clone()).map_err(usage);
    let candidate = client(&args.url, args.model.as_deref())?;
    let reference_model = args.reference_model.as_deref().or(args.model.as_deref());
    let reference = args.reference_url.as_deref().map(|url| client(url, reference_model)).transpose()?;
    let run = run::probe(&candidate, reference.as_ref(), prompts, args.concurrency.into());
    let silent = match (&run.no_answer, &run.no_reference) {
        (Some(error), _) => Some((&candidate, "server", error)),
        (None, Some(error)) => reference.as_ref().map(|r| (r, "reference", error)),
        (None, None) => None,
    };
    let conclusion = match silent {
        Some((client, which, error)) => {
            Some(format!("The {which} at {} answered nothing: {error}. {}", client.url(), error.advice()))
        }
        None => conclusion(&run),
    };
    let (answered, probed) = (silent.is_none(), run.probed);
    let outcome = Outcome {
        schema: 1,
        tool: Tool { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") },
        url: candidate.url(),
        reference: reference.as_ref().map(Client::url),
        remarks: candidate.remarks(),
        reference_remarks: reference.as_ref().map(Client::remarks).unwrap_or_default(),
        failed: probed.iter().filter(|p| !p.failures.is_empty()).count(),
        unanswered: probed.iter().filter(|p| !p.unanswered.is_empty()).count(),
        conclusion,
        answered,
        probed,
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
        sink.write_text(&(serde_json::to_string_pretty(&outcome)? + "\n"))?;
    }
    Ok(if !outcome.answered {
        ExitCode::Unfinished
    } else if outcome.failed > 0 || (outcome.unanswered == 0 && !any_right(&outcome.probed)) {
        ExitCode::Failed
    } else if outcome.unanswered > 0 {
        ExitCode::Unfinished
    } else {
        ExitCode::Correct
    })
}

/// Whether there is a prompt whose answer shows that something works. One that any text answers shows little, and
/// counts only where there is no other.
fn any_right(probed: &[Probed]) -> bool {
    let all_open = probed.iter().all(|p| p.prompt.expect.is_empty());
    probed.iter().any(|p| (all_open || !p.prompt.expect.is_empty()) && p.verdict.right(&p.prompt))
}

/// What the prompts have in common, and what to do next.
fn conclusion(run: &Run) -> Option<String> {
    let probed = &run.probed;
    let count = |holds: &dyn Fn(&Probed) -> bool| probed.iter().filter(|p| holds(p)).count();
    let right = |p: &Probed| p.verdict.right(&p.prompt);
    let reference_right = |p: &Probed| p.reference.as_ref().is_none_or(|r| r.verdict.right(&p.prompt));
    let garbage = count(&|p| !p.failures.is_empty() && matches!(p.verdict, Verdict::Garbage(_)));
    let answered = |p: &Probed| !matches!(p.verdict, Verdict::Error(_) | Verdict::Thinking(_));
    let thinking = count(&|p| matches!(p.verdict, Verdict::Thinking(_)));
    let unanswered = count(&|p| !p.unanswered.is_empty()) - thinking;
    let upstream = count(&|p| answered(p) && !right(p) && !reference_right(p));
    let reference_wrong = count(&|p| right(p) && !reference_right(p));
    let changing = count(&|p| p.deterministic == Some(false));
    let worse_in_batch = count(&|p| {
        right(p)
            && p.batch_verdict.is_some_and(|v| matches!(v, "garbage" | "plausible"))
            && !p.failures.is_empty()
    });
    // Answers that change from one time to the next part from anything.
    let parts = |p: &Probed, at: fn(usize) -> bool| {
        let difference = p.reference.as_ref().and_then(|r| r.first_difference.as_ref());
        p.deterministic != Some(false)
            && reference_right(p)
            && difference.is_some_and(|d| at(d.index) && d.gap.is_none_or(|g| g > run::NEAR_TIE))
    };
    let prefill = count(&|p| parts(p, |index| index == 0));
    let decode = count(&|p| parts(p, |index| index > 0));
    let mut said: Vec<String> = Vec::new();
    if garbage > 0 {
        said.push(format!("{garbage} of {} answers are garbage.", probed.len()));
    }
    if thinking > 0 {
        said.push(format!(
            "{thinking} of {} answers are nothing but thinking that ends before an answer: this is the limit of tokens, and \
             no word on the kernels. Next: --max-tokens 2048, or a server or a template without thinking (--body \
             '{{\"chat_template_kwargs\": {{\"enable_thinking\": false}}}}').",
            probed.len()
        ));
    }
    if unanswered > 0 {
        said.push(format!(
            "{unanswered} of {} prompts were not answered each time, because the server failed: this says nothing of \
             what it did answer. Next: cargo accuracy logs on its log; --patience and --timeout wait longer.",
            probed.len()
        ));
    }
    if run.asked_differently {
        said.push(
            "The two servers were asked in different ways, so that their answers are not compared word by word. Next: \
             --chat asks both in the same way."
                .to_owned(),
        );
    }
    if !any_right(probed) {
        said.push(
            "No prompt with a known answer is answered as it should be: this proves nothing about the kernels."
                .to_owned(),
        );
    }
    if upstream > 0 {
        said.push(format!(
            "{upstream} are wrong on both servers: the model, the prompt, or what both servers run."
        ));
    }
    if reference_wrong > 0 {
        said.push(format!("{reference_wrong} are right here and wrong at the reference: look there."));
    }
    if changing > 0 {
        said.push(format!(
            "{changing} have another answer when asked again, at temperature 0: a race, an atomic sum, or memory that \
             nobody wrote. Next: the kernels' accuracy tests with --repeat 3."
        ));
    }
    if worse_in_batch > 0 {
        said.push(format!(
            "{worse_in_batch} are right alone and wrong among others: a kernel that is chosen by the number of tokens, \
             routing, or a race. Next: accuracy tests with tokens of 1 and of the batch; dump both and run cargo accuracy \
             triage."
        ));
    }
    if prefill > 0 {
        said.push(format!("{prefill} part from the reference at the first token: look at the prefill."));
    } else if decode > 0 && garbage > 0 {
        said.push(
            "First tokens agree with the reference and later ones do not: look at decoding.".to_owned(),
        );
    }
    if garbage > 0 || prefill > 0 {
        said.push(
            "Next: cargo accuracy logs on its log, then dump hidden states and run cargo accuracy triage."
                .to_owned(),
        );
    }
    (!said.is_empty()).then(|| said.join(" "))
}
