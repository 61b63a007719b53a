//! Models that think before they answer: which part of a completion is the thought, and whether there is an answer.

use super::answer::Completion;

/// Marks around a thought, as models write them where no parser takes them away.
const MARKS: [(&str, &str); 6] = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
];

/// A completion, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thinking<'a> {
    /// What is there after the thought; the whole text where there is no thought.
    pub answer: &'a str,
    /// The thought, and where it stands.
    pub thought: Option<(&'static str, &'a str)>,
}

impl<'a> Thinking<'a> {
    pub fn of(completion: &'a Completion) -> Thinking<'a> {
        let text = completion.text.as_str();
        let start = text.trim_start();
        for (open, close) in MARKS {
            if let Some(rest) = start.strip_prefix(open) {
                return match rest.split_once(close) {
                    Some((thought, answer)) => Thinking { answer, thought: Some((open, thought)) },
                    None => Thinking { answer: "", thought: Some((open, rest)) },
                };
            }
        }
        let thought = completion.reasoning.as_ref().map(|(field, thought)| (*field, thought.as_str()));
        Thinking { answer: text, thought }
    }

    /// There is a thought and nothing after it.
    pub fn only_thinks(&self) -> bool {
        self.thought.is_some() && self.answer.trim().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_are_told_from_answers_wherever_they_stand() {
        let of = |text: &str, reasoning: Option<&str>| {
            let reasoning = reasoning.map(|r| ("reasoning_content", r.to_owned()));
            let completion = Completion { text: text.to_owned(), reasoning, ..Completion::default() };
            let thinking = Thinking::of(&completion);
            let thought = thinking.thought.map(|(place, thought)| (place, thought.to_owned()));
            (thinking.answer.to_owned(), thought, thinking.only_thinks())
        };
        assert_eq!(of(" Paris", None), (" Paris".into(), None, false));
        assert_eq!(of("\n<think>\nHm", None), (String::new(), Some(("<think>", "\nHm".into())), true));
        assert_eq!(
            of("<think>a</think> Paris", None),
            (" Paris".into(), Some(("<think>", "a".into())), false)
        );
        assert_eq!(of("", Some("Hm")), (String::new(), Some(("reasoning_content", "Hm".into())), true));
        assert_eq!(
            of("Paris", Some("Hm")),
            ("Paris".into(), Some(("reasoning_content", "Hm".into())), false)
        );
        assert_eq!(of("", None), (String::new(), None, false));
    }
}
