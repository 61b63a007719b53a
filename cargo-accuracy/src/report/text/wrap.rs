//! Sentences in a terminal's width.

/// Breaks at spaces; further lines stand two columns deeper. A word that is too long stays whole.
pub fn wrap(text: &mut String, message: &str, indent: usize, width: Option<usize>) {
    let mut column = indent;
    text.extend(std::iter::repeat_n(' ', indent));
    for (i, word) in message.split(' ').enumerate() {
        let length = word.chars().count();
        if i > 0 && width.is_some_and(|w| column + 1 + length > w) {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent + 2));
            column = indent + 2;
        } else if i > 0 {
            text.push(' ');
            column += 1;
        }
        *text += word;
        column += length;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_break_at_spaces() {
        let mut text = String::new();
        wrap(&mut text, "one two three `a.very.long.name.of.a.tensor` four", 2, Some(16));
        assert_eq!(text, "  one two three\n    `a.very.long.name.of.a.tensor`\n    four\n");
        let mut whole = String::new();
        wrap(&mut whole, "one two three", 2, None);
        assert_eq!(whole, "  one two three\n");
    }
}
