//! `--report html=FILE`: the answer, the questions that led to it, and cosine by layer as a picture. All of it is markup:
//! there is nothing to script.

use super::findings::{Findings, IMPACT, OpFinding, OpStatus, Status, Verdict};
use super::profile::{Agreement, LayerProfile};
use super::replay::{CACHE, Outcome};
use crate::report::html::shell::{Page, escape};
use std::fmt::Write as _;

/// Shape of the picture, in its own units.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 84.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 26.0;
/// Decades of `1 - cosine` that are told apart; what is closer to 1 is drawn as 1.
const DECADES: f64 = 10.0;
/// Operations listed unfolded, and those behind the fold.
const LISTED: usize = 50;
const FOLDED: usize = 5_000;

pub fn render(f: &Findings) -> String {
    let mut body = String::from("<div class=\"page\">\n");
    let verdict = heading(&mut body, f);
    steps(&mut body, f);
    picture(&mut body, f);
    operations(&mut body, f);
    layers(&mut body, f);
    body += "</div>\n";
    Page { title: &format!("{verdict} – triage"), body: &body }.render()
}

fn heading(body: &mut String, f: &Findings) -> String {
    let (class, word) = match f.verdict {
        Verdict::Agrees => ("good", "No fault found"),
        Verdict::Fault => ("bad", "Fault"),
        Verdict::Inconclusive => ("warn", "Inconclusive"),
        Verdict::NothingInCommon => ("warn", "Nothing in common"),
    };
    let place = f.guilty.as_ref().map_or(String::new(), |g| {
        let layer = g.layer.map_or("outside the layers".to_owned(), |l| format!("layer {l}"));
        let step = f.at.map_or(String::new(), |step| format!("step {step}, "));
        format!(": {step}{layer}, {}", g.op)
    });
    let _ = writeln!(
        body,
        "<header class=\"top {class}\"><p class=\"tool\">cargo accuracy triage {}</p>\n\
         <h1 class=\"wrap\"><span class=\"word\">{word}</span>{}</h1>",
        env!("CARGO_PKG_VERSION"),
        escape(&place)
    );
    for part in f.guilty.iter().flat_map(|g| &g.evidence) {
        let _ = writeln!(body, "<p class=\"wrap\">{}</p>", escape(part));
    }
    let mut facts = Vec::new();
    if f.bad_layers.len() > 1 {
        let layers: Vec<String> = f.bad_layers.iter().map(usize::to_string).collect();
        facts.push(format!("bad layers: {}", layers.join(", ")));
    }
    match f.systematic {
        Some(true) => {
            facts.push("systematic: the same operation is wrong in every layer that was replayed".into())
        }
        Some(false) => facts.push("specific: the same operation is right in other layers".into()),
        None => {}
    }
    if let Some([first, last, predicted]) = f.compounding {
        facts.push(format!(
            "the stream is off by {first:.1e} after the first bad layer, {last:.1e} after the last; what the bad layers \
             introduce adds up to about {predicted:.1e}"
        ));
    }
    facts.push(format!("reference {}, candidate {}", f.reference.display(), f.candidate.display()));
    facts.extend(f.checkpoint.as_ref().map(|c| format!("checkpoint {}", c.display())));
    for fact in facts {
        let _ = writeln!(body, "<p class=\"meta wrap\">{}</p>", escape(&fact));
    }
    *body += "</header>\n";
    format!("{word}{place}")
}

fn steps(body: &mut String, f: &Findings) {
    *body += "<section class=\"panel\"><h2>Questions, in the order in which they were asked</h2><ol class=\"steps\">\n";
    for step in &f.steps {
        let (class, word) = match step.status {
            // Its answer is a measurement, which is neither good nor bad.
            Status::Ok if step.question == IMPACT => ("skip", "measured"),
            Status::Ok => ("good", "ok"),
            Status::Fault => ("bad", "fault"),
            Status::Inconclusive => ("warn", "inconclusive"),
            Status::Skipped => ("skip", "skipped"),
        };
        let evidence: String =
            step.evidence.iter().map(|line| format!("<li>{}</li>", escape(line))).collect();
        let next =
            step.next.as_ref().map_or(String::new(), |next| format!("<p><b>Next:</b> {}</p>", escape(next)));
        let _ = writeln!(
            body,
            "<li><div><span class=\"question\">{}</span></div><div><span class=\"badge {class}\">{word}</span>\
             <ul>{evidence}</ul>{next}</div></li>",
            escape(step.question)
        );
    }
    *body += "</ol></section>\n";
}

/// What a line of the picture shows of a layer.
type Series = (&'static str, fn(&LayerProfile) -> Option<&Agreement>);

const SERIES: [Series; 4] = [
    ("stream after it", |l| l.after.as_ref()),
    ("what it adds", |l| l.branch.as_ref()),
    ("attention", |l| l.attention.as_ref()),
    ("mlp", |l| l.mlp.as_ref()),
];

/// Height of a cosine: 0 or less at the top, each further nine a step down.
fn height(cos: Option<f64>) -> f64 {
    let distance = cos.map_or(1.0, |cos| (1.0 - cos).clamp(10_f64.powf(-DECADES), 1.0));
    TOP + -distance.log10() / DECADES * (HEIGHT - TOP - BOTTOM)
}

fn picture(body: &mut String, f: &Findings) {
    let shown: Vec<&LayerProfile> =
        f.layers.iter().filter(|l| SERIES.iter().any(|(_, of)| of(l).is_some())).collect();
    let (Some(first), Some(last)) = (shown.first(), shown.last()) else { return };
    let span = (last.layer - first.layer).max(1) as f64;
    let step = (WIDTH - LEFT - 24.0) / span;
    let x = |layer: usize| LEFT + 8.0 + (layer - first.layer) as f64 * step;
    let floor = HEIGHT - BOTTOM;
    let bad: Vec<String> = f.bad_layers.iter().map(usize::to_string).collect();
    let summary = match bad.is_empty() {
        true => format!("Cosine by layer, {} layers, none of them bad", shown.len()),
        false => format!("Cosine by layer, {} layers; bad: {}", shown.len(), bad.join(", ")),
    };
    *body += "<section class=\"panel\"><h2>Cosine by layer, candidate against reference</h2>\
              <p class=\"dim\">Each step down is one more nine; a layer in which a fault begins is shaded. Point at a \
              mark for its numbers; the table below has them all.</p>\n";
    let _ = write!(
        body,
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">",
        HEIGHT + 14.0,
        escape(&summary)
    );
    for &layer in f.bad_layers.iter().filter(|l| (first.layer..=last.layer).contains(l)) {
        let width = step.clamp(6.0, 24.0);
        let _ = write!(
            body,
            "<rect class=\"blame\" x=\"{:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{:.1}\"><title>layer {layer}: bad</title></rect>",
            x(layer) - width / 2.0,
            floor - TOP
        );
    }
    for (cos, label) in [
        (0.0, "0"),
        (0.9, "0.9"),
        (0.99, "0.99"),
        (0.999, "0.999"),
        (0.9999, "0.9999"),
        (0.999999, "0.999999"),
        (0.99999999, "1 − 1e-8"),
        (1.0, "1"),
    ] {
        let y = height(Some(cos));
        let _ = write!(
            body,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 8.0,
            y + 4.0
        );
    }
    let every = ((shown.len() as f64) / 24.0).ceil().max(1.0) as usize;
    let bad = |layer: usize| f.bad_layers.contains(&layer);
    // A bad layer has its number whatever the room, and those too near to it have none.
    let crowded = |layer: usize| f.bad_layers.iter().any(|b| (1..every).contains(&b.abs_diff(layer)));
    let labelled = shown
        .iter()
        .enumerate()
        .filter(|(i, l)| bad(l.layer) || i.is_multiple_of(every) && !crowded(l.layer));
    for (_, layer) in labelled {
        let _ = write!(
            body,
            "<text{} x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            if bad(layer.layer) { " class=\"bad\"" } else { "" },
            x(layer.layer),
            floor + 18.0,
            layer.layer
        );
    }
    let _ =
        write!(body, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">layer</text>", LEFT - 8.0, floor + 18.0);
    for (i, (name, of)) in SERIES.iter().enumerate() {
        let points: Vec<(usize, &Agreement)> = shown.iter().filter_map(|l| Some((l.layer, of(l)?))).collect();
        if points.is_empty() {
            continue;
        }
        let path: Vec<String> =
            points.iter().map(|(layer, a)| format!("{:.1},{:.1}", x(*layer), height(a.cos))).collect();
        let _ = write!(body, "<polyline class=\"line series{i}\" points=\"{}\"/>", path.join(" "));
        for (layer, agreement) in &points {
            let title = format!(
                "layer {layer}, {name}: cosine {}, relative L2 {}",
                number(agreement.cos, 9),
                agreement.rel_l2.map_or("none".into(), small)
            );
            mark(body, i, x(*layer), height(agreement.cos), &title);
        }
        let legend = LEFT + 8.0 + 200.0 * i as f64;
        mark(body, i, legend, 10.0, name);
        let _ = write!(body, "<text class=\"series{i}\" x=\"{:.1}\" y=\"14\">{name}</text>", legend + 10.0);
    }
    *body += "</svg></section>\n";
}

/// A point of a series: each has a form of its own beside its colour.
fn mark(body: &mut String, series: usize, x: f64, y: f64, title: &str) {
    let form = match series {
        0 => format!("<circle class=\"point series0\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\">"),
        1 => format!(
            "<rect class=\"point series1\" x=\"{:.1}\" y=\"{:.1}\" width=\"6\" height=\"6\">",
            x - 3.0,
            y - 3.0
        ),
        n => {
            let up = if n == 2 { 1.0 } else { -1.0 };
            let points = [(-3.8, 3.0), (3.8, 3.0), (0.0, -3.8)]
                .map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + up * dy));
            format!("<polygon class=\"point series{n}\" points=\"{}\">", points.join(" "))
        }
    };
    let close = ["</circle>", "</rect>", "</polygon>", "</polygon>"][series];
    let _ = write!(body, "{form}<title>{}</title>{close}", escape(title));
}

fn number(x: Option<f64>, digits: usize) -> String {
    x.map_or("–".into(), |x| format!("{x:.digits$}"))
}

/// An error in two digits, with a power of ten where it is needed.
fn small(x: f64) -> String {
    match x {
        0.0 => "0".into(),
        x if (0.095..99.5).contains(&x) => format!("{x:.*}", if x < 0.995 { 2 } else { 1 }),
        x => format!("{x:.1e}"),
    }
}

fn operations(body: &mut String, f: &Findings) {
    let (right, wrong): (Vec<_>, Vec<_>) =
        f.ops.iter().partition(|o| matches!(o.status, OpStatus::Right | OpStatus::NotReplayed));
    if f.ops.is_empty() {
        return;
    }
    *body += "<section class=\"panel\"><h2>Operations, each dump against its replay in float64</h2>\n";
    if wrong.is_empty() {
        *body += "<p>None that was replayed is wrong.</p>\n";
    } else {
        table(body, &wrong[..wrong.len().min(LISTED)]);
    }
    let rest: Vec<&OpFinding> = wrong.iter().skip(LISTED).chain(&right).copied().collect();
    if !rest.is_empty() {
        let cut = rest.len().saturating_sub(FOLDED);
        let _ = writeln!(body, "<details><summary>{} more</summary>", rest.len());
        table(body, &rest[..rest.len() - cut]);
        if cut > 0 {
            let _ = writeln!(body, "<p>and {cut} more, in the JSON report</p>");
        }
        *body += "</details>\n";
    }
    *body += "</section>\n";
}

fn table(body: &mut String, ops: &[&OpFinding]) {
    *body += "<table><thead><tr><th scope=\"col\" class=\"right\">Layer</th><th scope=\"col\">Operation</th>\
              <th scope=\"col\">Wrong</th><th scope=\"col\" class=\"right\">Reference</th>\
              <th scope=\"col\" class=\"right\">Candidate</th><th scope=\"col\" class=\"right\">Bound</th>\
              <th scope=\"col\">What is known of it</th></tr></thead><tbody>\n";
    for op in ops {
        let (class, word) = match op.status {
            OpStatus::Right => ("good", "neither"),
            OpStatus::CandidateWrong => ("bad", "candidate"),
            OpStatus::ReferenceWrong => ("warn", "reference"),
            OpStatus::BothWrong => ("warn", "both, or our reading"),
            OpStatus::NotReplayed => ("skip", "not replayed"),
        };
        let bound = match &op.candidate {
            Outcome::Judged(j) => small(j.bound),
            _ => "–".into(),
        };
        let mut known = Vec::new();
        if let Some(cause) = &op.cause {
            known.push(format!("{}{}", if cause.explains { "" } else { "perhaps " }, cause.detail));
        }
        for (who, outcome) in [("reference", &op.reference), ("candidate", &op.candidate)] {
            match outcome {
                Outcome::Missing(what) => known.push(format!("the {who} has no {what}")),
                Outcome::NoCache => known.push(format!("the {who} has no {CACHE}")),
                Outcome::Unusable(why) => known.push(format!("{who}: {why}")),
                Outcome::Judged(j) => known.extend(j.notes.iter().map(|note| format!("{who}: {note}"))),
            }
        }
        let _ = writeln!(
            body,
            "<tr><td class=\"num\">{}</td><td class=\"wrap mono\">{}</td><td><span class=\"badge {class}\">{word}</span></td>\
             <td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{bound}</td><td class=\"wrap\">{}</td></tr>",
            op.layer.map_or("–".to_owned(), |l| l.to_string()),
            escape(&op.name),
            error(&op.reference),
            error(&op.candidate),
            escape(&known.join("; "))
        );
    }
    *body += "</tbody></table>\n";
}

fn error(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Judged(j) => small(j.error),
        Outcome::Missing(_) | Outcome::NoCache | Outcome::Unusable(_) => "–".into(),
    }
}

fn layers(body: &mut String, f: &Findings) {
    if f.layers.is_empty() {
        return;
    }
    *body += "<section class=\"panel\"><h2>Layers</h2><table><thead><tr><th scope=\"col\" class=\"right\">Layer</th>";
    for (name, _) in SERIES {
        let _ = write!(body, "<th scope=\"col\" class=\"right\">{name}</th>");
    }
    *body += "<th scope=\"col\" class=\"right\">Gain</th><th scope=\"col\" class=\"right\">Relative L2</th>\
              <th scope=\"col\" class=\"right\">Worst token</th><th scope=\"col\">Note</th></tr></thead><tbody>\n";
    for layer in &f.layers {
        let blamed = f.bad_layers.contains(&layer.layer);
        let worst = layer.worst();
        let _ = write!(
            body,
            "<tr{}><td class=\"num\">{}{}</td>",
            if blamed { " class=\"blamed\"" } else { "" },
            if blamed { "<span class=\"badge bad\">bad</span> " } else { "" },
            layer.layer
        );
        for (_, of) in SERIES {
            let _ =
                write!(body, "<td class=\"num\">{}</td>", of(layer).map_or("–".into(), |a| number(a.cos, 7)));
        }
        let row = worst.and_then(|a| a.row_min_index).map_or(String::new(), |r| format!(" ({r})"));
        let mut note: Vec<&str> = layer.problems.iter().map(String::as_str).collect();
        if layer.identical() && !blamed {
            note.insert(0, "the same bytes");
        }
        let _ = writeln!(
            body,
            "<td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}{row}</td><td class=\"wrap\">{}</td></tr>",
            worst.map_or("–".into(), |a| number(a.gain, 4)),
            worst.and_then(|a| a.rel_l2).map_or("–".into(), small),
            worst.map_or("–".into(), |a| number(a.cos_row_min, 4)),
            escape(&note.join("; "))
        );
    }
    *body += "</tbody></table></section>\n";
}
