//! What a person reads: a table of prompts, what failed and why, and the sum.

use super::Outcome;
use super::judge::Verdict;
use super::run::Probed;
use crate::output::OutputArgs;
use crate::report::style::{self, paint};
use crate::report::text::number::counted;
use crate::report::text::table::{Cell, Column, Table};
use crate::report::text::wrap::wrap;
use std::fmt::Write as _;

/// Characters of a completion that the table has room for.
const SHOWN: usize = 48;

pub fn render(outcome: &Outcome, output: &OutputArgs, width: Option<usize>) -> String {
    let mut text = String::new();
    let probed = &outcome.probed;
    let remarks = |text: &mut String| {
        for (whose, remarks) in [("server", &outcome.remarks), ("reference", &outcome.reference_remarks)] {
            for remark in remarks {
                wrap(text, &format!("{whose}: {remark}"), 0, width);
            }
        }
    };
    if !outcome.answered && !output.verbose {
        let mut errors: Vec<(&str, usize)> = Vec::new();
        for verdict in probed.iter().map(|p| p.reference.as_ref().map_or(&p.verdict, |r| &r.verdict)) {
            let Verdict::Error(error) = verdict else { continue };
            match errors.iter_mut().find(|(known, _)| known == error) {
                Some((_, count)) => *count += 1,
                None => errors.push((error, 1)),
            }
        }
        for (error, count) in errors {
            let _ = writeln!(text, "{}: {error}", counted(count, "prompt"));
        }
        remarks(&mut text);
        wrap(&mut text, outcome.conclusion.as_deref().unwrap_or_default(), 0, width);
        return text;
    }
    if !output.quiet {
        text += &table(probed, outcome.reference.is_some()).render(width);
        text.push('\n');
    }
    let shown = |p: &&Probed| !p.failures.is_empty() || !p.unanswered.is_empty() || output.verbose;
    for one in probed.iter().filter(shown) {
        let style = match (one.failures.is_empty(), one.unanswered.is_empty()) {
            (false, _) => style::BAD,
            (true, false) => style::WARN,
            (true, true) => style::GOOD,
        };
        let _ = writeln!(text, "{} ({})", paint(style, &one.prompt.id), one.prompt.kind);
        for failure in &one.failures {
            wrap(&mut text, failure, 2, width);
        }
        for reason in &one.unanswered {
            wrap(&mut text, &format!("no word on the kernels: {reason}"), 2, width);
        }
        for note in &one.notes {
            wrap(&mut text, note, 2, width);
        }
        let _ = writeln!(text, "  prompt     {:?}", one.prompt.prompt);
        let reference = one.reference.as_ref();
        let answers = [
            ("thought", one.reasoning.as_ref()),
            ("alone", one.text.as_ref()),
            ("again", one.repeat_text.as_ref()),
            ("in a batch", one.batch_text.as_ref()),
            ("reference", reference.and_then(|r| r.text.as_ref())),
        ];
        for (name, answer) in answers {
            if let Some(answer) = answer {
                let _ = writeln!(text, "  {name:10} {answer:?}");
            }
        }
        if let Some(d) = reference.and_then(|r| r.first_difference.as_ref()) {
            let logprob = |p: Option<f64>| p.map_or(String::new(), |p| format!(" (log-probability {p:.3})"));
            let _ = writeln!(
                text,
                "  {} {}: {:?}{}, reference {:?}{}",
                d.unit,
                d.index,
                d.candidate,
                logprob(d.candidate_logprob),
                d.reference,
                logprob(d.reference_logprob)
            );
        }
        text.push('\n');
    }
    let failed = probed.iter().filter(|p| !p.failures.is_empty()).count();
    let unanswered = match outcome.unanswered {
        0 => String::new(),
        n => format!(", {n} without an answer"),
    };
    let prompts = counted(probed.len(), "prompt");
    let _ = writeln!(text, "{prompts} asked of {}: {failed} failed{unanswered}", outcome.url);
    remarks(&mut text);
    if let Some(hint) = &outcome.conclusion {
        wrap(&mut text, hint, 0, width);
    }
    text
}

fn table(probed: &[Probed], reference: bool) -> Table {
    let mut table = Table::default();
    let cells = |f: &dyn Fn(&Probed) -> Cell| -> Vec<Cell> { probed.iter().map(f).collect() };
    let yes_no = |known: Option<bool>| match known {
        None => Cell::plain("-"),
        Some(true) => Cell::plain("yes"),
        Some(false) => Cell { text: "NO".into(), style: style::WARN },
    };
    let verdict = |v: &Verdict, ok: bool| Cell {
        text: v.name().into(),
        style: match v {
            Verdict::Thinking(_) | Verdict::Error(_) => style::WARN,
            _ if ok => style::GOOD,
            _ => style::BAD,
        },
    };
    table.push(Column::left("prompt"), cells(&|p| Cell::plain(&p.prompt.id)));
    table.push(Column::left("kind").dropped(3), cells(&|p| Cell::plain(&p.prompt.kind)));
    table.push(Column::left("verdict"), cells(&|p| verdict(&p.verdict, p.verdict.right(&p.prompt))));
    table.push(Column::left("same again").dropped(1), cells(&|p| yes_no(p.deterministic)));
    table.push(Column::left("same in batch").dropped(2), cells(&|p| yes_no(p.batch_invariant)));
    if reference {
        let of = |p: &Probed| {
            p.reference.as_ref().map_or(Cell::plain("-"), |r| verdict(&r.verdict, r.verdict.right(&p.prompt)))
        };
        let parts = |p: &Probed| {
            let difference = p.reference.as_ref().and_then(|r| r.first_difference.as_ref());
            Cell::plain(difference.map_or("-".to_owned(), |d| format!("{} {}", d.unit, d.index)))
        };
        table.push(Column::left("reference"), cells(&of));
        table.push(Column::left("parts at").dropped(4), cells(&parts));
    }
    let answer = |p: &Probed| {
        let text = p.text.as_deref().filter(|t| !t.is_empty()).or(p.reasoning.as_deref());
        let text = text.unwrap_or_default().escape_debug().to_string();
        Cell { text: text.chars().take(SHOWN).collect(), style: style::DIM }
    };
    table.push(Column::left("answer").shrinkable().dropped(5), cells(&answer));
    table
}
