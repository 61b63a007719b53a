//! Weight patterns, `model.layers.{layer}.mlp.{part}_proj`: what is wrong with one can be said before any checkpoint
//! is there. Matching them against tensors is `accuracy-core`'s.

/// Names of the captures of a pattern in their order, or what is wrong with it.
pub fn captures(pattern: &str) -> Result<Vec<&str>, String> {
    if pattern.is_empty() {
        return Err("the pattern is empty".into());
    }
    let mut names = Vec::new();
    let mut rest = pattern;
    let mut after_capture = false;
    while let Some(at) = rest.find(['{', '}']) {
        if rest[at..].starts_with('}') {
            return Err("`}` without a `{` before it".into());
        }
        if after_capture && at == 0 {
            return Err("nothing separates two captures: where the first ends would be a guess".into());
        }
        let inside = &rest[at + 1..];
        let end = match inside.find(['{', '}']) {
            Some(end) if inside[end..].starts_with('}') => end,
            Some(_) => return Err("`{` inside a capture".into()),
            None => return Err("`{` is never closed".into()),
        };
        let name = &inside[..end];
        if name.is_empty() {
            return Err("`{}` has no name: write `{layer}`".into());
        }
        if !name.chars().all(|c| c == '_' || c.is_alphanumeric()) {
            return Err(format!("`{{{name}}}` is no name for a capture: letters, digits and `_`"));
        }
        // A capture used twice must match the same text.
        if !names.contains(&name) {
            names.push(name);
        }
        rest = &inside[end + 1..];
        after_capture = true;
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::captures;

    #[test]
    fn captures_come_in_order() {
        assert_eq!(captures("model.layers.{layer}.mlp.{part}_proj"), Ok(vec!["layer", "part"]));
        assert_eq!(captures("lm_head"), Ok(vec![]));
        assert_eq!(captures("{all}"), Ok(vec!["all"]));
        assert_eq!(captures("{layer}.*.{layer}_b"), Ok(vec!["layer"]));
    }

    #[test]
    fn what_cannot_be_a_pattern_is_refused() {
        for (pattern, why) in [
            ("", "empty"),
            ("a.{layer", "never closed"),
            ("a.{", "never closed"),
            ("a.layer}", "without a `{`"),
            ("a.{x}}", "without a `{`"),
            ("a.{la{yer}}", "inside a capture"),
            ("a.{}.b", "no name"),
            ("a.{la yer}", "no name for a capture"),
            ("a.{x}{y}", "separates"),
        ] {
            let error = captures(pattern).expect_err(pattern);
            assert!(error.contains(why), "{pattern}: {error}");
        }
    }
}
