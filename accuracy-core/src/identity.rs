//! What a case is called: the path of its test and its coordinates,
//! `kernels::fp8::blockscale[check=full_chain,arch=host,tile=(64,128),tokens=33]`.
//!
//! This is the one place that writes such a text and the one that takes it apart. A value may hold commas, brackets and
//! whatever else a parameter's value or a tensor's name holds; one that could be mistaken for something else is written in
//! quotation marks.

use std::borrow::Cow;
use std::fmt;

/// An identity in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    path: Cow<'a, str>,
    coordinates: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// Characters that a value may hold without being looked at twice.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.chars().all(|c| c.is_alphanumeric() || "_.:/-+*@%".contains(c))
}

impl<'a> Identity<'a> {
    /// An identity without coordinates.
    pub fn new(path: impl Into<Cow<'a, str>>) -> Identity<'a> {
        Identity { path: path.into(), coordinates: Vec::new() }
    }

    /// Adds a coordinate behind the others.
    pub fn push(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) {
        self.coordinates.push((name.into(), value.into()));
    }

    /// The parts of an identity. Whatever text it is given is taken for one: what has no brackets is a path alone.
    pub fn of(id: &'a str) -> Identity<'a> {
        let (path, listed) = halves(id);
        let mut coordinates = Vec::new();
        let mut rest = listed;
        while let Some((name, behind)) = rest.split_once('=') {
            let (value, end) = value(behind);
            coordinates.push((Cow::Borrowed(name), value));
            rest = behind.get(end + 1..).unwrap_or("");
        }
        Identity { path: Cow::Borrowed(path), coordinates }
    }

    /// The path of the test: package, modules and function.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Name and value of each coordinate, in their order.
    pub fn coordinates(&self) -> impl Iterator<Item = (&str, &str)> {
        self.coordinates.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The coordinates by themselves.
    pub fn into_coordinates(self) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
        self.coordinates
    }

    /// The value of a coordinate.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.coordinates().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    /// The same without those coordinates whose names `is_left_out`.
    pub fn without(mut self, is_left_out: impl Fn(&str) -> bool) -> Identity<'a> {
        self.coordinates.retain(|(name, _)| !is_left_out(name));
        self
    }
}

/// The path of the test in an identity.
pub fn path(id: &str) -> &str {
    halves(id).0
}

/// The coordinates of an identity as they are written.
pub fn listed(id: &str) -> &str {
    halves(id).1
}

/// Path, and what stands between the brackets.
fn halves(id: &str) -> (&str, &str) {
    let (path, inside) = id.split_once('[').unwrap_or((id, ""));
    (path, inside.strip_suffix(']').unwrap_or(inside))
}

/// The value at the beginning of a text, and where it ends: at the end, or at a comma with the next coordinate behind it.
fn value(text: &str) -> (Cow<'_, str>, usize) {
    if let Some(quoted) = text.starts_with('"').then(|| quoted(text)).flatten() {
        return quoted;
    }
    // Brackets that do not pair are a part of the value like any other character.
    let end = end_of_value(text, true).or_else(|| end_of_value(text, false)).unwrap_or(text.len());
    (Cow::Borrowed(&text[..end]), end)
}

/// Where a value ends that is not quoted; `None` where that is inside of brackets.
fn end_of_value(text: &str, with_brackets: bool) -> Option<usize> {
    let mut depth = 0_usize;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '(' | '[' | '{' if with_brackets => depth += 1,
            ')' | ']' | '}' if with_brackets => depth = depth.saturating_sub(1),
            // A text inside of a value, such as `Name("a(b")`.
            '"' if with_brackets && depth > 0 => {
                while let Some((_, c)) = chars.next() {
                    match c {
                        '\\' => drop(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            ',' if depth == 0 && begins_coordinate(&text[at + 1..]) => return Some(at),
            _ => {}
        }
    }
    (depth == 0).then_some(text.len())
}

/// Whether a text begins with a name and `=`.
fn begins_coordinate(text: &str) -> bool {
    let Some((name, _)) = text.split_once('=') else { return false };
    let is_of_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
    !name.is_empty() && name.chars().all(is_of_name)
}

/// The text in quotation marks at the beginning, where another coordinate or nothing is behind it.
fn quoted(text: &str) -> Option<(Cow<'_, str>, usize)> {
    let mut chars = text.char_indices().skip(1);
    loop {
        match chars.next()? {
            (_, '\\') => drop(chars.next()?),
            (at, '"') => {
                let end = at + 1;
                let rest = &text[end..];
                let ends = rest.is_empty() || rest.strip_prefix(',').is_some_and(begins_coordinate);
                let value: String = serde_json::from_str(&text[..end]).ok().filter(|_| ends)?;
                return Some((Cow::Owned(value), end));
            }
            _ => {}
        }
    }
}

impl fmt::Display for Identity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        for (i, (name, value)) in self.coordinates.iter().enumerate() {
            write!(f, "{}{name}=", if i == 0 { '[' } else { ',' })?;
            // One that would swallow the next coordinate, or be taken for more than one, is quoted.
            let is_whole = || !value.starts_with('"') && end_of_value(value, true) == Some(value.len());
            if is_plain(value) || is_whole() {
                f.write_str(value)?;
            } else {
                f.write_str(&serde_json::to_string(value).map_err(|_| fmt::Error)?)?;
            }
        }
        if self.coordinates.is_empty() { Ok(()) } else { f.write_str("]") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(id: &str) -> Vec<(String, String)> {
        Identity::of(id).coordinates().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn commas_and_brackets_of_a_value_are_its_own() {
        let id = "k::t[check=full_chain,tile=(64,128),shape=[[1,2],[3,4]],of=Name(\"a(,b=c\"),tokens=33]";
        let identity = Identity::of(id);
        assert_eq!(identity.path(), "k::t");
        assert_eq!(identity.get("tile"), Some("(64,128)"));
        assert_eq!(identity.get("shape"), Some("[[1,2],[3,4]]"));
        assert_eq!(identity.get("of"), Some("Name(\"a(,b=c\")"));
        assert_eq!(identity.get("tokens"), Some("33"));
        assert_eq!(identity.to_string(), id);
        assert_eq!(parts("k::t"), []);
        assert_eq!((path(id), listed("k::t[a=1,b=2]")), ("k::t", "a=1,b=2"));
    }

    #[test]
    fn every_value_comes_back_as_it_was_given() {
        let values = [
            "1",
            "",
            "(64,128)",
            "(64,256)",
            "a,b",
            "a,b=c",
            "a, \"b\"",
            "\"a\"",
            "\"a\",b=c",
            "(",
            ")",
            "]",
            "[1",
            "x]",
            "a=b",
            ",",
            "=",
            "\\",
            "'",
            "é,ü",
            "model.layers.0.up_proj",
            "a,tokens=1]",
            "\"",
            "f(\"(\",1)",
            "\u{1f600}",
        ];
        for first in values {
            for last in values {
                let mut identity = Identity::new("k::t");
                identity.push("check", "full_chain");
                identity.push("mode", first);
                identity.push("tokens", "33");
                identity.push("w", last);
                let text = identity.to_string();
                assert_eq!(Identity::of(&text), identity, "{text}");
            }
        }
    }

    #[test]
    fn what_says_the_same_is_written_as_ever() {
        let mut identity = Identity::new("k::t");
        identity.push("mode", "a,b");
        identity.push("layout", "Layout::RowMajor");
        identity.push("n", "-1e-3");
        assert_eq!(identity.to_string(), "k::t[mode=a,b,layout=Layout::RowMajor,n=-1e-3]");
        assert_eq!(
            identity.without(|name| name == "mode").to_string(),
            "k::t[layout=Layout::RowMajor,n=-1e-3]"
        );
    }
}
