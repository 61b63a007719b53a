//! The order of questions: each prompt alone and three times, all at once, then the reference.

use super::answer::Completion;
use super::client::Client;
use super::error::ProbeError;
use super::judge::{Verdict, judge};
use super::prompts::Prompt;
use super::thinking::Thinking;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Mutex;

/// How often a prompt is asked alone.
pub const REPEATS: usize = 3;
/// Two tokens whose log-probabilities differ by less than this are a tie that rounding decides.
pub const NEAR_TIE: f64 = 0.5;
/// Time-outs in a row after which a server is not asked any more.
const MAX_TIMEOUTS: usize = 2;

/// What was found about one prompt.
#[derive(Debug, Serialize)]
pub struct Probed {
    #[serde(flatten)]
    pub prompt: Prompt,
    #[serde(flatten)]
    pub verdict: Verdict,
    pub text: Option<String>,
    /// What the model thought, where the server gives it apart from the text.
    pub reasoning: Option<String>,
    /// Whether the repeats were equal; `None` where they are not both there.
    pub deterministic: Option<bool>,
    /// What another run of the same prompt gave, where it differs.
    pub repeat_text: Option<String>,
    /// Whether the answer among others was the answer alone.
    pub batch_invariant: Option<bool>,
    pub batch_text: Option<String>,
    pub batch_verdict: Option<&'static str>,
    pub reference: Option<Reference>,
    /// What is wrong with the answers; empty where nothing is.
    pub failures: Vec<String>,
    /// Why there is no answer, or not each time, for reasons that say nothing of the kernels: the server failed, or
    /// the model was still thinking.
    pub unanswered: Vec<String>,
    /// What is no failure by itself.
    pub notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Reference {
    #[serde(flatten)]
    pub verdict: Verdict,
    pub text: Option<String>,
    pub first_difference: Option<Difference>,
}

/// Where two completions part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Index of the token, or of the word where the servers give no tokens.
    pub index: usize,
    pub unit: &'static str,
    pub candidate: String,
    pub reference: String,
    pub candidate_logprob: Option<f64>,
    pub reference_logprob: Option<f64>,
    /// By how much the reference prefers its own token to the candidate's; `None` where it does not say.
    pub gap: Option<f64>,
    /// The first token comes from the prefill, later ones from decoding.
    pub phase: &'static str,
}

type Answer = Result<Completion, ProbeError>;

/// Everything about the prompts, in their order, and why a server answered none.
pub struct Run {
    pub probed: Vec<Probed>,
    pub no_answer: Option<ProbeError>,
    pub no_reference: Option<ProbeError>,
    /// The servers were asked in different ways, so that their answers are not compared word by word.
    pub asked_differently: bool,
}

/// Asks everything.
pub fn probe(
    candidate: &Client,
    reference: Option<&Client>,
    prompts: Vec<Prompt>,
    concurrency: usize,
) -> Run {
    let alone = ask_in_turn(candidate, &prompts, REPEATS);
    let together = if alone.iter().flatten().any(Result::is_ok) {
        ask_together(candidate, &prompts, concurrency)
    } else {
        vec![None; prompts.len()]
    };
    let no_answer = no_answer(&alone);
    let referred = reference.filter(|_| no_answer.is_none()).map(|client| ask_in_turn(client, &prompts, 1));
    let no_reference = referred.as_deref().and_then(self::no_answer);
    let asked_differently = reference.is_some_and(|r| r.endpoint() != candidate.endpoint());
    let comparable = Comparable {
        greedy: candidate.is_greedy(),
        tokens: !asked_differently && candidate.is_greedy() && reference.is_none_or(Client::is_greedy),
    };
    let mut probed = Vec::new();
    for (i, prompt) in prompts.into_iter().enumerate() {
        let reference = referred.as_ref().map(|answers| &answers[i][0]);
        probed.push(one(prompt, &alone[i], together[i].as_ref(), reference, comparable));
    }
    Run { probed, no_answer, no_reference, asked_differently }
}

/// Which answers should be equal.
#[derive(Clone, Copy)]
struct Comparable {
    /// Those to one question.
    greedy: bool,
    /// Those of the two servers.
    tokens: bool,
}

/// The first error of a server that answered nothing.
fn no_answer(answers: &[Vec<Answer>]) -> Option<ProbeError> {
    let mut errors = answers.iter().map(|of_prompt| of_prompt[0].as_ref().err());
    let first = errors.next()??.clone();
    errors.all(|e| e.is_some()).then_some(first)
}

/// Each prompt by itself. A server that refuses connections, or only times out, is given up.
fn ask_in_turn(client: &Client, prompts: &[Prompt], repeats: usize) -> Vec<Vec<Answer>> {
    let mut timeouts = 0;
    let mut given_up = false;
    let mut answers = Vec::new();
    for prompt in prompts {
        let mut of_prompt: Vec<Answer> = Vec::new();
        for _ in 0..repeats {
            let answer = match of_prompt.last() {
                // What has failed once is not asked again.
                Some(Err(e)) => Err(e.clone()),
                _ if given_up => Err(ProbeError::NotAsked),
                _ => client.complete(&prompt.prompt, prompt.max_tokens),
            };
            of_prompt.push(answer);
        }
        timeouts = match &of_prompt[0] {
            Err(ProbeError::TimedOut(_)) => timeouts + 1,
            _ => 0,
        };
        given_up |= timeouts == MAX_TIMEOUTS || matches!(of_prompt[0], Err(ProbeError::Connect(_)));
        answers.push(of_prompt);
    }
    answers
}

/// All prompts at once, as many as `concurrency` in flight.
fn ask_together(client: &Client, prompts: &[Prompt], concurrency: usize) -> Vec<Option<Answer>> {
    let queue: Mutex<VecDeque<usize>> = Mutex::new((0..prompts.len()).collect());
    let answers: Mutex<Vec<Option<Answer>>> = Mutex::new(vec![None; prompts.len()]);
    std::thread::scope(|scope| {
        for _ in 0..concurrency.min(prompts.len()) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no thread panics").pop_front();
                    let Some(i) = next else { return };
                    let answer = client.complete(&prompts[i].prompt, prompts[i].max_tokens);
                    answers.lock().expect("no thread panics")[i] = Some(answer);
                }
            });
        }
    });
    answers.into_inner().expect("no thread panics")
}

fn verdict_of(prompt: &Prompt, answer: &Answer) -> Verdict {
    match answer {
        Ok(completion) => judge(prompt, completion),
        Err(e) => Verdict::Error(e.to_string()),
    }
}

fn text_of(answer: &Answer) -> Option<String> {
    answer.as_ref().ok().map(|c| c.text.clone())
}

/// Everything that was written, thoughts included.
fn written(answer: &Answer) -> Option<String> {
    answer.as_ref().ok().map(Completion::written)
}

fn are_of_two_servers(one: &Answer, other: &Answer) -> bool {
    matches!((one, other), (Ok(one), Ok(other)) if one.served_by != other.served_by)
}

/// Why answers of these two servers are not compared.
fn several_servers(one: &Answer, other: &Answer) -> Option<String> {
    let name = |answer: &Answer| {
        let answer = answer.as_ref().ok()?;
        Some(answer.served_by.clone().unwrap_or_else(|| "one without a name".to_owned()))
    };
    Some(format!(
        "answered by {} and by {}: behind this address are several servers, whose answers are not compared; ask each by \
         its own address",
        name(one)?,
        name(other)?
    ))
}

fn one(
    prompt: Prompt,
    alone: &[Answer],
    together: Option<&Answer>,
    reference: Option<&Answer>,
    comparable: Comparable,
) -> Probed {
    // An error of the server is no answer that differs.
    let first = alone.iter().find(|a| a.is_ok()).unwrap_or(&alone[0]);
    let verdict = verdict_of(&prompt, first);
    let (mut failures, mut unanswered, mut notes) = (Vec::new(), Vec::new(), Vec::new());

    let answers: Vec<String> = alone.iter().filter_map(written).collect();
    let other = alone.iter().find(|a| a.is_ok() && written(a) != written(first));
    // Behind one address may be several servers: that their answers differ says nothing of one of them.
    let elsewhere = |a: &Answer| are_of_two_servers(first, a);
    let other_server = alone.iter().chain(together).find(|a| elsewhere(a));
    let comparable = Comparable { greedy: comparable.greedy && other_server.is_none(), ..comparable };
    let deterministic = (comparable.greedy && answers.len() > 1).then_some(other.is_none());
    unanswered.extend(other_server.and_then(|other| several_servers(first, other)));
    if deterministic == Some(false) {
        failures.push(format!("asked {} times at temperature 0, the answers differ", answers.len()));
    }
    let error = alone.iter().find_map(|a| a.as_ref().err());
    match (&verdict, error) {
        (Verdict::Error(e), _) => unanswered.push(e.clone()),
        (Verdict::Thinking(reason), _) => unanswered.push(reason.clone()),
        (_, Some(e)) => unanswered.push(format!("answered once and then failed: {e}")),
        _ => {}
    }
    if let Ok(completion) = first {
        let thinking = Thinking::of(completion);
        if let (Some((place, _)), true, false) =
            (thinking.thought, thinking.only_thinks(), matches!(verdict, Verdict::Thinking(_)))
        {
            notes.push(format!("there is no text but thinking ({place}), which was judged in its place"));
        }
    }

    let batch_verdict = together.map(|a| verdict_of(&prompt, a));
    let batch_invariant = together
        .filter(|a| comparable.greedy && a.is_ok() && first.is_ok())
        .map(|a| written(a) == written(first));
    match (&batch_verdict, batch_invariant) {
        (Some(Verdict::Error(e)), _) if first.is_ok() => {
            unanswered.push(format!("fails among other requests: {e}"));
        }
        (Some(Verdict::Thinking(reason)), _) if verdict.right(&prompt) => {
            unanswered.push(format!("among other requests {reason}"));
        }
        (Some(batch), _)
            if verdict.right(&prompt) && !batch.right(&prompt) && !together.is_some_and(elsewhere) =>
        {
            failures.push(format!("right alone and {} among other requests", batch.name()));
        }
        (_, Some(false)) => {
            notes.push("among other requests the answer is another one, but no worse".to_owned())
        }
        _ => {}
    }

    let compared = reference.map(|answer| Reference {
        verdict: verdict_of(&prompt, answer),
        text: text_of(answer),
        first_difference: first
            .as_ref()
            .ok()
            .zip(answer.as_ref().ok())
            .filter(|_| comparable.tokens)
            .and_then(|(c, r)| difference(c, r)),
    });
    let judged = !matches!(verdict, Verdict::Error(_) | Verdict::Thinking(_));
    match (&compared, verdict.right(&prompt)) {
        (Some(Reference { verdict: Verdict::Error(e), .. }), _) => {
            notes.push(format!("the reference did not answer: {e}"))
        }
        (Some(r), false) if !r.verdict.right(&prompt) && judged => {
            notes.push(
                "the reference is wrong, too: the cause is upstream of the kernels, or in what both servers run"
                    .to_owned(),
            );
        }
        (Some(_), false) if judged => failures.push(wrong(&verdict, " where the reference is right")),
        (None, false) if judged => failures.push(wrong(&verdict, "")),
        _ => {}
    }
    if let (true, Some(d)) =
        (verdict.right(&prompt), compared.as_ref().and_then(|r| r.first_difference.as_ref()))
    {
        let unit = d.unit;
        match d.gap {
            Some(gap) if gap > NEAR_TIE => failures.push(format!(
                "parts from the reference at {unit} {} ({}), which the reference finds {gap:.2} nats less likely",
                d.index, d.phase
            )),
            Some(gap) => notes.push(format!("parts from the reference at {unit} {}, a near tie ({gap:.2} nats)", d.index)),
            None => notes.push(format!("parts from the reference at {unit} {} ({})", d.index, d.phase)),
        }
    }
    let differs = |a: Option<&Answer>| {
        a.filter(|a| written(a).is_some() && written(a) != written(first)).and_then(written)
    };
    Probed {
        text: text_of(first),
        reasoning: first.as_ref().ok().and_then(|c| c.reasoning.as_ref().map(|(_, thought)| thought.clone())),
        deterministic,
        repeat_text: differs(other),
        batch_invariant,
        batch_text: differs(together),
        batch_verdict: batch_verdict.as_ref().map(Verdict::name),
        reference: compared,
        verdict,
        failures,
        unanswered,
        notes,
        prompt,
    }
}

fn wrong(verdict: &Verdict, than: &str) -> String {
    match verdict {
        Verdict::Garbage(reason) => format!("garbage{than}: {reason}"),
        _ => format!("the answer is not in it{than}"),
    }
}

/// Where the completions first differ: by token where both servers give tokens, else by word.
fn difference(candidate: &Completion, reference: &Completion) -> Option<Difference> {
    let (unit, a, b): (_, Vec<&str>, Vec<&str>) = match (&candidate.tokens, &reference.tokens) {
        (Some(a), Some(b)) => ("token", a.iter().map(|t| &**t).collect(), b.iter().map(|t| &**t).collect()),
        _ => {
            ("word", candidate.text.split_whitespace().collect(), reference.text.split_whitespace().collect())
        }
    };
    let index = (0..a.len().max(b.len())).find(|&i| a.get(i) != b.get(i))?;
    let at = |list: &[&str]| list.get(index).map_or("(end)".to_owned(), |t| (*t).to_owned());
    let logprob = |c: &Completion| c.logprobs.as_ref().and_then(|l| l.get(index).copied().flatten());
    let (chosen, preferred) = (at(&a), at(&b));
    let (mut candidate_logprob, mut reference_logprob, mut gap) = (None, None, None);
    if unit == "token" {
        (candidate_logprob, reference_logprob) = (logprob(candidate), logprob(reference));
        let top = reference.top.as_ref().and_then(|t| t.get(index)).filter(|t| !t.is_empty());
        gap = top.zip(reference_logprob).map(|(top, own)| {
            let found = top.iter().find(|(token, _)| *token == chosen).map(|(_, p)| *p);
            // A token that is not among the alternatives is less likely than the last of them.
            own - found.unwrap_or_else(|| top.iter().map(|(_, p)| *p).fold(own, f64::min))
        });
    }
    Some(Difference {
        index,
        unit,
        candidate: chosen,
        reference: preferred,
        candidate_logprob,
        reference_logprob,
        gap,
        phase: if index == 0 { "prefill" } else { "decode" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(list: &[(&str, f64)], top: &[&[(&str, f64)]]) -> Completion {
        Completion {
            text: list.iter().map(|(t, _)| *t).collect(),
            finish_reason: Some("length".into()),
            tokens: Some(list.iter().map(|(t, _)| (*t).to_owned()).collect()),
            logprobs: Some(list.iter().map(|(_, p)| Some(*p)).collect()),
            top: Some(top.iter().map(|t| t.iter().map(|(t, p)| ((*t).to_owned(), *p)).collect()).collect()),
            reasoning: None,
            served_by: None,
        }
    }

    #[test]
    fn the_first_difference_has_its_phase_and_the_references_preference() {
        let reference = tokens(
            &[(" Paris", -0.1), (".", -0.2)],
            &[&[(" Paris", -0.1), (" Rome", -3.0)], &[(".", -0.2), (",", -0.3)]],
        );
        let first = difference(&tokens(&[(" Rome", -0.4)], &[]), &reference).unwrap();
        assert_eq!((first.index, first.phase, first.gap), (0, "prefill", Some(2.9)));
        let later = difference(&tokens(&[(" Paris", -0.1), (",", -0.2)], &[]), &reference).unwrap();
        assert_eq!((later.index, later.phase), (1, "decode"));
        assert!(later.gap.unwrap() < NEAR_TIE);
        assert_eq!(difference(&reference, &reference), None);
        let shorter = difference(&tokens(&[(" Paris", -0.1)], &[]), &reference).unwrap();
        assert_eq!((shorter.index, shorter.candidate.as_str()), (1, "(end)"));
    }
}
