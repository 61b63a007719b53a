//! Whether the parts of a run are all there, each once.

use crate::run::folder::Part;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// So many parts are named where more are missing.
const NAMED: usize = 8;

/// What is missing or too much, a sentence each; nothing where every run is whole.
pub fn problems(found: &[(&Path, Part)]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut runs: BTreeMap<(&str, u64), Vec<&(&Path, Part)>> = BTreeMap::new();
    for part in found {
        runs.entry((&part.1.of, part.1.parts)).or_default().push(part);
    }
    let several = runs.len() > 1;
    for ((_, parts), folders) in &runs {
        let mut by_part: BTreeMap<u64, Vec<&Path>> = BTreeMap::new();
        for (folder, part) in folders {
            by_part.entry(part.part).or_default().push(folder);
        }
        for (part, folders) in by_part.iter().filter(|(_, folders)| folders.len() > 1) {
            let folders: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
            problems.push(format!(
                "part {part} of {parts} is there {} times: {}; name one of them",
                folders.len(),
                folders.join(", ")
            ));
        }
        let missing: Vec<u64> = (1..=*parts).filter(|part| !by_part.contains_key(part)).collect();
        if !missing.is_empty() {
            let (folder, first) = folders[0];
            let mut text = match &missing[..] {
                [one] => format!("part {one} of {parts} is missing"),
                many => format!("{} parts of {parts} are missing: {}", many.len(), named(many)),
            };
            text += &format!(", of a run of {} cases", first.cases);
            if several {
                text += &format!(
                    "; these folders hold parts of {} different runs, archives or ways to divide them; of this one is {}",
                    runs.len(),
                    folder.display()
                );
            }
            problems.push(text);
        }
        let jobs: BTreeSet<&str> = folders.iter().filter_map(|(_, part)| part.job.as_deref()).collect();
        if jobs.len() > 1 {
            let jobs: Vec<&str> = jobs.into_iter().collect();
            problems.push(format!(
                "the parts are of different jobs ({}), so that one may be left from an earlier one: name folders of one \
                 job, or run the part again with --partition slice:K/{parts}",
                jobs.join(", ")
            ));
        }
    }
    problems
}

fn named(parts: &[u64]) -> String {
    let mut text = parts.iter().take(NAMED).map(u64::to_string).collect::<Vec<_>>().join(", ");
    if parts.len() > NAMED {
        text += &format!(" and {} more", parts.len() - NAMED);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(part: u64, of: &str, job: Option<&str>) -> Part {
        Part { part, parts: 4, of: of.into(), cases: 90, places: Vec::new(), job: job.map(String::from) }
    }

    fn told(parts: &[Part]) -> Vec<String> {
        let folders: Vec<(&Path, Part)> = parts.iter().map(|p| (Path::new("out"), p.clone())).collect();
        problems(&folders)
    }

    #[test]
    fn every_part_once_is_whole() {
        let all: Vec<Part> = (1..=4).map(|i| part(i, "a", Some("Slurm 7"))).collect();
        assert_eq!(told(&all), [""; 0]);
        // One was run again by hand.
        let mut again = all.clone();
        again[2].job = None;
        assert_eq!(told(&again), [""; 0]);
        // Two runs, such as one of each architecture.
        let two: Vec<Part> = ["a", "b"].iter().flat_map(|of| (1..=4).map(|i| part(i, of, None))).collect();
        assert_eq!(told(&two), [""; 0]);
    }

    #[test]
    fn a_missing_a_doubled_and_a_foreign_part_are_named() {
        let of_a = |parts: &[u64]| parts.iter().map(|&i| part(i, "a", None)).collect::<Vec<_>>();
        assert_eq!(told(&of_a(&[1, 2, 4])), ["part 3 of 4 is missing, of a run of 90 cases"]);
        assert_eq!(told(&of_a(&[2])), ["3 parts of 4 are missing: 1, 3, 4, of a run of 90 cases"]);
        let doubled = told(&of_a(&[1, 2, 3, 3, 4]));
        assert!(
            doubled.len() == 1 && doubled[0].starts_with("part 3 of 4 is there 2 times: out, out"),
            "{doubled:?}"
        );
        let mixed = told(&[of_a(&[1, 2, 3]), vec![part(4, "b", None)]].concat());
        assert!(
            mixed.len() == 2 && mixed.iter().all(|p| p.contains("parts of 2 different runs")),
            "{mixed:?}"
        );
        let jobs: Vec<Part> =
            (1..=4).map(|i| part(i, "a", Some(if i == 3 { "Slurm 6" } else { "Slurm 7" }))).collect();
        assert!(told(&jobs)[0].contains("different jobs (Slurm 6, Slurm 7)"), "{:?}", told(&jobs));
    }
}
