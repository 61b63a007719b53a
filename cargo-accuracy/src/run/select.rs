//! Which of the known cases a run takes: filters and partitions.

use super::schedule;
use crate::exit::usage;
use accuracy_core::record::file_stem;
use std::collections::{BTreeSet, HashMap};

/// `--partition`, as it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    This(By, u64, u64),
    /// As the scheduler says.
    Auto,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Slice,
    Hash,
}

/// One of N parts of a run, for N machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    by: By,
    /// From 1.
    pub part: u64,
    pub parts: u64,
    /// What the scheduler calls the job that all parts belong to.
    pub job: Option<String>,
}

/// Seconds that a case costs beside those that are measured: its process.
const OVERHEAD: f64 = 0.05;

impl Wanted {
    /// # Errors
    /// If `auto` is asked for and no scheduler says which part this is.
    pub fn resolve(self) -> anyhow::Result<Partition> {
        match self {
            Wanted::This(by, part, parts) => Ok(Partition { by, part, parts, job: None }),
            Wanted::Auto => {
                let scheduled = schedule::from_environment(|name| std::env::var(name).ok()).map_err(usage)?;
                let schedule::Scheduled { part, parts, job } = scheduled;
                Ok(Partition { by: By::Slice, part, parts, job })
            }
        }
    }
}

impl Partition {
    /// The part, from 1, that each of these cases belongs to. With the durations of an earlier run slices take
    /// equally long; what that run did not have is taken to need what its cases needed on average.
    ///
    /// # Errors
    /// If parts are to be both balanced and independent of the other cases.
    pub fn divide(&self, ids: &[&str], durations: Option<&HashMap<String, f64>>) -> anyhow::Result<Vec<u64>> {
        match (self.by, durations) {
            (By::Hash, Some(_)) => {
                Err(usage("--durations balances slices; hash:K/N goes by the identity alone: use slice:K/N"))
            }
            (By::Hash, None) => {
                let hash =
                    |id: &&str| u64::from_str_radix(&file_stem(id), 16).expect("a file stem is a hash");
                Ok(ids.iter().map(|id| hash(id) % self.parts + 1).collect())
            }
            (By::Slice, None) => Ok((0..ids.len()).map(|i| i as u64 % self.parts + 1).collect()),
            (By::Slice, Some(durations)) => Ok(self.balanced(ids, durations)),
        }
    }

    /// Longest first, each to the part that has least (Graham, "Bounds on multiprocessing timing anomalies", 1969).
    fn balanced(&self, ids: &[&str], durations: &HashMap<String, f64>) -> Vec<u64> {
        let known: Vec<f64> = ids.iter().filter_map(|id| durations.get(*id).copied()).collect();
        let mean = if known.is_empty() { 0.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
        let cost: Vec<f64> =
            ids.iter().map(|id| OVERHEAD + durations.get(*id).copied().unwrap_or(mean)).collect();
        let mut order: Vec<usize> = (0..ids.len()).collect();
        // The sort is stable, so every machine divides alike.
        order.sort_by(|&a, &b| cost[b].total_cmp(&cost[a]));
        // No more parts than cases get any.
        let mut loads = vec![0.0; ids.len().min(usize::try_from(self.parts).unwrap_or(usize::MAX))];
        let mut parts = vec![1; ids.len()];
        for i in order {
            let least = (0..loads.len()).min_by(|&a, &b| f64::total_cmp(&loads[a], &loads[b])).unwrap_or(0);
            loads[least] += cost[i];
            parts[i] = least as u64 + 1;
        }
        parts
    }
}

impl std::str::FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected auto, slice:K/N or hash:K/N with K from 1 to N".to_string();
        if text == "auto" {
            return Ok(Wanted::Auto);
        }
        let (by, rest) = text.split_once(':').ok_or_else(expected)?;
        let by = match by {
            "slice" => By::Slice,
            "hash" => By::Hash,
            _ => return Err(expected()),
        };
        let (part, parts) = rest.split_once('/').ok_or_else(expected)?;
        let part: u64 = part.parse().map_err(|_| expected())?;
        let parts: u64 = parts.parse().map_err(|_| expected())?;
        if part == 0 || part > parts {
            return Err(expected());
        }
        Ok(Wanted::This(by, part, parts))
    }
}

/// Whether a case is meant by the filters of the command line: each is a part of its identity, or the whole of it.
pub fn matches(filters: &[String], id: &str) -> bool {
    filters.is_empty() || filters.iter().any(|filter| id.contains(filter.as_str()))
}

/// What can be no part of a tensor's name in an identity, as it would end there.
const STRUCTURE: [char; 5] = ['[', ']', ':', ',', '='];

/// What a filter says of a case whose identity lacks the tensors, because they could not be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meant {
    /// Whatever its tensors are called.
    No,
    /// If one of its tensors is called so.
    Perhaps,
    Yes,
}

/// Whether a filter can be a part of `id` once each of the roles stands in it with a tensor.
pub fn meant(filter: &str, id: &str, roles: &[String]) -> Meant {
    if id.contains(filter) {
        return Meant::Yes;
    }
    // A character each, and nothing for a tensor's name, which has one or more.
    let mut whole: Vec<Option<char>> = id.strip_suffix(']').unwrap_or(id).chars().map(Some).collect();
    for role in roles {
        whole.extend(format!(",{role}=").chars().map(Some));
        whole.push(None);
    }
    whole.push(Some(']'));
    let mut places: BTreeSet<usize> = (0..whole.len()).collect();
    for c in filter.chars() {
        let next = |place: usize| match whole.get(place) {
            Some(Some(here)) if *here == c => vec![place + 1],
            Some(None) if !STRUCTURE.contains(&c) => vec![place, place + 1],
            _ => Vec::new(),
        };
        places = places.into_iter().flat_map(next).collect();
    }
    match places.is_empty() {
        true => Meant::No,
        false if filter.contains(STRUCTURE) => Meant::Yes,
        false => Meant::Perhaps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(text: &str, ids: &[&str], durations: Option<&HashMap<String, f64>>) -> Vec<u64> {
        let partition = text.parse::<Wanted>().unwrap().resolve().unwrap();
        partition.divide(ids, durations).unwrap()
    }

    #[test]
    fn every_case_is_in_exactly_one_part() {
        let ids: Vec<String> = (0..100).map(|i| format!("p::m::t[tokens={i}]")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        for kind in ["slice", "hash"] {
            let parts = divided(&format!("{kind}:2/3"), &ids, None);
            assert_eq!(parts, divided(&format!("{kind}:3/3"), &ids, None), "every machine divides alike");
            for part in 1..=3 {
                let size = parts.iter().filter(|p| **p == part).count();
                assert!((15..=55).contains(&size), "{kind}: part {part} has {size} of 100");
            }
        }
    }

    #[test]
    fn a_new_case_moves_no_other_when_parts_go_by_hash() {
        let before = divided("hash:1/3", &["a", "b", "c"], None);
        let after = divided("hash:1/3", &["a", "new", "b", "c"], None);
        assert_eq!([after[0], after[2], after[3]], before[..]);
    }

    #[test]
    fn slices_with_durations_take_equally_long() {
        let ids: Vec<String> = (0..40).map(|i| format!("case {i}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        // One of them takes as long as all others together, and one is new.
        let seconds = |i: usize| if i == 7 { 100.0 } else { (i % 5) as f64 };
        let durations: HashMap<String, f64> = (0..39).map(|i| (ids[i].to_owned(), seconds(i))).collect();
        let parts = divided("slice:1/2", &ids, Some(&durations));
        let load = |part: u64| -> f64 { (0..39).filter(|&i| parts[i] == part).map(seconds).sum() };
        assert!(load(1).max(load(2)) <= 101.0, "{} and {}", load(1), load(2));
        assert!(parts.contains(&1) && parts.contains(&2));
        assert_eq!(divided("slice:1/9", &["a", "b"], Some(&durations)).len(), 2);
        let hash = "hash:1/2".parse::<Wanted>().unwrap().resolve().unwrap();
        assert!(hash.divide(&ids, Some(&durations)).is_err());
    }

    #[test]
    fn a_partition_that_cannot_be_is_refused() {
        for bad in ["slice:0/2", "slice:3/2", "hash:1/0", "1/2", "slice:1", "count:1/2", "slice:a/b", ""] {
            bad.parse::<Wanted>().unwrap_err();
        }
    }

    #[test]
    fn a_filter_is_a_part_of_an_identity_or_the_whole_of_it() {
        let id = "kernels::fp8::gemm[check=full_chain,arch=host,tokens=3]";
        for filter in ["fp8", "tokens=3", id] {
            assert!(matches(&[filter.into()], id), "{filter}");
        }
        assert!(!matches(&["fp8::gemv".into()], id));
        assert!(matches(&[], id));
        assert!(matches(&["nothing".into(), "host".into()], id), "one of several is enough");
    }

    #[test]
    fn a_filter_that_names_tensors_means_a_case_whose_tensors_are_not_known() {
        let roles = ["v".to_owned(), "w".to_owned()];
        let meant = |filter| meant(filter, "k::t[check=full_chain,arch=host,tokens=3]", &roles);
        for filter in [
            "w=model.layers.0",
            "v=model",
            ",w=x]",
            "_proj]",
            "tokens=3,v=",
            "up_proj,w=down",
            "k::t[check=full_chain,arch=host,tokens=3,v=a.up_proj,w=a.down_proj]",
            "k::t",
        ] {
            assert_eq!(meant(filter), Meant::Yes, "{filter}");
        }
        for filter in ["model.layers.0", "down_proj", "gemm"] {
            assert_eq!(meant(filter), Meant::Perhaps, "{filter}");
        }
        for filter in [
            "k::other",
            "other[",
            "tokens=33",
            "tokens=3,w=a",
            "scale=true",
            "x=model",
            "k::t[check=full_chain,arch=host,tokens=33,v=a.up_proj,w=a.down_proj]",
        ] {
            assert_eq!(meant(filter), Meant::No, "{filter}");
        }
    }
}
