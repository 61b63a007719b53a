//! What a report says of an emulated run: how much of it was exact, what kernels printed, and what the emulator saw them do
//! wrong.

use super::model::Report;
use accuracy_core::record::{Fidelity, Finding, FindingKind, Origin, Record, Severity};
use accuracy_core::symbol::readable;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Mnemonics that the line about fidelity names.
const NAMED: usize = 8;

/// How an emulated run computed, as one line; `None` where nothing was emulated.
pub fn line(report: &Report) -> Option<String> {
    let Fidelity { exact, modelled, instructions } = report.emulated.as_ref()?;
    if *instructions == 0 {
        return Some("emulated, and no instruction was executed".into());
    }
    let share = match exact == instructions {
        true => "all".to_owned(),
        // What is not all of it is not rounded to 100 %.
        false => format!("{:.2} %", (100.0 * *exact as f64 / *instructions as f64).min(99.99)),
    };
    let mut text = format!("emulated: {share} of {} instructions exact", grouped(*instructions));
    if !modelled.is_empty() {
        let named: Vec<&str> = modelled.iter().take(NAMED).map(String::as_str).collect();
        text += &format!("; modelled: {}", named.join(", "));
        if modelled.len() > NAMED {
            text += &format!(" and {} more", modelled.len() - NAMED);
        }
    }
    Some(text)
}

/// `12,345`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A finding as a sentence.
fn words(finding: &Finding) -> String {
    let Finding { kind, kernel, mnemonic, offset, file, line, severity: _, block, wave, lane, .. } = finding;
    let Finding { buffer, row, column, detail, .. } = finding;
    let source = match (file, line) {
        (Some(file), Some(line)) => format!(", {file}:{line}"),
        (Some(file), None) => format!(", {file}"),
        (None, _) => String::new(),
    };
    let who = match (block, wave) {
        (Some([x, y, z]), Some(wave)) => {
            let lane = lane.map_or(String::new(), |lane| format!(", lane {lane}"));
            format!(", first in workgroup ({x}, {y}, {z}), wave {wave}{lane}")
        }
        _ => String::new(),
    };
    let element = match (buffer, row, column) {
        (Some(buffer), Some(row), Some(column)) => format!(" {buffer}[{row}, {column}]:"),
        (Some(buffer), ..) => format!(" {buffer}:"),
        (None, ..) => String::new(),
    };
    format!(
        "{} in `{}` at {mnemonic} (offset {offset:#x}{source}{who}):{element} {detail}",
        kind.name(),
        readable(kernel)
    )
}

/// Wrong elements, and right ones, of which a report that people read says where they come from.
const TOLD: usize = 2;

/// Where elements of the first failing hop come from: a sentence each, wrong ones first.
pub fn origins(record: &Record) -> impl Iterator<Item = String> {
    let of = |wrong: bool| record.origins.iter().filter(move |origin| origin.wrong == wrong).take(TOLD);
    let told = |origin: &Origin| {
        let is = if origin.wrong { "wrong" } else { "right" };
        format!("{}, is {is} and {}", origin.place(), origin.flow())
    };
    of(true).chain(of(false)).map(told)
}

/// A mistake that a kernel makes at one or more of its instructions.
pub struct Found<'a> {
    /// The first place where it was seen.
    first: &'a Finding,
    /// How many of the kernel's instructions make it.
    places: usize,
    /// In how many cases.
    cases: usize,
}

impl Found<'_> {
    /// The first place, and how many more there are.
    pub fn words(&self) -> String {
        match self.places - 1 {
            0 => words(self.first),
            1 => format!("{}; 1 more instruction of this kernel does so", words(self.first)),
            more => format!("{}; {more} more instructions of this kernel do so", words(self.first)),
        }
    }

    /// Whether it fails its cases.
    pub fn is_error(&self) -> bool {
        self.first.severity == Severity::Error
    }

    pub fn kind(&self) -> FindingKind {
        self.first.kind
    }

    /// `3 cases`.
    pub fn cases(&self) -> String {
        if self.cases == 1 { "1 case".into() } else { format!("{} cases", self.cases) }
    }
}

/// What the emulator saw kernels do wrong in some cases: each kind of mistake once for a kernel and a buffer, errors before
/// notes.
pub fn findings<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<Found<'a>> {
    let mut found: Vec<Found<'_>> = Vec::new();
    let mut at = HashMap::new();
    let mut places = HashSet::new();
    for record in records {
        let mut of_case = HashSet::new();
        for finding in record.findings.iter().flatten() {
            let key = (finding.kind, finding.severity, &finding.kernel, &finding.buffer);
            let i = *at.entry(key).or_insert_with(|| {
                found.push(Found { first: finding, places: 0, cases: 0 });
                found.len() - 1
            });
            found[i].places += usize::from(places.insert((i, finding.offset)));
            found[i].cases += usize::from(of_case.insert(i));
        }
    }
    found.sort_by_key(|found| found.first.severity);
    found
}

/// The notes among what was found, as one line; `None` where there are none. They fail nothing, and a kernel in assembly has
/// many.
pub fn notes(found: &[Found<'_>]) -> Option<String> {
    let mut kernels: BTreeMap<FindingKind, BTreeSet<&str>> = BTreeMap::new();
    for found in found.iter().filter(|found| !found.is_error()) {
        kernels.entry(found.kind()).or_default().insert(&found.first.kernel);
    }
    let kinds = kernels.iter().map(|(kind, kernels)| match kernels.len() {
        1 => format!("{} in 1 kernel", kind.name()),
        n => format!("{} in {n} kernels", kind.name()),
    });
    let kinds: Vec<String> = kinds.collect();
    (!kinds.is_empty())
        .then(|| format!("notes of the emulator, in full in the JSON report: {}", kinds.join(", ")))
}

/// Whether records of an architecture were emulated, as far as they say.
fn is_emulated(record: &Record, listed: &BTreeSet<String>) -> Option<bool> {
    match (&record.emulated, &record.device) {
        (Some(_), _) => Some(true),
        // A case that came to nothing names a device only where its run chose it.
        (None, Some(_)) => Some(listed.contains(&record.arch)),
        (None, None) => None,
    }
}

/// Which folders have emulated cases of an architecture, and which have cases that a device ran.
#[derive(Default)]
pub struct Kinds(BTreeMap<String, [BTreeSet<PathBuf>; 2]>);

impl Kinds {
    /// Adds the records of a folder, whose run says that it emulated `listed`.
    pub fn add(&mut self, folder: &Path, listed: &BTreeSet<String>, records: &[Record]) {
        for record in records {
            if let Some(emulated) = is_emulated(record, listed) {
                let kinds = self.0.entry(record.arch.clone()).or_default();
                let folders = &mut kinds[usize::from(emulated)];
                if !folders.contains(folder) {
                    folders.insert(folder.into());
                }
            }
        }
    }

    /// Architectures of which some cases were emulated and others ran on a device, a sentence each: they are two results,
    /// and one must not stand for the other.
    pub fn problems(&self) -> Vec<String> {
        let list = |folders: &BTreeSet<PathBuf>| {
            folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
        };
        let mixed = self.0.iter().filter(|(_, kinds)| kinds.iter().all(|folders| !folders.is_empty()));
        mixed
            .map(|(arch, [device, emulated])| {
                format!(
                    "cases of {arch} were emulated ({}) and others ran on a device ({}): report each by itself",
                    list(emulated),
                    list(device)
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::text::fixture::{emulated, record};

    #[test]
    fn a_line_says_what_share_was_exact_and_what_is_modelled() {
        let mut case = emulated("k::t[arch=gfx950,tokens=1]");
        let report = Report::new(vec![record("k::t[arch=host]", 1.0)], &[]);
        assert_eq!(line(&report), None);
        let report = Report::new(vec![case.clone(), case.clone()], &[]);
        assert_eq!(
            line(&report).unwrap(),
            "emulated: 99.80 % of 2,000,000 instructions exact; modelled: v_exp_f32, v_rcp_f32"
        );
        let fidelity = &mut case.emulated.as_mut().unwrap().fidelity;
        (fidelity.exact, fidelity.instructions) = (9_999_999, 10_000_000);
        assert!(line(&Report::new(vec![case.clone()], &[])).unwrap().contains("99.99 %"));
        **case.emulated.as_mut().unwrap() = Default::default();
        assert_eq!(line(&Report::new(vec![case], &[])).unwrap(), "emulated, and no instruction was executed");
    }

    #[test]
    fn a_finding_is_told_once_with_the_number_of_its_cases() {
        let cases = [1, 2].map(|tokens| emulated(&format!("k::t[arch=gfx950,tokens={tokens}]")));
        let report = Report::new(cases.into(), &[]);
        let found = findings(&report.records);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].first.kind, &*found[0].cases()), (FindingKind::Race, "2 cases"));
        assert_eq!(
            found[0].words(),
            "race in `gemm` at ds_read_b32 (offset 0x1a4, gemm.hip:42, first in workgroup (1, 0, 0), wave 3, lane 7): \
             y[2, 5]: two waves of a workgroup, no barrier between"
        );
    }

    #[test]
    fn a_mistake_at_many_instructions_of_a_kernel_is_told_once_and_errors_come_first() {
        let mut case = emulated("k::t[arch=gfx950,tokens=1]");
        let findings_of = case.findings.as_mut().unwrap();
        let race = findings_of[0].clone();
        let at = |offset| Finding { offset, ..race.clone() };
        let note = Finding { severity: Severity::Note, kind: FindingKind::Erratum, ..race.clone() };
        *findings_of = vec![note, at(8), at(16), at(8), at(24)];
        let report = Report::new(vec![case.clone(), case], &[]);
        let found = findings(&report.records);
        assert_eq!(found.len(), 2);
        assert!(found[0].words().ends_with("; 2 more instructions of this kernel do so"));
        assert_eq!(found[0].cases(), "2 cases");
        assert_eq!(found[1].first.kind, FindingKind::Erratum);
        assert_eq!(
            notes(&found).unwrap(),
            "notes of the emulator, in full in the JSON report: erratum in 1 kernel"
        );
        assert_eq!(notes(&found[..1]), None);
    }

    #[test]
    fn emulated_cases_and_those_of_a_device_are_told_apart_by_architecture() {
        let on_device = |id: &str| {
            let mut record = emulated(id);
            (record.emulated, record.device) = (None, Some("AMD Instinct MI355X".into()));
            record
        };
        let none = BTreeSet::new();
        let (a, b) = (Path::new("a"), Path::new("b"));
        let mut kinds = Kinds::default();
        kinds.add(a, &none, &[emulated("k::t[arch=gfx950,tokens=1]"), record("k::t[arch=host]", 1.0)]);
        kinds.add(b, &none, &[emulated("k::t[arch=gfx950,tokens=2]")]);
        assert_eq!(kinds.problems(), [""; 0]);
        kinds.add(b, &none, &[on_device("k::t[arch=gfx950,tokens=3]")]);
        assert_eq!(
            kinds.problems(),
            ["cases of gfx950 were emulated (a, b) and others ran on a device (b): report each by itself"]
        );
    }
}
