//! Text for people. Code makes it and compares it as a whole, but cannot look into it: whatever decides anything is a
//! field or a type of its own, so that a message may be worded anew without changing what the tool does.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What somebody or something does, in words: "reads the scales of `xq` as row_major".
///
/// There is no way from here to a `&str`. The one place that turns it into text is its [`fmt::Display`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Words {
    verb: Option<Verb>,
    /// What comes after the verb; all of it where there is none.
    rest: String,
}

/// How a kernel gets at what a sentence is about. One that writes the same thing does so instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Reads,
    Takes,
    Writes,
}

impl Words {
    /// A kernel reads `what`.
    pub fn reads(what: String) -> Words {
        Words { verb: Some(Verb::Reads), rest: what }
    }

    /// A kernel takes `what`, for something else.
    pub fn takes(what: String) -> Words {
        Words { verb: Some(Verb::Takes), rest: what }
    }

    /// The same of a kernel that writes what this one reads or takes.
    pub fn of_writer(&self) -> Words {
        Words { verb: self.verb.map(|_| Verb::Writes), rest: self.rest.clone() }
    }

    /// These words with more behind them.
    pub fn and(&self, more: impl fmt::Display) -> Words {
        Words { verb: self.verb, rest: format!("{}{more}", self.rest) }
    }

    pub fn is_empty(&self) -> bool {
        self.verb.is_none() && self.rest.is_empty()
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.verb {
            None => "",
            Some(Verb::Reads) => "reads ",
            Some(Verb::Takes) => "takes ",
            Some(Verb::Writes) => "writes ",
        };
        #[cfg(test)]
        if reworded::wanted() {
            return f.write_str(&reworded::reword(&format!("{verb}{}", self.rest)));
        }
        write!(f, "{verb}{}", self.rest)
    }
}

impl From<String> for Words {
    fn from(rest: String) -> Words {
        Words { verb: None, rest }
    }
}

impl From<&str> for Words {
    fn from(text: &str) -> Words {
        text.to_owned().into()
    }
}

impl From<Words> for String {
    fn from(words: Words) -> String {
        words.to_string()
    }
}

/// What a kernel reads, written like the arguments of `format!`.
macro_rules! reads {
    ($($what:tt)*) => { $crate::words::Words::reads(format!($($what)*)) };
}
/// What a kernel takes for something else, likewise.
macro_rules! takes {
    ($($what:tt)*) => { $crate::words::Words::takes(format!($($what)*)) };
}
/// Words without a verb that changes for a kernel that writes, likewise.
macro_rules! says {
    ($($what:tt)*) => { $crate::words::Words::from(format!($($what)*)) };
}
pub(crate) use {reads, says, takes};

/// Other words for everything, for the test that no decision depends on them: a process of tests that is started with the
/// variable says nothing as it is written in the sources.
#[cfg(test)]
pub mod reworded {
    use std::sync::OnceLock;

    pub const VARIABLE: &str = "ACCURACY_TEST_REWORDED";

    pub fn wanted() -> bool {
        static WANTED: OnceLock<bool> = OnceLock::new();
        *WANTED.get_or_init(|| std::env::var_os(VARIABLE).is_some())
    }

    /// Every letter another one: two texts that differ still do, and no word of the sources is left.
    pub fn reword(text: &str) -> String {
        let turned = |c: char, first: u8| char::from(first + (c as u8 - first + 5) % 26);
        let other = |c: char| match c {
            'a'..='z' => turned(c, b'a'),
            'A'..='Z' => turned(c, b'A'),
            other => other,
        };
        text.chars().map(other).collect()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_kernel_that_writes_has_another_verb_and_the_same_names() {
        let what = reads!("`reads` as `takes`");
        assert_eq!(what.of_writer().to_string(), "writes `reads` as `takes`");
        assert_eq!(takes!("{} of each", 3).and(" row").of_writer().to_string(), "writes 3 of each row");
        assert_eq!(says!("exchanges what it takes").of_writer().to_string(), "exchanges what it takes");
    }
}
