//! `cargo accuracy selftest`: plants every known fault in a workspace's chains and shows which checks see it.
//!
//! The faults are planted in the reference, not in the kernels: what the checks say of them is what they would have said
//! of a kernel that has the fault. So it tests the checks and the tests' data, whatever the kernels do.

mod command;

pub use command::command;

use crate::exit::ExitCode;
use crate::report::style::{self, paint};
use crate::report::text::table::{Cell, Column, Table};
use accuracy_core::identity::{self, Identity};
use accuracy_core::meta::Check;
use accuracy_core::packed::PowerView;
use accuracy_core::record::{Planned, PowerStatus, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Unseen faults that are listed.
const LISTED: usize = 20;

/// Below faults that the checks would not have seen.
const WHAT_TO_DO: &str = "  what to do: the data hides such a fault (too few terms, scales that are alike), or it loses less than the result's
  own rounding. Take a longer K, more tokens, weights of a real checkpoint, or judge the kernel with a float32 result
  in a test beside this one; else know that this test does not see it.
";

/// Test, dtype and parameters.
type Chain = (String, Option<String>, Vec<(String, String)>);

/// One case of each chain: the faults are the same on every path, weight and token count, and show best on the largest.
pub fn representative<'a>(cases: impl Iterator<Item = &'a Planned>) -> BTreeSet<String> {
    let mut largest: BTreeMap<Chain, (u64, String)> = BTreeMap::new();
    // What a drawn case shows depends on what was drawn, so listed ones stand for a chain.
    let listed = |planned: &&Planned| planned.check == Check::FullChain && planned.fuzz.is_none();
    for planned in cases.filter(listed) {
        let params = planned.params.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        // Functions of one name in several files are several tests, and so are those of several modules.
        let test = identity::path(&planned.id);
        let key = (test.to_owned(), planned.dtype.clone(), params);
        let tokens = tokens(&planned.id);
        let best = largest.entry(key).or_insert_with(|| (tokens, planned.id.clone()));
        if tokens > best.0 {
            *best = (tokens, planned.id.clone());
        }
    }
    largest.into_values().map(|(_, id)| id).collect()
}

fn tokens(id: &str) -> u64 {
    Identity::of(id).get("tokens").and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The table of faults and checks, what would have passed, and the exit status.
pub fn render(records: &[Record], width: Option<usize>) -> (String, ExitCode) {
    let mut text = String::new();
    let ran: Vec<&Record> = records.iter().filter(|r| !r.power.is_empty()).collect();
    let all: Vec<(&Record, PowerView)> = ran.iter().flat_map(|r| r.power.iter().map(|p| (*r, p))).collect();
    let mut faults: BTreeMap<&str, Vec<&PowerView>> = BTreeMap::new();
    for (_, power) in &all {
        faults.entry(&power.fault).or_default().push(power);
    }
    let count = |of: &[&PowerView], status: PowerStatus| of.iter().filter(|p| p.status == status).count();
    let mut table = Table::default();
    let rows: Vec<(&&str, &Vec<&PowerView>)> = faults.iter().collect();
    table.push(Column::left("fault"), rows.iter().map(|(name, _)| Cell::plain(**name)));
    let number = |n: usize| Cell::plain(if n == 0 { "-".to_owned() } else { n.to_string() });
    table.push(Column::right("planted"), rows.iter().map(|(_, of)| number(of.len())));
    table.push(
        Column::right("no effect"),
        rows.iter().map(|(_, of)| number(count(of, PowerStatus::NotApplicable))),
    );
    table.push(Column::right("seen"), rows.iter().map(|(_, of)| number(count(of, PowerStatus::Seen))));
    table.push(
        Column::right("unseen"),
        rows.iter().map(|(_, of)| {
            let unseen = count(of, PowerStatus::Unseen);
            let style = if unseen > 0 { style::BAD } else { style::PLAIN };
            Cell { style, ..number(unseen) }
        }),
    );
    let seen_by = |of: &[&PowerView]| {
        let mut checks: BTreeMap<&str, usize> = BTreeMap::new();
        for check in of.iter().flat_map(|p| &p.failed_checks) {
            *checks.entry(&check.0).or_default() += 1;
        }
        let mut checks: Vec<(&str, usize)> = checks.into_iter().collect();
        checks.sort_by_key(|(name, n)| (std::cmp::Reverse(*n), *name));
        checks.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
    };
    table.push(Column::left("seen by").shrinkable(), rows.iter().map(|(_, of)| Cell::plain(seen_by(of))));
    text += &table.render(width);

    let unseen: Vec<&(&Record, PowerView)> =
        all.iter().filter(|(_, p)| p.status == PowerStatus::Unseen).collect();
    for (claimed, title) in [
        (true, "would have passed"),
        (false, "would have passed, and may: they lose no more than the declared accumulation allows"),
    ] {
        let of: Vec<_> = unseen.iter().filter(|(_, p)| p.claimed == claimed).collect();
        if of.is_empty() {
            continue;
        }
        let style = if claimed { style::BAD } else { style::DIM };
        let _ = writeln!(text, "\n{}", paint(style, title));
        for (record, power) in of.iter().take(LISTED) {
            let cos = power.cos.map_or("-".to_owned(), |c| format!("{c:.7}"));
            let _ = writeln!(text, "  {}: {} (cosine {cos})\n    {}", power.fault, power.detail, record.id);
        }
        if of.len() > LISTED {
            let _ = writeln!(text, "  and {} more", of.len() - LISTED);
        }
    }
    let missed = unseen.iter().filter(|(_, p)| p.claimed).count();
    if missed > 0 {
        text += WHAT_TO_DO;
    }
    let failed: Vec<&Record> = records.iter().filter(|r| r.power.is_empty()).collect();
    for record in &failed {
        let _ = writeln!(text, "{}: no faults were planted: {}", record.id, record.reason);
    }
    let _ = writeln!(
        text,
        "\n{} faults planted in {} chains: {} seen, {} without effect on the chain's data, {} unseen",
        all.len(),
        ran.len(),
        all.iter().filter(|(_, p)| p.status == PowerStatus::Seen).count(),
        all.iter().filter(|(_, p)| p.status == PowerStatus::NotApplicable).count(),
        unseen.len(),
    );
    let code = match (failed.is_empty(), missed) {
        _ if ran.is_empty() => ExitCode::NothingRan,
        (false, _) => ExitCode::Unfinished,
        (true, 0) => ExitCode::Correct,
        (true, _) => ExitCode::Failed,
    };
    (text, code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(id: &str) -> Planned {
        Planned {
            id: id.into(),
            package: "k".into(),
            test: "gemm".into(),
            file: String::new(),
            line: 1,
            check: Check::FullChain,
            arch: "host".into(),
            dtype: None,
            path: None,
            params: BTreeMap::new(),
            weights: BTreeMap::new(),
            fuzz: None,
        }
    }

    #[test]
    fn tests_of_one_name_in_several_files_are_several_chains() {
        let ids = [
            "k::fp8::gemm[check=full_chain,arch=host,tokens=1]",
            "k::fp8::gemm[check=full_chain,arch=host,tokens=33]",
            "k::int8::gemm[check=full_chain,arch=host,tokens=17]",
        ];
        let cases: Vec<Planned> = ids.into_iter().map(planned).collect();
        let chosen: Vec<String> = representative(cases.iter()).into_iter().collect();
        assert_eq!(chosen, ids[1..]);
    }
}
