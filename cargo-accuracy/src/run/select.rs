//! Which of the known cases a run takes: filters and partitions.

use accuracy_core::record::file_stem;

/// One of N parts of a run, for N machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    by: By,
    /// From 0.
    part: u64,
    parts: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Slice,
    Hash,
}

impl Partition {
    /// Whether the case with this identity, the `index`-th of the selected ones, belongs to this part.
    pub fn takes(self, index: usize, id: &str) -> bool {
        let at = match self.by {
            By::Slice => index as u64,
            By::Hash => u64::from_str_radix(&file_stem(id), 16).expect("a file stem is a hexadecimal hash"),
        };
        at % self.parts == self.part
    }
}

impl std::str::FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected slice:K/N or hash:K/N with K from 1 to N".to_string();
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
        Ok(Partition { by, part: part - 1, parts })
    }
}

/// Whether a case is meant by the filters of the command line.
///
/// A filter is a part of the identity or the whole of it. `open` says that the identity lacks the tensors, because
/// the checkpoint could not be read: then a filter that names them still means this case.
pub fn matches(filters: &[String], id: &str, open: bool) -> bool {
    filters.is_empty()
        || filters.iter().any(|filter| {
            id.contains(filter.as_str())
                || open && id.strip_suffix(']').is_some_and(|stem| filter.starts_with(&format!("{stem},")))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_in_exactly_one_part() {
        let ids: Vec<String> = (0..100).map(|i| format!("p::m::t[tokens={i}]")).collect();
        for kind in ["slice", "hash"] {
            let parts: Vec<Partition> = (1..=3).map(|k| format!("{kind}:{k}/3").parse().unwrap()).collect();
            for (i, id) in ids.iter().enumerate() {
                assert_eq!(parts.iter().filter(|p| p.takes(i, id)).count(), 1, "{kind} {id}");
            }
            for part in parts {
                let size = ids.iter().enumerate().filter(|(i, id)| part.takes(*i, id)).count();
                assert!((15..=55).contains(&size), "{kind}: a part has {size} of 100");
            }
        }
    }

    #[test]
    fn a_partition_that_cannot_be_is_refused() {
        for bad in ["slice:0/2", "slice:3/2", "hash:1/0", "1/2", "slice:1", "count:1/2", "slice:a/b", ""] {
            bad.parse::<Partition>().unwrap_err();
        }
    }

    #[test]
    fn a_filter_is_a_part_of_an_identity_or_the_whole_of_it() {
        let id = "kernels::fp8::gemm[check=full_chain,arch=host,tokens=3]";
        for filter in ["fp8", "tokens=3", id] {
            assert!(matches(&[filter.into()], id, false), "{filter}");
        }
        assert!(!matches(&["fp8::gemv".into()], id, false));
        assert!(matches(&[], id, false));
        assert!(matches(&["nothing".into(), "host".into()], id, false), "one of several is enough");
    }

    #[test]
    fn a_case_whose_checkpoint_is_missing_is_still_found_by_its_whole_identity() {
        let pasted = ["k::t[check=full_chain,arch=host,tokens=3,w=model.up_proj]".to_string()];
        assert!(matches(&pasted, "k::t[check=full_chain,arch=host,tokens=3]", true));
        assert!(!matches(&pasted, "k::t[check=full_chain,arch=host,tokens=33]", true));
        assert!(!matches(&pasted, "k::t[check=full_chain,arch=host,tokens=3]", false));
    }
}
