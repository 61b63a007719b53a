//! Just enough JSON to write a test's metadata; reading it is `accuracy-core`'s.

/// A string literal.
pub fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// An array of values that are JSON already.
pub fn array(values: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", values.into_iter().collect::<Vec<_>>().join(","))
}

/// An object of values that are JSON already; those that are `None` are left out.
pub fn object<const N: usize>(fields: [(&str, Option<String>); N]) -> String {
    let fields: Vec<String> =
        fields.into_iter().filter_map(|(key, value)| Some(format!("{}:{}", string(key), value?))).collect();
    format!("{{{}}}", fields.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_backslashes_and_controls_are_escaped() {
        assert_eq!(string("a\"b\\c\n\u{1f}é"), r#""a\"b\\c\u000a\u001fé""#);
    }

    #[test]
    fn absent_fields_are_left_out() {
        let fields = [("a", Some(array(["1".into(), "2".into()]))), ("b", None), ("c", Some(string("x")))];
        assert_eq!(object(fields), r#"{"a":[1,2],"c":"x"}"#);
    }
}
