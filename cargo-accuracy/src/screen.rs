//! The one place through which everything goes that people, terminals and logs of CI read. Names and messages come from
//! files, kernels and servers: what of them would drive a terminal, turn the direction of text or be a command to a CI's
//! log is written so that it is seen and does nothing.

use std::io::{self, Write};

/// What a stream holds, and so how a character is written that must not be there as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Text for people, with this program's own colours in it.
    Text,
    /// Markdown, XML or HTML.
    Markup,
    /// JSON: the same document with `\u` escapes.
    Json,
    /// Commands to the log of a CI, which this program means.
    Commands,
}

/// Whether a character draws nothing and changes how others are drawn or read.
fn is_hidden(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t')
        // Marks, embeddings, overrides and isolates of direction.
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        // Separators of lines that most readers do not break at, and what has no width.
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200b}' | '\u{2060}' | '\u{feff}')
        // Tags, which spell invisible text.
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

/// Commands to the logs of CI systems that are read anywhere in a line.
const ANYWHERE: [&str; 3] = ["##[", "##vso[", "##teamcity["];

/// Writes what is given to it, made harmless, to another writer.
pub struct Screen<W: Write> {
    to: W,
    holds: Holds,
    /// Bytes that are not a whole character, or may begin a command or a colour.
    pending: Vec<u8>,
    /// Nothing but blanks and colours stands in the line so far.
    at_start: bool,
}

impl<W: Write> Screen<W> {
    pub fn new(to: W, holds: Holds) -> Screen<W> {
        Screen { to, holds, pending: Vec::new(), at_start: true }
    }

    /// Writes what is pending, whole or not.
    fn finish(&mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.pending);
        self.text(&String::from_utf8_lossy(&rest))
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if self.holds == Holds::Text
                && let Some(length) = colour(rest)
            {
                out.push_str(&rest[..length]);
                rest = &rest[length..];
                continue;
            }
            let command = ANYWHERE.iter().any(|command| rest.starts_with(command));
            match (c, self.holds) {
                // Read as JSON it is the same text.
                ('#', Holds::Json) if command => out.push_str("\\u0023"),
                // A blank takes the command apart, whatever the text is a part of.
                ('#', _) if command => out.push_str("# "),
                (':', Holds::Text | Holds::Markup) if self.at_start && rest.starts_with("::") => {
                    out.push_str(": ")
                }
                (c, Holds::Json) if is_hidden(c) && c != '\r' => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                // At the end of a line it says nothing more than the line break does.
                ('\r', _) if rest.starts_with("\r\n") => out.push(c),
                (c, _) if is_hidden(c) => out.push_str(&format!("{{U+{:04X}}}", u32::from(c))),
                (c, _) => out.push(c),
            }
            self.at_start = c == '\n' || self.at_start && (c.is_whitespace() || is_hidden(c));
            rest = &rest[c.len_utf8()..];
        }
        self.to.write_all(out.as_bytes())
    }
}

impl<W: Write> Write for Screen<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Most of a large report has nothing in it that could be of interest.
        let plain = |b: &u8| matches!(b, b' '..=b'~') && *b != b'#' || *b == b'\n';
        if self.pending.is_empty() && self.holds == Holds::Json && bytes.iter().all(plain) {
            self.to.write_all(bytes)?;
            return Ok(bytes.len());
        }
        self.pending.extend_from_slice(bytes);
        let valid = match std::str::from_utf8(&self.pending) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            // No text at all: what is wrong in it is replaced.
            Err(_) => self.pending.len(),
        };
        // What may be the beginning of something waits for the rest of it.
        let tail = self.pending[..valid].iter().rposition(|b| matches!(b, 0x1b | b'#' | b':' | b'\r'));
        let waits =
            |at: &usize| valid - at < 16 && (*at..valid).all(|i| !matches!(self.pending[i], b'\n' | b' '));
        let first = |mut at: usize| {
            while at > 0 && matches!(self.pending[at - 1], b'#' | b':') {
                at -= 1;
            }
            at
        };
        let whole = tail.filter(waits).map_or(valid, first);
        let rest = self.pending.split_off(whole);
        let text = std::mem::replace(&mut self.pending, rest);
        self.text(&String::from_utf8_lossy(&text))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.finish()?;
        self.to.flush()
    }
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        // Whoever has to know of an error flushes.
        let _ = self.finish().and_then(|()| self.to.flush());
    }
}

/// Length of a colour at the beginning of a text, of those that this program uses: none of them hides what it colours.
fn colour(text: &str) -> Option<usize> {
    let body = text.strip_prefix("\x1b[")?;
    let (numbers, _) = body.split_once('m')?;
    let known = |number: &str| matches!(number.parse::<u8>(), Ok(0..=4 | 22 | 24 | 31..=36 | 39 | 91..=96));
    (numbers.len() < 12 && numbers.split(';').all(|n| n.is_empty() || known(n))).then_some(numbers.len() + 3)
}

/// Standard output, with colours where they are wanted.
pub fn stdout() -> Screen<anstream::AutoStream<io::Stdout>> {
    Screen::new(anstream::stdout(), Holds::Text)
}

/// Standard error, with colours where they are wanted.
pub fn stderr() -> Screen<anstream::AutoStream<io::Stderr>> {
    Screen::new(anstream::stderr(), Holds::Text)
}

/// A line of standard error.
#[macro_export]
macro_rules! say {
    ($($arguments:tt)*) => {{
        use std::io::Write as _;
        // There is nobody left to tell of an error.
        let _ = writeln!($crate::screen::stderr(), $($arguments)*);
    }};
}

/// Text as a report in a file of its own has it.
pub fn harmless(text: &str, holds: Holds) -> String {
    let mut out = Vec::new();
    let mut screen = Screen::new(&mut out, holds);
    // Memory takes everything.
    let _ = screen.write_all(text.as_bytes());
    drop(screen);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drives_a_terminal_is_seen_and_does_nothing() {
        for (text, safe) in [
            ("a\u{1b}]0;title\u{7}b", "a{U+001B}]0;title{U+0007}b"),
            ("a\u{1b}[8mhidden", "a{U+001B}[8mhidden"),
            ("a\u{1b}[2Jb\u{9b}2J", "a{U+001B}[2Jb{U+009B}2J"),
            ("safe\rgone", "safe{U+000D}gone"),
            ("dos\r\nline", "dos\r\nline"),
            ("x\u{202e}gnp.exe\u{2066}", "x{U+202E}gnp.exe{U+2066}"),
            ("\u{e0041}tag", "{U+E0041}tag"),
            ("nul\0", "nul{U+0000}"),
            ("\u{1b}[31mred\u{1b}[0m\tplain ü …\n", "\u{1b}[31mred\u{1b}[0m\tplain ü …\n"),
        ] {
            assert_eq!(harmless(text, Holds::Text), safe);
        }
    }

    #[test]
    fn a_command_to_a_ci_is_text() {
        for (text, safe) in [
            ("::error::x", ": :error::x"),
            ("a\n  ::add-mask::x\n", "a\n  : :add-mask::x\n"),
            ("\u{1b}[31m::error::x", "\u{1b}[31m: :error::x"),
            ("\u{202e}::error::x", "{U+202E}: :error::x"),
            ("k::t[a] a::b", "k::t[a] a::b"),
            ("x ##[error]y ##vso[task] ##teamcity[a", "x # #[error]y # #vso[task] # #teamcity[a"),
        ] {
            assert_eq!(harmless(text, Holds::Text), safe);
        }
        assert_eq!(harmless("::error::x\n", Holds::Commands), "::error::x\n");
    }

    #[test]
    fn json_stays_the_same_document() {
        let value = serde_json::json!({"a": "\u{202e}x\u{7f} ##[error] ü \u{e0041} # :: \u{1b}"});
        let text = harmless(&value.to_string(), Holds::Json);
        assert!(!text.contains("##[") && !text.contains('\u{202e}') && !text.contains('\u{7f}'), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn it_does_not_matter_in_which_pieces_it_is_written() {
        let text = "a\u{1b}[31mb\u{1b}[8m ü\u{202e} ::x\n::y ##[z] ##vso[a\r\nb\rc\n :: :";
        for holds in [Holds::Text, Holds::Markup, Holds::Json] {
            let whole = harmless(text, holds);
            for size in 1..text.len() {
                let mut out = Vec::new();
                let mut screen = Screen::new(&mut out, holds);
                text.as_bytes().chunks(size).for_each(|piece| screen.write_all(piece).unwrap());
                drop(screen);
                assert_eq!(String::from_utf8(out).unwrap(), whole, "{holds:?} in pieces of {size}");
            }
        }
    }
}
