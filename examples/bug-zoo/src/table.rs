//! The zoo's table: numbers of a run, and Markdown for the README.

use crate::naming::Naming;
use crate::{Judged, package, peers};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;

/// What a run comes to.
pub struct Summary {
    faults: usize,
    detected: usize,
    named: usize,
    misnamed: usize,
    right: usize,
    alarms: usize,
}

impl Summary {
    pub fn of<'a>(cases: impl IntoIterator<Item = &'a Judged>) -> Summary {
        let cases: Vec<&Judged> = cases.into_iter().collect();
        let faults = || cases.iter().filter(|c| c.is_fault());
        let naming = |naming| faults().filter(|c| c.failed && c.naming == naming).count();
        Summary {
            faults: faults().count(),
            detected: faults().filter(|c| c.failed).count(),
            named: naming(Naming::Right),
            misnamed: naming(Naming::Wrong),
            right: cases.iter().filter(|c| !c.is_fault()).count(),
            alarms: cases.iter().filter(|c| !c.is_fault() && c.failed).count(),
        }
    }

    /// Everything is found, nothing else, no wrong cause is stated with confidence, and the true cause comes first for
    /// at least so many percent of the faults.
    pub fn is_good(&self, least_named: usize) -> bool {
        self.detected == self.faults
            && self.alarms == 0
            && self.misnamed == 0
            && self.named * 100 >= self.faults * least_named
    }

    /// A row of the table that [`print_chains`] writes.
    fn row(&self, name: &str) -> String {
        let Summary { faults, detected, named, misnamed, right, alarms } = self;
        let percent = 100.0 * *named as f64 / (*faults).max(1) as f64;
        format!(
            "| {name} | {faults} | {detected} | {named} ({percent:.0} %) | {misnamed} | {alarms} of {right} |"
        )
    }
}

/// Cases by what `key` makes of their chains; those for which it has nothing are left out.
fn by<'a>(
    cases: &'a [Judged],
    key: impl Fn(&'a str) -> Option<&'a str>,
) -> BTreeMap<&'a str, Vec<&'a Judged>> {
    let mut parts: BTreeMap<&str, Vec<&Judged>> = BTreeMap::new();
    for case in cases {
        if let Some(key) = key(&case.variant.chain) {
            parts.entry(key).or_default().push(case);
        }
    }
    parts
}

/// A row for all, for each set and for each chain.
pub fn print_chains(cases: &[Judged]) {
    println!("\n| | faults | detected | true cause first | wrong with confidence | right cases blamed |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    println!("{}", Summary::of(cases).row("all"));
    for (set, of_set) in by(cases, package::set) {
        println!("{}", Summary::of(of_set).row(&format!("set {set}")));
    }
    for (chain, of_chain) in by(cases, Some) {
        println!("{}", Summary::of(of_chain).row(&format!("`{chain}`")));
    }
}

/// What other projects' checks say of the same outputs; the outputs of one seed are kept for them.
pub fn print_peers(cases: &[Judged]) {
    if cases.iter().any(|c| c.peers.is_some()) {
        println!("\n{}", peers_markdown(cases));
    }
}

/// Median and worst time of the cases that fail, beside those that pass.
pub fn print_seconds(cases: &[Judged]) {
    let sorted = |failed: bool| {
        let mut seconds: Vec<f64> = cases.iter().filter(|c| c.failed == failed).map(|c| c.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        seconds
    };
    let (failing, passing) = (sorted(true), sorted(false));
    let (Some(worst), Some(worst_passing)) = (failing.last(), passing.last()) else { return };
    let (median, passing) = (failing[failing.len() / 2], passing[passing.len() / 2]);
    println!(
        "a failing case takes {median:.2} s in the median and {worst:.2} s at worst, a passing one {passing:.2} s and \
         {worst_passing:.2} s: {:.1} times in the median",
        median / passing.max(f64::MIN_POSITIVE)
    );
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { faults, detected, named, misnamed, right, alarms } = self;
        write!(
            f,
            "{detected} of {faults} faults detected, {alarms} false alarms in {right} right cases, true cause first in \
             {named} ({:.1} %), wrong cause with confidence in {misnamed}",
            100.0 * *named as f64 / *faults as f64
        )
    }
}

/// What did not come out as it should.
pub fn print_misses(cases: &[Judged]) {
    for case in cases {
        let what = match (case.is_fault(), case.failed, case.naming) {
            (true, false, _) => "undetected",
            (false, true, _) => "false alarm",
            (false, false, _) | (true, true, Naming::Right) => continue,
            (true, true, Naming::Open) => "not named",
            (true, true, Naming::Wrong) => "misnamed",
        };
        println!(
            "{what}: {}\n    truth: {}; named: {}; failed checks: {}",
            case.id,
            case.truth,
            case.causes.join(", "),
            case.failed_checks.join(", ")
        );
    }
}

const BEGIN: &str = "<!-- begin of what `cargo run --release -p bug-zoo -- --write` writes -->\n";
const END: &str = "<!-- end -->\n";

/// Puts the tables into a file, between its marks.
pub fn write(path: &Path, cases: &[Judged]) -> anyhow::Result<()> {
    between_marks(path, &markdown(cases))
}

/// Puts what the tables come to into a file, between its marks.
pub fn write_summary(path: &Path, cases: &[Judged]) -> anyhow::Result<()> {
    let Summary { faults, detected, named, misnamed, right, alarms } = Summary::of(cases);
    let all = |n: usize, of: usize| if n == of { "all".into() } else { n.to_string() };
    let no = |n: usize| if n == 0 { "none".into() } else { n.to_string() };
    let peer = |name: &str, fault: bool| {
        let check = peers::CHECKS.iter().position(|(check, _)| *check == name);
        let of: Vec<_> =
            cases.iter().filter(|c| c.is_fault() == fault).filter_map(|c| c.peers.as_ref()).collect();
        let wrong = check.map_or(0, |i| of.iter().filter(|says| says[i] == fault).count());
        format!("{:.0} %", 100.0 * wrong as f64 / of.len().max(1) as f64)
    };
    let text = format!(
        "Of {faults} cases with a fault {} fail, of {right} right ones {}; the true cause comes first in {named} \
         ({:.1} %), and a wrong one is stated with confidence in {}. On the same outputs `torch.testing.assert_close` \
         blames {} of the right kernels, an allclose that forgives 5 % of the elements misses {} of the faults, \
         `calc_diff` {}, and a cosine above 0.999 misses {}.",
        all(detected, faults),
        no(alarms),
        100.0 * named as f64 / faults.max(1) as f64,
        no(misnamed),
        peer("assert_close", false),
        peer("allclose 5 %", true),
        peer("calc_diff", true),
        peer("cos > 0.999", true),
    );
    between_marks(path, &wrapped(&text, 118))
}

fn between_marks(path: &Path, text: &str) -> anyhow::Result<()> {
    let known = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let parts = known.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    let (head, tail) = parts.with_context(|| format!("{} has no marks for the table", path.display()))?;
    std::fs::write(path, format!("{head}{BEGIN}\n{text}\n{END}{tail}"))
        .with_context(|| path.display().to_string())
}

/// Words in lines of at most so many characters.
fn wrapped(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n") + "\n"
}

/// How many faults each check misses, and how many right outputs it blames. Peers judge outputs of whole chains only.
fn peers_markdown(cases: &[Judged]) -> String {
    let mut text = String::new();
    let mut line = |words: &[String]| writeln!(text, "| {} |", words.join(" | ")).unwrap_or_default();
    let percent = |a: usize, b: usize| format!("{a} of {b} ({:.1} %)", 100.0 * a as f64 / b.max(1) as f64);
    let with_peers: Vec<&Judged> = cases.iter().filter(|c| c.peers.is_some()).collect();
    let count = |fault: bool, hit: &dyn Fn(&Judged) -> bool| {
        let of: Vec<_> = with_peers.iter().filter(|c| c.is_fault() == fault).collect();
        (of.iter().filter(|c| hit(c)).count(), of.len())
    };
    line(&["check".into(), "faults missed".into(), "false alarms".into()]);
    line(&["---".into(), "---:".into(), "---:".into()]);
    let (missed, of_faults) = count(true, &|c| !c.failed);
    let (alarms, of_right) = count(false, &|c| c.failed);
    line(&["**cargo accuracy**".into(), percent(missed, of_faults), percent(alarms, of_right)]);
    for (i, (name, _)) in peers::CHECKS.iter().enumerate() {
        let says = |case: &Judged| case.peers.as_ref().is_some_and(|p| p[i]);
        let (missed, of_faults) = count(true, &|c| says(c));
        let (alarms, of_right) = count(false, &|c| !says(c));
        line(&[(*name).into(), percent(missed, of_faults), percent(alarms, of_right)]);
    }
    text
}

fn markdown(cases: &[Judged]) -> String {
    let summary = Summary::of(cases);
    let with_peers: Vec<&Judged> = cases.iter().filter(|c| c.peers.is_some()).collect();
    let mut out = format!("{summary}.\n\n{}", peers_markdown(cases));
    for fault in [true, false] {
        let what = if fault { "Faults" } else { "Right, and unusual" };
        let _ = write!(out, "\n## {what}\n\n");
        let mut head = vec!["chain", "variant", "what it does"];
        if fault {
            head.extend(["models", "true cause", "named"]);
        }
        head.push("failed checks");
        head.extend(peers::CHECKS.iter().map(|(name, _)| *name));
        let _ = writeln!(out, "| {} |\n|{}", head.join(" | "), " --- |".repeat(head.len()));
        for case in with_peers.iter().filter(|c| (c.variant.truth != bug_zoo::Truth::Right) == fault) {
            // Where the fault changes nothing there is nothing to be seen.
            if fault && !case.is_fault() {
                continue;
            }
            let mut row = vec![
                case.variant.chain.clone(),
                format!("`{}`", case.variant.name),
                case.variant.what.clone(),
            ];
            if fault {
                let named = match case.naming {
                    Naming::Right => case.causes.first().cloned().unwrap_or_default(),
                    Naming::Open => format!("({})", case.causes.first().map_or("none", String::as_str)),
                    Naming::Wrong => format!("**{}**", case.causes.first().map_or("none", String::as_str)),
                };
                row.extend([case.variant.models.clone(), case.truth.to_string(), named]);
            }
            row.push(case.failed_checks.join(" "));
            let peers = case.peers.as_deref().unwrap_or_default();
            row.extend(peers.iter().map(|passes| if *passes { "pass".into() } else { "fail".to_owned() }));
            let _ = writeln!(out, "| {} |", row.join(" | "));
        }
    }
    out
}
