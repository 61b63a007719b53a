//! A person asks for the trace of a case in these words, and the record says in these what became of it.
//!
//! The emulator writes the trace itself (`emulator::trace`). This part is also in builds without it, because the plugin reads
//! the words.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::str::FromStr;

/// The most instructions that can be asked for.
pub const MOST: usize = 100_000;
/// Instructions that are shown where nobody says how many.
pub const USUAL: usize = 400;

/// The trace that a test process is asked for: the value of [`crate::env::TRACE`], as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The file that the trace is written to.
    pub to: PathBuf,
    #[serde(default)]
    pub wanted: Wanted,
}

/// The instructions that are shown. Whatever is not named here is chosen by what the case shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// A kernel's name, or a part of it.
    #[serde(default)]
    pub kernel: Option<String>,
    /// Which of that kernel's launches, counted from 1.
    #[serde(default)]
    pub launch: Option<u64>,
    #[serde(default)]
    pub block: Option<Place>,
    #[serde(default)]
    pub wave: Option<u32>,
    #[serde(default)]
    pub lane: Option<Lane>,
    #[serde(default)]
    pub range: Option<Range>,
    #[serde(default = "usual")]
    pub most: usize,
}

fn usual() -> usize {
    USUAL
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted { kernel: None, launch: None, block: None, wave: None, lane: None, range: None, most: USUAL }
    }
}

/// A text that does not say what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct Expected(&'static str);

/// The place of a workgroup in the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place(pub [u32; 3]);

impl FromStr for Place {
    type Err = Expected;

    /// `3`, `3,0` or `3,0,1`.
    fn from_str(text: &str) -> Result<Place, Expected> {
        let expected = Expected("the place of a workgroup in the grid, such as 3 or 3,0,1");
        let mut place = [0; 3];
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        if parts.len() > place.len() {
            return Err(expected);
        }
        for (to, part) in place.iter_mut().zip(parts) {
            *to = part.parse().map_err(|_| expected.clone())?;
        }
        Ok(Place(place))
    }
}

/// The lanes whose values are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    One(u8),
    All,
}

impl FromStr for Lane {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Lane, Expected> {
        let one = || text.parse().ok().filter(|lane| *lane < 64).map(Lane::One);
        match text {
            "all" => Ok(Lane::All),
            _ => one().ok_or(Expected("the number of a lane, 0 to 63, or `all`")),
        }
    }
}

/// The instructions of a kernel that are shown, both ends among them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Range {
    /// Bytes from the start of the kernel's code.
    Offsets { first: u64, last: u64 },
    /// Lines of a source file whose name ends like this.
    Lines { file: String, first: u32, last: u32 },
}

impl FromStr for Range {
    type Err = Expected;

    /// `0x40..0x80`, `quant.hip:20..30` or `quant.hip:27`.
    fn from_str(text: &str) -> Result<Range, Expected> {
        let expected =
            Expected("offsets of instructions such as 0x40..0x80, or lines such as quant.hip:20..30");
        let number = |text: &str| match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        let (file, numbers) = match text.rsplit_once(':') {
            Some((file, numbers)) => (Some(file), numbers),
            None => (None, text),
        };
        let (first, last) = numbers.split_once("..").unwrap_or((numbers, numbers));
        let ends = number(first.trim()).zip(number(last.trim()));
        let (first, last) = ends.filter(|(first, last)| first <= last).ok_or(expected.clone())?;
        match file {
            None => Ok(Range::Offsets { first, last }),
            Some("") => Err(expected),
            Some(file) => {
                let line = |n: u64| u32::try_from(n).map_err(|_| expected.clone());
                Ok(Range::Lines { file: file.into(), first: line(first)?, last: line(last)? })
            }
        }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Range::Offsets { first, last } => write!(f, "offsets {first:#x} to {last:#x}"),
            Range::Lines { file, first, last } => write!(f, "lines {first} to {last} of {file}"),
        }
    }
}

/// The record of a case says this of its trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traced {
    Written(Written),
    /// Why there is none.
    Impossible(String),
}

/// A trace that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    pub file: PathBuf,
    pub kernel: String,
    pub block: [u32; 3],
    pub wave: u32,
    /// Instructions in the trace, and those of the wave in the range that are not.
    pub instructions: u64,
    pub left_out: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lanes_and_ranges_are_read_as_reports_write_them() {
        assert_eq!("3".parse(), Ok(Place([3, 0, 0])));
        assert_eq!("3, 1,2".parse(), Ok(Place([3, 1, 2])));
        assert_eq!(("63".parse(), "all".parse()), (Ok(Lane::One(63)), Ok(Lane::All)));
        assert_eq!("0x40..0x80".parse(), Ok(Range::Offsets { first: 0x40, last: 0x80 }));
        assert_eq!("64".parse(), Ok(Range::Offsets { first: 64, last: 64 }));
        let lines = Range::Lines { file: "hip/quant.hip".into(), first: 20, last: 30 };
        assert_eq!("hip/quant.hip:20..30".parse(), Ok(lines));
    }

    #[test]
    fn texts_that_mean_nothing_are_refused() {
        for text in ["", "1,2,3,4", "a", "-1"] {
            assert!(text.parse::<Place>().is_err(), "{text:?}");
        }
        for text in ["64", "", "every"] {
            assert!(text.parse::<Lane>().is_err(), "{text:?}");
        }
        for text in ["", "8..4", "quant.hip", ":3", "x:1..y", "x:1..9999999999"] {
            assert!(text.parse::<Range>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_request_is_read_back_from_its_json() {
        let wanted = Wanted {
            kernel: Some("quant".into()),
            block: Some(Place([1, 2, 3])),
            lane: Some(Lane::All),
            range: Some(Range::Offsets { first: 4, last: 8 }),
            ..Wanted::default()
        };
        let request = Request { to: "/tmp/trace".into(), wanted };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        let least: Request = serde_json::from_str(r#"{"to": "x", "wanted": {"wave": 1}}"#).unwrap();
        assert_eq!(least.wanted, Wanted { wave: Some(1), ..Wanted::default() });
    }
}
