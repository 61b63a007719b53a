//! JSON as the writers of checkpoints write it: Python's `json` has words for numbers that JSON has not.

use serde::de::DeserializeOwned;

/// Reads JSON. Where that fails, it is read again as Python reads it: `NaN`, `Infinity`, `-Infinity` and numbers beyond
/// float64 become null, half a surrogate pair the replacement character, and a byte order mark is skipped.
///
/// # Errors
/// What neither is.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(bytes).or_else(|strict| match as_python(bytes) {
        Some(rewritten) => serde_json::from_slice(&rewritten),
        None => Err(strict),
    })
}

/// The same text in plain JSON; `None` where nothing had to be changed.
fn as_python(bytes: &[u8]) -> Option<Vec<u8>> {
    const WORDS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut changed = text.len() < bytes.len();
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let taken = if first == b'"' {
            let (end, halves) = string(rest, &mut out);
            changed |= halves;
            end
        } else if let Some(word) = WORDS.iter().find(|word| rest.starts_with(word)) {
            out.extend_from_slice(b"null");
            changed = true;
            word.len()
        } else if first == b'-' || first.is_ascii_digit() {
            let of_number = |b: &u8| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E');
            let length = 1 + after.iter().take_while(|b| of_number(b)).count();
            let number = std::str::from_utf8(&rest[..length]).ok().and_then(|t| t.parse::<f64>().ok());
            if number.is_some_and(f64::is_infinite) {
                out.extend_from_slice(b"null");
                changed = true;
            } else {
                out.extend_from_slice(&rest[..length]);
            }
            length
        } else {
            out.push(first);
            1
        };
        rest = &rest[taken..];
    }
    changed.then_some(out)
}

/// Copies the string that `text` begins with; its length, and whether half a surrogate pair was replaced in it.
fn string(text: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
    let unit = |at: usize| -> Option<u32> {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut at, mut replaced) = (1, false);
    out.push(b'"');
    while let Some(&byte) = text.get(at) {
        let length = match (byte, unit(at)) {
            (b'"', _) => {
                out.push(byte);
                return (at + 1, replaced);
            }
            (_, Some(0xd800..=0xdbff)) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => 12,
            (_, Some(0xd800..=0xdfff)) => {
                out.extend_from_slice(b"\\ufffd");
                replaced = true;
                at += 6;
                continue;
            }
            (b'\\', _) => 2,
            _ => 1,
        };
        let end = text.len().min(at + length);
        out.extend_from_slice(&text[at..end]);
        at = end;
    }
    (at, replaced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(text: &str) -> Result<Value, serde_json::Error> {
        from_slice(text.as_bytes())
    }

    #[test]
    fn numbers_that_python_writes_are_read() {
        let text = r#"{"a": [0.0, Infinity, -Infinity, NaN], "b": -1e400, "c": 123, "d": [-Infinity]}"#;
        let want = json!({"a": [0.0, null, null, null], "b": null, "c": 123, "d": [null]});
        assert_eq!(read(text).unwrap(), want);
        assert_eq!(read("\u{feff}{\"a\": 1}").unwrap(), json!({"a": 1}));
    }

    #[test]
    fn strings_keep_their_words() {
        let text =
            r#"{"NaN \"Infinity": "-Infinity \\", "b": NaN, "c": "\ud83d\ude00 \ud83d x", "d": "\\ud83d"}"#;
        let want =
            json!({"NaN \"Infinity": "-Infinity \\", "b": null, "c": "\u{1f600} \u{fffd} x", "d": "\\ud83d"});
        assert_eq!(read(text).unwrap(), want);
    }

    #[test]
    fn what_is_not_json_in_python_either_is_an_error() {
        for text in ["", "{", "nan", "{\"a\": Infinit}", "{\"a\": NaN", "\"\\ud83d", "[1,]", "NaNa"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
