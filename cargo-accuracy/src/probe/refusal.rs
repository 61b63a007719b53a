//! What a server's refusal names: parameters that it does not take, the model, the endpoint.

use serde_json::Value;

/// A parameter of ours that a server may refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parameter {
    Seed,
    Logprobs,
    Temperature,
    /// `stream: false`; refused where a server only streams.
    Stream,
    /// Called `max_completion_tokens` by some.
    MaxTokens,
}

impl Parameter {
    pub const ALL: [Parameter; 5] = [
        Parameter::Logprobs,
        Parameter::Seed,
        Parameter::Stream,
        Parameter::Temperature,
        Parameter::MaxTokens,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Parameter::Seed => "seed",
            Parameter::Logprobs => "logprobs",
            Parameter::Temperature => "temperature",
            Parameter::Stream => "stream",
            Parameter::MaxTokens => "max_tokens",
        }
    }

    /// Words by which it is named.
    fn words(self) -> &'static [&'static str] {
        match self {
            Parameter::Logprobs => &["logprobs", "top_logprobs", "logprob"],
            Parameter::Stream => &["stream", "streaming", "non-streaming", "nonstreaming"],
            Parameter::MaxTokens => &["max_tokens"],
            Parameter::Seed => &["seed"],
            Parameter::Temperature => &["temperature"],
        }
    }
}

/// What a refusal is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Parameters(Vec<Parameter>),
    Model,
    /// Another endpoint is meant: the message names it, or fields of it are missing.
    Endpoint,
    /// A field that has to be sent as it is, such as the prompt.
    Other,
    /// Nothing that is known is named.
    Unnamed,
}

/// Reads a refusal. The fields that are meant for it decide, and the message only where there are none.
pub fn read(body: &[u8]) -> Refusal {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = message(&parsed, body).to_lowercase();
    if message.contains("chat/completions") || message.contains("chat completions") {
        return Refusal::Endpoint;
    }
    let fields = fields(&parsed);
    let has = |names: &[&str]| fields.iter().any(|field| names.contains(&field.as_str()));
    let named = |is: &dyn Fn(&str) -> bool| -> Vec<Parameter> {
        Parameter::ALL.into_iter().filter(|p| p.words().iter().any(|word| is(word))).collect()
    };
    let parameters = named(&|word| has(&[word]));
    if !parameters.is_empty() {
        return Refusal::Parameters(parameters);
    }
    if has(&["messages"]) {
        return Refusal::Endpoint;
    }
    if has(&["model"]) {
        return Refusal::Model;
    }
    if !fields.is_empty() {
        return Refusal::Other;
    }
    let words: Vec<&str> = message
        .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-'))
        .filter(|word| !word.is_empty())
        .collect();
    let parameters = named(&|word| words.contains(&word));
    if !parameters.is_empty() {
        return Refusal::Parameters(parameters);
    }
    match (words.contains(&"model"), words.contains(&"messages")) {
        (true, _) => Refusal::Model,
        (_, true) => Refusal::Endpoint,
        _ => Refusal::Unnamed,
    }
}

/// The fields of the request that an error names: `error.param`, and the places of a validation's findings.
fn fields(body: &Value) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    for place in ["/error/param", "/param", "/error/field", "/field"] {
        names.extend(body.pointer(place).and_then(Value::as_str));
    }
    for list in ["/detail", "/errors", "/error/details", "/error/detail"] {
        for finding in body.pointer(list).and_then(Value::as_array).into_iter().flatten() {
            names.extend(
                finding.get("loc").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str),
            );
            names.extend(["param", "field"].iter().filter_map(|key| finding.get(key)?.as_str()));
        }
    }
    let names = names.iter().flat_map(|name| name.split(['.', '[', ']', '/']));
    let names = names.map(str::to_lowercase).filter(|name| !matches!(name.as_str(), "" | "body" | "query"));
    names.collect()
}

/// The message in an error's body, or the body's beginning.
pub fn message(parsed: &Value, body: &[u8]) -> String {
    let places = [
        "/error/message",
        "/message",
        "/detail",
        "/error",
        "/error_message",
        "/detail/0/msg",
        "/errors/0/message",
    ];
    let found = places.iter().find_map(|p| parsed.pointer(p)?.as_str()).map(str::to_owned);
    let found = found.map(|text| match parsed.pointer("/detail/0/loc").and_then(Value::as_array) {
        Some(loc) => {
            let loc: Vec<&str> = loc.iter().filter_map(Value::as_str).collect();
            format!("{}: {text}", loc.join("."))
        }
        None => text,
    });
    let text = found.unwrap_or_else(|| match body.is_empty() {
        true => parsed.to_string(),
        false => String::from_utf8_lossy(body).into_owned(),
    });
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Parameter::{Logprobs, MaxTokens, Seed, Stream, Temperature};

    #[test]
    fn parameters_are_read_from_their_fields_and_else_from_the_message() {
        for (body, parameters) in [
            (r#"{"error":{"message":"no","param":"seed"}}"#, vec![Seed]),
            (
                r#"{"detail":[{"type":"extra_forbidden","loc":["body","seed"],"msg":"Extra inputs"}]}"#,
                vec![Seed],
            ),
            (
                r#"{"detail":[{"loc":["body","logprobs"],"msg":"x"},{"loc":["body","seed"],"msg":"x"}]}"#,
                vec![Logprobs, Seed],
            ),
            (r#"{"error":"unknown field `seed`, expected one of `prompt`"}"#, vec![Seed]),
            (r#"{"message":"logprobs is not supported"}"#, vec![Logprobs]),
            ("temperature must be strictly positive", vec![Temperature]),
            (r#"{"error":{"message":"Only streaming is supported"}}"#, vec![Stream]),
            (
                r#"{"error":{"message":"Unsupported parameter: 'max_tokens'","param":"max_tokens"}}"#,
                vec![MaxTokens],
            ),
            // The field decides where the message names others, too.
            (r#"{"error":{"message":"seed and temperature","param":"body.seed"}}"#, vec![Seed]),
        ] {
            assert_eq!(read(body.as_bytes()), Refusal::Parameters(parameters), "{body}");
        }
    }

    #[test]
    fn models_endpoints_and_prompts_are_told_apart() {
        for (body, refusal) in [
            (r#"{"error":{"message":"The model `x` does not exist."}}"#, Refusal::Model),
            (r#"{"error":{"message":"x","param":"model"}}"#, Refusal::Model),
            (r#"{"error":{"message":"This is a chat model; use /v1/chat/completions"}}"#, Refusal::Endpoint),
            (r#"{"detail":[{"loc":["body","messages"],"msg":"Field required"}]}"#, Refusal::Endpoint),
            (r#"{"error":{"message":"too long","param":"prompt"}}"#, Refusal::Other),
            ("Not Found", Refusal::Unnamed),
            ("upstream error", Refusal::Unnamed),
        ] {
            assert_eq!(read(body.as_bytes()), refusal, "{body}");
        }
    }
}
