//! `POST /v1/completions`, and every way in which a server can fail to answer it.

use serde::Deserialize;
use serde_json::{Value, json};
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A longer answer is refused: a completion of a few dozen tokens with its log-probabilities is some kilobytes.
const MAX_ANSWER: u64 = 4 << 20;
/// Alternatives whose log-probabilities are asked for.
const ALTERNATIVES: u32 = 5;
/// Attempts where the connection itself fails.
const ATTEMPTS: u32 = 4;

/// What a server answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    pub text: String,
    pub finish_reason: Option<String>,
    /// Texts of the tokens, where the server gives log-probabilities.
    pub tokens: Option<Vec<String>>,
    pub logprobs: Option<Vec<Option<f64>>>,
    /// For each token the alternatives with their log-probabilities.
    pub top: Option<Vec<Vec<(String, f64)>>>,
}

/// Why there is no completion.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("no answer within {0} s")]
    TimedOut(u64),
    #[error("status {status}: {message}")]
    Status { status: u16, message: String },
    #[error("closed the connection before the answer was complete ({0})")]
    ClosedEarly(String),
    #[error("answered with an event stream although none was asked for")]
    Streamed,
    #[error("answered {0} instead of as application/json")]
    ContentType(String),
    #[error("answered with `content-encoding: {0}`, although none was asked for")]
    Encoded(String),
    #[error("answered with more than {} MiB", MAX_ANSWER >> 20)]
    TooLarge,
    #[error("not asked: the server did not answer before")]
    NotAsked,
    #[error("answered with JSON that is broken or no completion: {0}")]
    Json(String),
}

impl ProbeError {
    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            ProbeError::Connect(_) => "Is the server up, and is this its host and port?",
            ProbeError::Status { status: 401 | 403, .. } => {
                "It wants a key: put it into the environment variable that --api-key-env names."
            }
            ProbeError::Status { status: 400 | 404 | 422, .. } => {
                "Is this an OpenAI-compatible server, and does it know this --model? GET /v1/models lists the names."
            }
            ProbeError::Status { status: 300..400, .. } => {
                "It sends elsewhere: give the address that it names."
            }
            ProbeError::Streamed
            | ProbeError::ContentType(_)
            | ProbeError::Encoded(_)
            | ProbeError::TooLarge
            | ProbeError::Json(_) => {
                "Is this an OpenAI-compatible server, and is nothing in between (a proxy, another port)?"
            }
            ProbeError::Status { .. }
            | ProbeError::TimedOut(_)
            | ProbeError::ClosedEarly(_)
            | ProbeError::NotAsked => "See its log: cargo accuracy logs.",
        }
    }
}

/// One server.
pub struct Client {
    agent: ureq::Agent,
    url: String,
    /// The address without a user's name and password.
    shown: String,
    model: Option<String>,
    api_key: Option<String>,
    seed: u64,
    timeout: Duration,
    /// A server that refuses log-probabilities is not asked for them again.
    logprobs: AtomicBool,
}

#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    text: String,
    finish_reason: Option<String>,
    logprobs: Option<Logprobs>,
}

#[derive(Deserialize)]
struct Logprobs {
    tokens: Option<Vec<String>>,
    token_logprobs: Option<Vec<Option<f64>>>,
    top_logprobs: Option<Vec<Option<serde_json::Map<String, Value>>>>,
}

impl Client {
    /// # Errors
    /// An address that is not `http://host[:port][/path]`.
    pub fn new(
        url: &str,
        model: Option<&str>,
        api_key: Option<String>,
        seed: u64,
        timeout: Duration,
    ) -> Result<Client, String> {
        let rest = url.strip_prefix("http://").ok_or_else(|| {
            let tls = if url.starts_with("https://") {
                "; for https, tunnel to the server (ssh -L) and use http"
            } else {
                ""
            };
            format!("`{url}` is no address of the form http://host:port{tls}")
        })?;
        if rest.is_empty() || rest.starts_with(['/', ':']) || rest.contains(char::is_whitespace) {
            return Err(format!("`{url}` names no host"));
        }
        let base = url.trim_end_matches('/').trim_end_matches("/completions").trim_end_matches("/v1");
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(timeout))
            .max_idle_connections(0)
            .build();
        Ok(Client {
            agent: config.into(),
            shown: without_user(base),
            url: format!("{base}/v1/completions"),
            model: model.map(str::to_owned),
            api_key,
            seed,
            timeout,
            logprobs: AtomicBool::new(true),
        })
    }

    pub fn url(&self) -> String {
        format!("{}/v1/completions", self.shown)
    }

    /// Asks once, again only where the connection failed, or without log-probabilities where those are refused.
    pub fn complete(&self, prompt: &str, max_tokens: u32) -> Result<Completion, ProbeError> {
        let mut wait = Duration::from_millis(200);
        for attempt in 1.. {
            let logprobs = self.logprobs.load(Ordering::Relaxed);
            match self.ask(prompt, max_tokens, logprobs) {
                Err(ProbeError::Connect(_)) if attempt < ATTEMPTS => {
                    std::thread::sleep(wait);
                    wait *= 2;
                }
                Err(ProbeError::Status { status: 400 | 422 | 501, .. }) if logprobs => {
                    self.logprobs.store(false, Ordering::Relaxed);
                }
                result => return result,
            }
        }
        unreachable!("the last attempt returns")
    }

    fn ask(&self, prompt: &str, max_tokens: u32, logprobs: bool) -> Result<Completion, ProbeError> {
        let mut body = json!({
            "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "seed": self.seed, "stream": false,
        });
        if let Some(model) = &self.model {
            body["model"] = json!(model);
        }
        if logprobs {
            body["logprobs"] = json!(ALTERNATIVES);
        }
        let mut request = self.agent.post(&self.url).header("content-type", "application/json");
        if let Some(key) = &self.api_key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let response = request.send(body.to_string().as_bytes()).map_err(|e| self.failure(e))?;
        let status = response.status().as_u16();
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|v| v.to_str().ok());
            value.unwrap_or_default().to_ascii_lowercase()
        };
        let (content_type, encoding) = (header("content-type"), header("content-encoding"));
        if status == 200 && content_type.starts_with("text/event-stream") {
            return Err(ProbeError::Streamed);
        }
        let mut bytes = Vec::new();
        let read = response.into_body().into_reader().take(MAX_ANSWER + 1).read_to_end(&mut bytes);
        if status != 200 {
            return Err(ProbeError::Status { status, message: message(&bytes) });
        }
        if let Err(e) = read {
            return Err(match e.get_ref().and_then(|e| e.downcast_ref::<ureq::Error>()) {
                Some(ureq::Error::Timeout(_)) => ProbeError::TimedOut(self.timeout.as_secs()),
                _ if e.kind() == std::io::ErrorKind::TimedOut => ProbeError::TimedOut(self.timeout.as_secs()),
                _ => ProbeError::ClosedEarly(e.to_string()),
            });
        }
        if bytes.len() as u64 > MAX_ANSWER {
            return Err(ProbeError::TooLarge);
        }
        if !content_type.starts_with("application/json") {
            return Err(ProbeError::ContentType(match &*content_type {
                "" => "without a content type".to_owned(),
                other => format!("as `{other}`"),
            }));
        }
        if !matches!(&*encoding, "" | "identity") {
            return Err(ProbeError::Encoded(encoding));
        }
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|e| ProbeError::Json(e.to_string()))?;
        let choice = answer.choices.into_iter().next();
        choice.map(completion).ok_or_else(|| ProbeError::Json("`choices` is empty".to_owned()))
    }

    fn failure(&self, error: ureq::Error) -> ProbeError {
        use std::io::ErrorKind::{ConnectionRefused, NotConnected, TimedOut, WouldBlock};
        match &error {
            ureq::Error::Timeout(_) => ProbeError::TimedOut(self.timeout.as_secs()),
            ureq::Error::Io(e) if matches!(e.kind(), TimedOut | WouldBlock) => {
                ProbeError::TimedOut(self.timeout.as_secs())
            }
            ureq::Error::Io(e) if matches!(e.kind(), ConnectionRefused | NotConnected) => {
                ProbeError::Connect(e.to_string())
            }
            ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => {
                ProbeError::Connect(error.to_string())
            }
            _ => ProbeError::ClosedEarly(error.to_string()),
        }
    }
}

fn completion(choice: Choice) -> Completion {
    let logprobs = choice.logprobs;
    let top = logprobs.as_ref().and_then(|l| l.top_logprobs.as_ref()).map(|tokens| {
        let one = |alternatives: &Option<serde_json::Map<String, Value>>| {
            let alternatives = alternatives.iter().flatten();
            alternatives.filter_map(|(token, p)| Some((token.clone(), p.as_f64()?))).collect()
        };
        tokens.iter().map(one).collect()
    });
    let (tokens, token_logprobs) = logprobs.map_or((None, None), |l| (l.tokens, l.token_logprobs));
    Completion {
        text: choice.text,
        finish_reason: choice.finish_reason,
        tokens: tokens.filter(|t| !t.is_empty()),
        logprobs: token_logprobs,
        top,
    }
}

/// `http://user:password@host` without what is before the `@`.
fn without_user(url: &str) -> String {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("http://{host}{path}")
}

/// The message in an error's body, or its beginning.
fn message(body: &[u8]) -> String {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let places = ["/error/message", "/message", "/detail", "/error"];
    let found = places.iter().find_map(|p| parsed.pointer(p)?.as_str()).map(str::to_owned);
    let text = found.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
