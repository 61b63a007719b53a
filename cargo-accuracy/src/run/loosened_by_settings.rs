//! What the flags, the environment, the configuration and the attributes of tests loosen in a run.

use super::args::RunArgs;
use super::discover::Binary;
use super::loosened::{By, Loosening, What, loosening};
use super::plan::{Case, Settings};
use crate::config::Config;
use accuracy_core::verdict::{Asked, DecidedBy, LeastCosine};
use std::collections::{BTreeSet, HashSet};

/// What flags, environment, configuration and attributes loosen in a run of the selected cases.
pub fn of_run(
    args: &RunArgs,
    settings: &Settings,
    config: &Config,
    binaries: &[Binary],
    selected: &[Case],
    left_out: &[String],
) -> BTreeSet<Loosening> {
    let mut all = BTreeSet::new();
    let mut add = |what, by, detail: String| {
        all.insert(loosening(what, by, detail));
    };
    if let Some(cos) = settings.min_cos.filter(|cos| cos.is_loose()) {
        let by = if args.judge.min_cos.is_some() { By::Flag } else { By::Environment };
        add(What::LeastCosine, by, format!("least cosine {cos}"));
    }
    let runs: HashSet<(usize, &str, u32)> =
        selected.iter().map(|case| (case.binary, case.planned.file.as_str(), case.planned.line)).collect();
    for (index, binary) in binaries.iter().enumerate() {
        for test in binary.tests.iter().filter(|test| runs.contains(&(index, test.file.as_str(), test.line)))
        {
            let path = test.path();
            let asked = Asked {
                run: settings.min_cos,
                test: test.body.min_cos.and_then(LeastCosine::new),
                configuration: config.min_cos(&binary.package),
            };
            match asked.decide() {
                (cos, DecidedBy::Test) if cos.is_loose() => {
                    add(What::LeastCosine, By::Attribute, format!("least cosine {cos} of {path}"));
                }
                (cos, DecidedBy::Configuration) if cos.is_loose() => {
                    let detail = format!("least cosine {cos} of package {}", binary.package);
                    add(What::LeastCosine, By::Configuration, detail);
                }
                // What the run asks for is told once, above.
                (_, DecidedBy::Run | DecidedBy::Default | DecidedBy::Test | DecidedBy::Configuration) => {}
            }
            if let Some(repeats) = &test.body.nondeterministic {
                let detail = format!("repeats of {path} may differ by {}", repeats.bound);
                add(What::Repeats, By::Attribute, detail);
            }
            for benign in test.body.benign.iter().filter(|_| settings.emulates) {
                let detail = format!("{} in {path} is benign: {}", benign.finding.name(), benign.reason);
                add(What::Findings, By::Attribute, detail);
            }
        }
    }
    if args.no_lint && !args.selftest {
        add(What::Lint, By::Flag, "the lint is left out".into());
    }
    for name in left_out {
        add(What::Package, By::Configuration, format!("package {name} is left out"));
    }
    all
}
