//! What a completion is worth, from its text and tokens alone.

use super::answer::Completion;
use super::prompts::Prompt;
use super::thinking::Thinking;
use serde::Serialize;
use std::collections::HashSet;

/// From best to worst.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "reason", rename_all = "snake_case")]
pub enum Verdict {
    /// Begins with the answer.
    Exact,
    /// Holds the answer.
    Contains,
    /// Reads like text; the answer, if one is known, is not in it.
    Plausible,
    /// The model thought, in text that is no garbage, and was cut before it answered.
    Thinking(String),
    Garbage(String),
    /// The server did not answer, or not as the protocol has it.
    Error(String),
}

impl Verdict {
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Exact => "exact",
            Verdict::Contains => "contains",
            Verdict::Plausible => "plausible",
            Verdict::Thinking(_) => "thinking",
            Verdict::Garbage(_) => "garbage",
            Verdict::Error(_) => "error",
        }
    }

    /// Whether this is what the prompt asks for.
    pub fn right(&self, prompt: &Prompt) -> bool {
        match self {
            Verdict::Exact | Verdict::Contains => true,
            Verdict::Plausible => prompt.expect.is_empty(),
            Verdict::Thinking(_) | Verdict::Garbage(_) | Verdict::Error(_) => false,
        }
    }
}

pub fn judge(prompt: &Prompt, completion: &Completion) -> Verdict {
    // A server that repeats the prompt before the answer: what the prompt holds is no answer.
    if let Some(answer) = completion.text.trim_start().strip_prefix(prompt.prompt.trim()) {
        return judge_answer(prompt, &Completion { text: answer.to_owned(), ..completion.clone() });
    }
    judge_answer(prompt, completion)
}

fn judge_answer(prompt: &Prompt, completion: &Completion) -> Verdict {
    let thinking = Thinking::of(completion);
    match thinking.thought {
        Some((place, thought)) if thinking.only_thinks() => {
            // A thought is text of the model, too: it may be garbage, and may hold the answer.
            let written = Completion { text: thought.to_owned(), ..completion.clone() };
            match of_text(prompt, &written) {
                Verdict::Plausible if !prompt.expect.is_empty() => {
                    let cut = match completion.finish_reason.as_deref() {
                        Some("stop") => "ended",
                        _ => "was cut by max_tokens",
                    };
                    Verdict::Thinking(format!(
                        "the text is nothing but thinking ({place}), which {cut} before an answer"
                    ))
                }
                verdict => verdict,
            }
        }
        Some(_) => of_text(prompt, &Completion { text: thinking.answer.to_owned(), ..completion.clone() }),
        None => of_text(prompt, completion),
    }
}

fn of_text(prompt: &Prompt, completion: &Completion) -> Verdict {
    if let Some(reason) = garbage(&prompt.prompt, completion) {
        return Verdict::Garbage(reason);
    }
    let text = completion.text.to_lowercase();
    let answers: Vec<String> = prompt.expect.iter().map(|e| e.trim().to_lowercase()).collect();
    let starts = |answer: &String| {
        let rest =
            text.trim_start().trim_start_matches(['"', '\'', '*', '$', '(']).strip_prefix(answer.as_str());
        rest.is_some_and(|rest| ends_word(answer, rest))
    };
    let holds = |answer: &String| {
        text.match_indices(answer.as_str()).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            !before.is_some_and(char::is_alphanumeric) && ends_word(answer, &text[at + answer.len()..])
        })
    };
    if answers.iter().any(starts) {
        Verdict::Exact
    } else if answers.iter().any(holds) {
        Verdict::Contains
    } else {
        Verdict::Plausible
    }
}

/// 4 is not the answer in 42, nor in 4.5.
fn ends_word(answer: &str, rest: &str) -> bool {
    let mut next = rest.chars();
    match (answer.chars().next_back().is_some_and(char::is_alphanumeric), next.next()) {
        (true, Some(c)) if c.is_alphanumeric() => false,
        (true, Some('.' | ',')) => !next.next().is_some_and(|c| c.is_ascii_digit()),
        _ => true,
    }
}

/// One character, word or token this often in a row is a loop of the sampler.
const MAX_RUN: usize = 8;
/// Words from which on it can be told that they are too few different ones.
const ENOUGH_WORDS: usize = 16;
/// Least share of different words.
const MIN_DIVERSITY: f64 = 0.2;

/// Why a completion is no text that a model meant, if it is none.
///
/// These are the forms that wrong kernels give: NaN in the logits samples one token for ever (often `!`), broken
/// scales give spaces and bytes that are no text, a lost position repeats itself, and logits without meaning draw from
/// the whole vocabulary, in all its scripts.
fn garbage(prompt: &str, completion: &Completion) -> Option<String> {
    let text = &completion.text;
    if text.trim().is_empty() {
        // An end at once is an answer, if a poor one; tokens without anything to see are not.
        let tokens = completion.tokens.as_ref().map_or(0, Vec::len);
        let ended = completion.finish_reason.as_deref() == Some("stop") && text.is_empty() && tokens <= 1;
        return (!ended).then(|| "nothing but spaces".to_owned());
    }
    let characters: Vec<char> = text.chars().collect();
    let replaced = characters.iter().filter(|&&c| c == '\u{fffd}').count();
    // One at the end is a character that was cut by the limit of tokens.
    if replaced > 1 && replaced * 20 > characters.len() {
        return Some(format!("{replaced} replacement characters"));
    }
    let control = characters.iter().filter(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r')).count();
    if control > 0 {
        return Some(format!("{control} control characters"));
    }
    // Lines are drawn with these.
    let line = |c: &char| c.is_whitespace() || "-=_.*#~/\u{2500}\u{2026}".contains(*c);
    if let Some((c, n)) = longest_run(characters.iter().filter(|c| !line(c))).filter(|(_, n)| *n > MAX_RUN) {
        return Some(format!("`{c}` {n} times in a row"));
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    if let Some((word, n)) = longest_run(words.iter()).filter(|(_, n)| *n > MAX_RUN / 2) {
        return Some(format!("`{word}` {n} times in a row"));
    }
    if let Some(tokens) = &completion.tokens {
        let visible = tokens.iter().filter(|t| !t.chars().all(|c| line(&c)));
        if let Some((token, n)) = longest_run(visible).filter(|(_, n)| *n > MAX_RUN) {
            return Some(format!("the token `{token}` {n} times in a row"));
        }
    }
    let different: HashSet<&str> = words.iter().copied().collect();
    if words.len() >= ENOUGH_WORDS && (different.len() as f64) < MIN_DIVERSITY * words.len() as f64 {
        return Some(format!("{} different words among {}", different.len(), words.len()));
    }
    let asked = scripts(prompt);
    let foreign: Vec<&str> = scripts(text).into_iter().filter(|s| !asked.contains(s)).collect();
    if foreign.len() >= 2 {
        return Some(format!("scripts that the prompt has not: {}", foreign.join(", ")));
    }
    None
}

fn longest_run<'a, T: PartialEq + 'a>(items: impl Iterator<Item = &'a T>) -> Option<(&'a T, usize)> {
    let mut longest: Option<(&T, usize)> = None;
    let mut current: Option<(&T, usize)> = None;
    for item in items {
        let n = current.filter(|(last, _)| *last == item).map_or(1, |(_, n)| n + 1);
        current = Some((item, n));
        if longest.is_none_or(|(_, most)| n > most) {
            longest = current;
        }
    }
    longest
}

/// The scripts that at least two letters are from.
fn scripts(text: &str) -> Vec<&'static str> {
    const SCRIPTS: [(&str, &[std::ops::RangeInclusive<u32>]); 10] = [
        ("Latin", &[0x41..=0x5a, 0x61..=0x7a, 0xc0..=0x24f]),
        ("Greek", &[0x370..=0x3ff]),
        ("Cyrillic", &[0x400..=0x52f]),
        ("Hebrew", &[0x590..=0x5ff]),
        ("Arabic", &[0x600..=0x6ff, 0x750..=0x77f]),
        ("Devanagari", &[0x900..=0x97f]),
        ("Thai", &[0xe00..=0xe7f]),
        ("Hangul", &[0x1100..=0x11ff, 0xac00..=0xd7af]),
        ("Kana", &[0x3040..=0x30ff]),
        ("Han", &[0x3400..=0x4dbf, 0x4e00..=0x9fff]),
    ];
    let letters = |ranges: &[std::ops::RangeInclusive<u32>]| {
        text.chars().filter(|&c| ranges.iter().any(|r| r.contains(&u32::from(c)))).take(2).count()
    };
    SCRIPTS.iter().filter(|(_, ranges)| letters(ranges) == 2).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(expect: &[&str]) -> Prompt {
        Prompt {
            id: "p".into(),
            kind: String::new(),
            prompt: "The capital of France is".into(),
            expect: expect.iter().map(|&e| e.into()).collect(),
            max_tokens: 16,
        }
    }

    fn completion(text: &str) -> Completion {
        Completion { text: text.into(), finish_reason: Some("length".into()), ..Completion::default() }
    }

    #[test]
    fn an_answer_is_a_whole_word_at_the_start_or_later() {
        for (text, expect, verdict) in [
            (" Paris, and it is large.", "Paris", Verdict::Exact),
            (" **Paris**", "paris", Verdict::Exact),
            (" the city of Paris.", "Paris", Verdict::Contains),
            (" a city in Europe", "Paris", Verdict::Plausible),
            (" Parisian cafes", "Paris", Verdict::Plausible),
            (" 42", "4", Verdict::Plausible),
            (" 4.5", "4", Verdict::Plausible),
            (" 4.", "4", Verdict::Exact),
            (" 4. Next", "4", Verdict::Exact),
            (" a + b", "a + b", Verdict::Exact),
            (" 14", "4", Verdict::Plausible),
        ] {
            assert_eq!(judge(&prompt(&[expect]), &completion(text)), verdict, "{text}");
        }
    }

    #[test]
    fn a_prompt_that_is_repeated_is_no_answer() {
        let asked =
            Prompt { prompt: "Paris is in France. The capital of France is".into(), ..prompt(&["Paris"]) };
        let answered = |answer: &str| judge(&asked, &completion(&format!("{}{answer}", asked.prompt)));
        assert_eq!(answered(" Paris."), Verdict::Exact);
        assert_eq!(answered(" a city in Europe"), Verdict::Plausible);
        assert!(matches!(answered(""), Verdict::Garbage(_)));
    }

    #[test]
    fn garbage_is_told_by_its_kind() {
        for (text, part) in [
            ("", "spaces"),
            ("   \n\n  ", "spaces"),
            ("!!!!!!!!!!!!!!!!", "`!` 16 times"),
            ("\u{fffd}\u{fffd} a \u{fffd}", "replacement"),
            ("abc\u{1}\u{2}", "control"),
            (" the the the the the the", "`the` 6 times"),
            (" a b a b a b a b a b a b a b a b a b", "2 different words"),
            ("\u{4e2d}\u{6587} \u{43f}\u{440}\u{438}\u{432} hello \u{e01}\u{e02}", "Cyrillic, Thai, Han"),
        ] {
            match judge(&prompt(&["Paris"]), &completion(text)) {
                Verdict::Garbage(reason) => assert!(reason.contains(part), "{text}: {reason}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        let tokens = Completion { tokens: Some(vec!["ab".into(); 12]), ..completion(&"ab".repeat(12)) };
        assert!(matches!(judge(&prompt(&[]), &tokens), Verdict::Garbage(_)));
    }

    #[test]
    fn text_is_not_garbage_because_it_is_unusual() {
        for text in [
            " a fisherman. ---------------- \n\n2. 3. 4.",
            " Paris. The capital of Italy is Rome. The capital of Spain is Madrid.",
            " \u{5df4}\u{9ece} is how one writes Paris",
            " 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597",
            " caf\u{fffd}",
            " a + b\n\ndef sub(a, b):\n    return a - b",
            " Paris. The capital of France is Paris. The capital of France is Paris. The capital of France is Paris.",
        ] {
            assert!(!matches!(judge(&prompt(&[]), &completion(text)), Verdict::Garbage(_)), "{text}");
        }
        let ended =
            Completion { text: String::new(), finish_reason: Some("stop".into()), ..Completion::default() };
        assert_eq!(judge(&prompt(&["Paris"]), &ended), Verdict::Plausible);
    }

    #[test]
    fn a_thought_is_judged_as_text_and_is_no_answer() {
        let thinks = |text: &str| judge(&prompt(&["Paris"]), &completion(text));
        assert!(matches!(thinks("<think>\nOkay, the user wrote an incomplete"), Verdict::Thinking(_)));
        assert!(matches!(thinks("<think>!!!!!!!!!!!!!!!!!!!!"), Verdict::Garbage(_)));
        assert_eq!(thinks("<think>It must be Paris, since"), Verdict::Contains);
        assert_eq!(thinks("<think>hm</think>\n\nParis."), Verdict::Exact);
        let open = judge(&prompt(&[]), &completion("<think>\nOkay, the user wants a story"));
        assert_eq!(open, Verdict::Plausible);
        let parsed = |text: &str, thought: &str| {
            let reasoning = Some(("reasoning_content", thought.to_owned()));
            judge(&prompt(&["Paris"]), &Completion { reasoning, ..completion(text) })
        };
        assert_eq!(parsed("", " Paris, as anybody knows"), Verdict::Exact);
        assert!(matches!(parsed("", "The user asks"), Verdict::Thinking(_)));
        assert!(matches!(parsed("   ", "   "), Verdict::Garbage(_)));
    }
}
