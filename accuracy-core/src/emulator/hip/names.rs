//! The names that HIP's runtime exports, from `names.txt`.

/// What a call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// `hipError_t`.
    Status,
    /// `hiprtcResult`.
    Rtc,
    /// A pointer or a string.
    Pointer,
    /// Some other number.
    Number,
    Nothing,
}

/// A name that the runtime exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    pub name: &'static str,
    pub returns: Returns,
}

/// All names, in the order of `names.txt`. A line of that file that is no entry is left out; a test checks that there
/// is none.
pub fn all() -> Vec<Name> {
    lines().filter_map(parse).collect()
}

fn lines() -> impl Iterator<Item = &'static str> {
    include_str!("names.txt").lines().filter(|line| !line.starts_with('#'))
}

fn parse(line: &'static str) -> Option<Name> {
    let (returns, name) = line.split_once(' ')?;
    let returns = match returns {
        "status" => Returns::Status,
        "rtc" => Returns::Rtc,
        "pointer" => Returns::Pointer,
        "number" => Returns::Number,
        "nothing" => Returns::Nothing,
        _ => return None,
    };
    Some(Name { name, returns })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_line_is_a_name_and_none_is_there_twice() {
        assert_eq!(lines().filter(|line| parse(line).is_none()).collect::<Vec<_>>(), Vec::<&str>::new());
        let names: BTreeSet<_> = all().iter().map(|name| name.name).collect();
        assert_eq!(names.len(), lines().count());
    }
}
