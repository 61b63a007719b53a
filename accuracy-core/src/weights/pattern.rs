//! Patterns over tensor names: `model.layers.{layer}.mlp.{proj}_proj`.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::WeightsError;

/// A module or tensor that a pattern matched, with the text of each capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    pub name: String,
    pub captures: BTreeMap<String, String>,
}

enum Token {
    Literal(String),
    /// One or more characters other than `.`; an unnamed one for `*`.
    Capture(Option<String>),
    /// One or more characters, for `**`.
    Anything,
}

pub(super) struct Pattern(Vec<Token>);

impl Pattern {
    pub fn parse(text: &str) -> Result<Pattern, WeightsError> {
        let bad =
            |reason: &str| WeightsError::BadPattern { pattern: text.to_owned(), reason: reason.to_owned() };
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}', '*']) {
            if at > 0 {
                tokens.push(Token::Literal(rest[..at].to_owned()));
            }
            let special = rest.as_bytes()[at];
            rest = &rest[at + 1..];
            match special {
                b'*' => match rest.strip_prefix('*') {
                    Some(after) => {
                        rest = after;
                        tokens.push(Token::Anything);
                    }
                    None => tokens.push(Token::Capture(None)),
                },
                b'{' => {
                    let end = rest.find('}').ok_or_else(|| bad("`{` without `}`"))?;
                    let name = &rest[..end];
                    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
                        return Err(bad("a capture is a name in braces, `{layer}`"));
                    }
                    tokens.push(Token::Capture(Some(name.to_owned())));
                    rest = &rest[end + 1..];
                }
                _ => return Err(bad("`}` without `{`")),
            }
        }
        if !rest.is_empty() {
            tokens.push(Token::Literal(rest.to_owned()));
        }
        if tokens.is_empty() {
            return Err(bad("empty; name a tensor or module, such as `model.layers.{layer}.mlp.down_proj`"));
        }
        Ok(Pattern(tokens))
    }

    /// The captures, if the whole name matches. A capture used twice must match the same text.
    pub fn matches(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let mut captures = BTreeMap::new();
        step(&self.0, name, &mut captures).then_some(captures)
    }
}

fn step(tokens: &[Token], rest: &str, captures: &mut BTreeMap<String, String>) -> bool {
    let Some((token, tokens)) = tokens.split_first() else { return rest.is_empty() };
    match token {
        Token::Literal(text) => rest.strip_prefix(text.as_str()).is_some_and(|r| step(tokens, r, captures)),
        Token::Capture(Some(name)) if captures.contains_key(name) => {
            let text = captures[name].clone();
            rest.strip_prefix(text.as_str()).is_some_and(|r| step(tokens, r, captures))
        }
        Token::Capture(name) => {
            let part = &rest[..rest.find('.').unwrap_or(rest.len())];
            longest_first(part).any(|end| {
                if let Some(name) = name {
                    captures.insert(name.clone(), rest[..end].to_owned());
                }
                let matched = step(tokens, &rest[end..], captures);
                if !matched && let Some(name) = name {
                    captures.remove(name);
                }
                matched
            })
        }
        Token::Anything => longest_first(rest).any(|end| step(tokens, &rest[end..], captures)),
    }
}

/// Where beginnings of one or more characters end; the longest first, so that `{proj}` takes a whole name where it can.
fn longest_first(text: &str) -> impl Iterator<Item = usize> {
    text.char_indices().rev().map(|(i, c)| i + c.len_utf8())
}

/// Compares names with runs of digits as numbers: layer 2 before layer 10.
pub fn natural_cmp(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let digits = |s: &[u8]| s.iter().take_while(|c| c.is_ascii_digit()).count();
        let (da, db) = (digits(a), digits(b));
        if da > 0 && db > 0 {
            let number = |s: &[u8]| s.iter().position(|&c| c != b'0').unwrap_or(s.len());
            let (na, nb) = (&a[number(&a[..da])..da], &b[number(&b[..db])..db]);
            let order = na.len().cmp(&nb.len()).then_with(|| na.cmp(nb)).then_with(|| da.cmp(&db));
            if order != Ordering::Equal {
                return order;
            }
            (a, b) = (&a[da..], &b[db..]);
            continue;
        }
        match (a.split_first(), b.split_first()) {
            (Some((x, ra)), Some((y, rb))) if x == y => (a, b) = (ra, rb),
            (x, y) => return x.cmp(&y),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captures(pattern: &str, name: &str) -> Option<Vec<(String, String)>> {
        Pattern::parse(pattern).unwrap().matches(name).map(|c| c.into_iter().collect())
    }

    #[test]
    fn captures_stop_at_dots_and_repeat() {
        let layer = |l: &str| Some(vec![("layer".to_owned(), l.to_owned())]);
        assert_eq!(captures("h.{layer}.w", "h.12.w"), layer("12"));
        assert_eq!(captures("h.{layer}.w", "h.1.2.w"), None);
        assert_eq!(captures("h.{layer}.w", "h..w"), None);
        assert_eq!(captures("{layer}.*.{layer}_b", "1.x.1_b"), layer("1"));
        assert_eq!(captures("{layer}.*.{layer}_b", "1.x.2_b"), None);
        // The first capture has to give characters back.
        assert_eq!(captures("{layer}_{layer}", "a_b_a_b"), layer("a_b"));
        assert_eq!(captures("x*", "x"), None);
        assert_eq!(captures("h.{layer}.**.w", "h.3.a.b.w"), layer("3"));
        assert_eq!(captures("**", "h.3.w"), Some(vec![]));
        assert_eq!(captures("h.**", "h."), None);
        assert_eq!(captures("{p}_proj", "gate_up_proj").unwrap()[0].1, "gate_up");
    }

    #[test]
    fn broken_patterns_are_errors() {
        for pattern in ["", "a.{layer", "a.layer}", "a.{}", "a.{la yer}", "{a{b}}"] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn digits_sort_as_numbers() {
        let mut names = ["l.10.a", "l.2.b", "l.2.a", "l.02.a", "k.99", "l.2", "l.a"];
        names.sort_by(|a, b| natural_cmp(a, b));
        assert_eq!(names, ["k.99", "l.2", "l.2.a", "l.2.b", "l.02.a", "l.10.a", "l.a"]);
    }
}
