//! Whether the parts of a run are all there, each once.

use crate::run::folder::Part;
use accuracy_core::record::Library;
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
        // Of a run that is there as a whole every case has its place, once.
        let places: Vec<usize> = folders.iter().flat_map(|(_, part)| part.places.iter().copied()).collect();
        let distinct: BTreeSet<usize> = places.iter().copied().collect();
        let cases = folders.iter().map(|(_, part)| part.cases).max().unwrap_or(0);
        if missing.is_empty()
            && (distinct.len() != cases || distinct.last().is_some_and(|last| *last >= cases))
        {
            problems.push(format!("the parts hold {} of the {cases} cases of their run", distinct.len()));
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

/// Bindings for which parts of one run judged other files, a sentence each.
pub fn other_libraries(parts: &[(&Path, String, BTreeSet<Library>)]) -> Vec<String> {
    let mut first: BTreeMap<(&str, &str, &str, String), (&Path, &Library)> = BTreeMap::new();
    let mut problems = Vec::new();
    for (folder, of, libraries) in parts {
        for library in libraries {
            // The file's name has the architecture in it.
            let file = library.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let key = (of.as_str(), library.package.as_str(), library.name.as_str(), file);
            let (other_folder, other) = *first.entry(key).or_insert((folder, library));
            if other.hash != library.hash {
                problems.push(format!(
                    "the parts judged other libraries: {} judged {other}, and {} judged {library}; build once, and run \
                     the parts from an archive",
                    other_folder.display(),
                    folder.display()
                ));
            }
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
        let places = (0..90).filter(|place| place % 4 + 1 == part as usize).collect();
        Part { part, parts: 4, of: of.into(), cases: 90, places, job: job.map(String::from) }
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
    fn parts_that_judged_other_libraries_do_not_merge() {
        use accuracy_core::record::Found;
        let judged = |hash: &str, file: &str| {
            let (package, name) = ("k".to_owned(), "gemm".to_owned());
            let path = Path::new("/some").join(file);
            BTreeSet::from([Library {
                package,
                name,
                path,
                hash: hash.into(),
                found: Found::Built,
                passed_over: None,
            }])
        };
        let part = |dir: &'static str, of: &str, libraries| (Path::new(dir), of.to_owned(), libraries);
        let same =
            [part("1", "a", judged("x", "libgemm_host.so")), part("2", "a", judged("x", "libgemm_host.so"))];
        assert_eq!(other_libraries(&same), [""; 0]);
        // Another architecture, another run.
        let apart = [
            part("1", "a", judged("x", "libgemm_host.so")),
            part("2", "a", judged("y", "libgemm_gfx950.so")),
            part("3", "b", judged("z", "libgemm_host.so")),
        ];
        assert_eq!(other_libraries(&apart), [""; 0]);
        let other =
            [part("1", "a", judged("x", "libgemm_host.so")), part("2", "a", judged("y", "libgemm_host.so"))];
        let told = other_libraries(&other);
        assert!(
            told.len() == 1 && told[0].contains("1 judged k::gemm: /some/libgemm_host.so (x"),
            "{told:?}"
        );
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
