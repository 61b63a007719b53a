//! What servers answer, in all the forms in use: completions and chat, whole and as a stream of events.

use super::error::ProbeError;
use accuracy_core::weights::from_json;
use serde::Deserialize;
use serde_json::Value;

/// What a server answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    pub text: String,
    /// What the model thought before it answered, and the field that it came in, where a parser has taken it apart.
    pub reasoning: Option<(&'static str, String)>,
    pub finish_reason: Option<String>,
    /// The model and the build that say that they have answered.
    pub served_by: Option<String>,
    /// Texts of the tokens, where the server gives log-probabilities.
    pub tokens: Option<Vec<String>>,
    pub logprobs: Option<Vec<Option<f64>>>,
    /// For each token the alternatives with their log-probabilities.
    pub top: Option<Vec<Vec<(String, f64)>>>,
}

impl Completion {
    /// Everything that the model wrote: two answers are equal where this is.
    pub fn written(&self) -> String {
        let thought = self.reasoning.as_ref().map_or("", |(_, thought)| thought);
        format!("{thought}{}", self.text)
    }
}

#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    text: Option<String>,
    message: Option<Message>,
    delta: Option<Message>,
    #[serde(flatten)]
    thought: Thought,
    finish_reason: Option<String>,
    logprobs: Option<Value>,
}

#[derive(Deserialize)]
struct Message {
    /// A text, or a list of parts that have one.
    content: Option<Value>,
    #[serde(flatten)]
    thought: Thought,
}

/// The fields in which servers put what their parser took for thinking.
#[derive(Default, Deserialize)]
struct Thought {
    reasoning_content: Option<Value>,
    reasoning: Option<Value>,
    thinking: Option<Value>,
}

impl Thought {
    fn text(&self) -> Option<(&'static str, String)> {
        let fields = [
            ("reasoning_content", &self.reasoning_content),
            ("reasoning", &self.reasoning),
            ("thinking", &self.thinking),
        ];
        let texts = fields.into_iter().filter_map(|(name, value)| Some((name, text_of(value.as_ref()?)?)));
        texts.into_iter().find(|(_, text)| !text.is_empty())
    }
}

/// A text, or the texts of a list's parts.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.as_str().or_else(|| part.get("text")?.as_str()));
            Some(texts.collect())
        }
        _ => None,
    }
}

/// Reads an answer's bytes: an object, or a stream of events.
///
/// # Errors
/// It is neither, has no choice, is an error, or its stream ends before the answer does.
pub fn read(body: &[u8], events: bool) -> Result<Completion, ProbeError> {
    let mut joined = Completion::default();
    if !events {
        let value: Value = from_json(body).map_err(|e| ProbeError::Json(e.to_string()))?;
        let done = add(value, &mut joined)?;
        return if done { finished(joined) } else { Err(ProbeError::Json("`choices` is empty".to_owned())) };
    }
    let (mut any, mut ended) = (false, false);
    for event in events_of(body) {
        if event.trim() == "[DONE]" {
            ended = true;
            break;
        }
        let value: Value = from_json(event.as_bytes()).map_err(|e| ProbeError::Json(e.to_string()))?;
        any |= add(value, &mut joined)?;
    }
    match any && (ended || joined.finish_reason.is_some()) {
        true => finished(joined),
        false if ended => Err(ProbeError::Json("the event stream has no choice".to_owned())),
        false => Err(ProbeError::ClosedEarly(
            "the event stream ends without a finish_reason and without [DONE]".to_owned(),
        )),
    }
}

/// The answer, unless the server says that something else than the model ended it.
///
/// Servers have many words for an end of the model's: it stopped, met the limit of tokens, called a tool.
fn finished(answer: Completion) -> Result<Completion, ProbeError> {
    const OF_THE_MODEL: [&str; 7] = ["stop", "length", "eos", "end", "max", "limit", "tool"];
    match answer.finish_reason.as_deref() {
        Some(reason) if !reason.is_empty() && reason != "function_call" => {
            let word = reason.to_ascii_lowercase();
            match OF_THE_MODEL.iter().any(|part| word.contains(part)) {
                true => Ok(answer),
                false => Err(ProbeError::Ended(reason.to_owned())),
            }
        }
        _ => Ok(answer),
    }
}

/// Whether a stream of events has said that it is over, so that nothing more has to be waited for.
pub fn is_over(body: &[u8]) -> bool {
    let tail = &body[body.len().saturating_sub(64)..];
    String::from_utf8_lossy(tail).contains("[DONE]")
}

/// Whether bytes are a stream of events, whatever their content type says.
pub fn looks_like_events(body: &[u8]) -> bool {
    let body = body.trim_ascii_start();
    body.starts_with(b"data:") || body.starts_with(b"event:") || body.starts_with(b": ")
}

/// The data of each event: the lines that begin with `data:`, those of one event joined.
fn events_of(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    let (mut events, mut data): (Vec<String>, Vec<&str>) = (Vec::new(), Vec::new());
    for line in text.lines().chain([""]) {
        match line.strip_prefix("data:") {
            Some(rest) => data.push(rest.strip_prefix(' ').unwrap_or(rest)),
            None if line.trim().is_empty() && !data.is_empty() => {
                events.push(data.join("\n"));
                data.clear();
            }
            // Names of events, comments that keep the connection open.
            None => {}
        }
    }
    events
}

/// Adds the first choice of an answer, or of a part of one. Returns false where there is no choice, as in a part that
/// only counts tokens.
fn add(value: Value, joined: &mut Completion) -> Result<bool, ProbeError> {
    if value.get("error").is_some_and(|e| !e.is_null()) && value.get("choices").is_none() {
        return Err(ProbeError::ErrorInAnswer(super::refusal::message(&value, b"")));
    }
    let said = |key: &str| value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let served_by: Vec<&str> = ["model", "system_fingerprint"].into_iter().filter_map(said).collect();
    if !served_by.is_empty() {
        joined.served_by = Some(served_by.join(", "));
    }
    let answer: Answer = serde_json::from_value(value).map_err(|e| ProbeError::Json(e.to_string()))?;
    let Some(choice) = answer.choices.into_iter().next() else { return Ok(false) };
    let message = choice.message.or(choice.delta);
    let content = message.as_ref().and_then(|m| text_of(m.content.as_ref()?));
    let thought = choice.thought.text().or_else(|| message.as_ref()?.thought.text());
    if choice.text.is_none() && message.is_none() && thought.is_none() {
        return Err(ProbeError::Json("missing field `text`".to_owned()));
    }
    // Servers that answer with an empty text and a message mean the message.
    let text = choice.text.filter(|text| !text.is_empty()).or(content).unwrap_or_default();
    joined.text += &text;
    if let Some((field, more)) = thought {
        joined.reasoning.get_or_insert_with(|| (field, String::new())).1 += &more;
    }
    joined.finish_reason = choice.finish_reason.or(joined.finish_reason.take());
    if let Some(logprobs) = choice.logprobs {
        add_logprobs(&logprobs, joined);
    }
    Ok(true)
}

/// A token's text, its log-probability, and the alternatives with theirs.
type Token = (String, Option<f64>, Vec<(String, f64)>);

/// Adds log-probabilities in the form of completions (parallel lists) or of chat (a list of tokens). Other forms are left
/// out: they only say more exactly where answers part.
fn add_logprobs(logprobs: &Value, joined: &mut Completion) {
    let mut tokens: Vec<Token> = Vec::new();
    if let Some(list) = logprobs.get("content").and_then(Value::as_array) {
        for token in list {
            let Some(text) = token["token"].as_str() else { return };
            let top = token["top_logprobs"].as_array().into_iter().flatten();
            let top = top.filter_map(|t| Some((t["token"].as_str()?.to_owned(), t["logprob"].as_f64()?)));
            tokens.push((text.to_owned(), token["logprob"].as_f64(), top.collect()));
        }
    } else if let Some(list) = logprobs.get("tokens").and_then(Value::as_array) {
        for (i, token) in list.iter().enumerate() {
            let Some(text) = token.as_str() else { return };
            let top = logprobs["top_logprobs"][i].as_object().into_iter().flatten();
            let top = top.filter_map(|(token, p)| Some((token.clone(), p.as_f64()?)));
            tokens.push((text.to_owned(), logprobs["token_logprobs"][i].as_f64(), top.collect()));
        }
    }
    if tokens.is_empty() {
        return;
    }
    for (text, logprob, top) in tokens {
        joined.tokens.get_or_insert_default().push(text);
        joined.logprobs.get_or_insert_default().push(logprob);
        joined.top.get_or_insert_default().push(top);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_every_form_are_read() {
        for (body, events, text, reasoning) in [
            (r#"{"choices":[{"text":" a"}]}"#, false, " a", None),
            (r#"{"choices":[{"message":{"content":"a","reasoning_content":"b"}}]}"#, false, "a", Some("b")),
            (r#"{"choices":[{"text":"","reasoning":"b"}]}"#, false, "", Some("b")),
            (
                r#"{"choices":[{"text":"","message":{"content":[{"type":"text","text":"a"}]}}]}"#,
                false,
                "a",
                None,
            ),
            (
                "data: {\"choices\":[{\"text\":\" a\"}]}\n\n: ping\n\ndata:{\"choices\":[{\"text\":\"b\",\"finish_reason\":\"stop\"}]}\n\n",
                true,
                " ab",
                None,
            ),
            (
                "event: x\r\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null,\"reasoning\":\"b\"}}]}\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\ndata: {\"choices\":[],\"usage\":{}}\r\n\r\ndata: [DONE]\r\n\r\n",
                true,
                "a",
                Some("b"),
            ),
        ] {
            let completion = read(body.as_bytes(), events).unwrap_or_else(|e| panic!("{body}: {e}"));
            assert_eq!(completion.text, text, "{body}");
            assert_eq!(completion.reasoning.map(|r| r.1).as_deref(), reasoning, "{body}");
        }
    }

    #[test]
    fn what_is_no_answer_is_told_from_one_that_was_cut() {
        for (body, events, part) in [
            ("{}", false, "missing field `choices`"),
            (r#"{"choices":[]}"#, false, "`choices` is empty"),
            (r#"{"choices":[{"index":0}]}"#, false, "missing field `text`"),
            (r#"{"error":{"message":"out of memory"}}"#, false, "an error: out of memory"),
            ("data: {\"choices\":[{\"text\":\"P\"}]}\n\n", true, "event stream ends without"),
            ("data: {\"error\":{\"message\":\"aborted\"}}\n\n", true, "an error: aborted"),
            ("data: [DONE]\n\n", true, "no choice"),
        ] {
            let error = read(body.as_bytes(), events).unwrap_err().to_string();
            assert!(error.contains(part), "{body}: {error}");
        }
    }

    #[test]
    fn answers_that_something_else_than_the_model_ended_are_the_servers() {
        let ended = |reason: &str| {
            read(format!(r#"{{"choices":[{{"text":" a","finish_reason":"{reason}"}}]}}"#).as_bytes(), false)
        };
        for reason in [
            "stop",
            "length",
            "eos_token",
            "stop_sequence",
            "end_turn",
            "MAX_TOKENS",
            "tool_calls",
            "function_call",
        ] {
            assert!(ended(reason).is_ok(), "{reason}");
        }
        for reason in ["abort", "error", "cancelled", "content_filter"] {
            assert_eq!(ended(reason), Err(ProbeError::Ended(reason.to_owned())));
        }
    }

    #[test]
    fn json_is_read_as_python_writes_it() {
        let body = "\u{feff}{\"model\":\"m\",\"choices\":[{\"text\":\" a\\ud800\",\"logprobs\":{\"tokens\":[\" a\"],\"token_logprobs\":[NaN],\"top_logprobs\":[{\" b\":-Infinity}]}}]}";
        let answer = read(body.as_bytes(), false).unwrap();
        assert_eq!((answer.text.as_str(), answer.served_by.as_deref()), (" a\u{fffd}", Some("m")));
        assert_eq!(answer.logprobs, Some(vec![None]));
    }

    #[test]
    fn log_probabilities_of_both_forms_are_the_same() {
        let chat = r#"{"choices":[{"message":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-0.5,"top_logprobs":[{"token":"b","logprob":-1.5}]}]}}]}"#;
        let plain = r#"{"choices":[{"text":"a","logprobs":{"tokens":["a"],"token_logprobs":[-0.5],"top_logprobs":[{"b":-1.5}]}}]}"#;
        let (chat, plain) = (read(chat.as_bytes(), false).unwrap(), read(plain.as_bytes(), false).unwrap());
        assert_eq!(chat, plain);
        assert_eq!(plain.top, Some(vec![vec![("b".to_owned(), -1.5)]]));
    }
}
