//! One server, and the way in which it wants to be asked: [`Manner`] is found out with the first questions and kept.

use super::answer::{self, Completion};
use super::error::{MAX_ANSWER, ProbeError};
use super::patience::{Patience, retry_after};
use super::refusal::{self, Parameter, Refusal};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Alternatives whose log-probabilities are asked for.
const ALTERNATIVES: u32 = 5;
/// Attempts where the connection itself fails.
const ATTEMPTS: u32 = 4;
/// How often a request is repeated that the server failed at, as one that is not busy.
const MAX_FAILURES: u32 = 2;
/// Ways in which one question is asked before the server's refusal is taken for good.
const MAX_MANNERS: usize = 10;
/// A chat model answers in sentences.
const CHAT_TOKENS: u32 = 64;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Completions,
    Chat,
}

impl Endpoint {
    fn path(self) -> &'static str {
        match self {
            Endpoint::Completions => "/v1/completions",
            Endpoint::Chat => "/v1/chat/completions",
        }
    }
}

/// What the user wants of every request.
#[derive(Clone)]
pub struct Settings {
    pub api_key: Option<String>,
    pub seed: u64,
    pub timeout: Duration,
    pub patience: Duration,
    /// Ask `/v1/chat/completions` alone.
    pub chat: bool,
    /// The least number of tokens of an answer.
    pub max_tokens: Option<u32>,
    /// Fields that are added to every request.
    pub body: Map<String, Value>,
}

/// How a server wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Manner {
    endpoint: Endpoint,
    /// Parameters that it refused, with what it said.
    left_out: BTreeMap<Parameter, String>,
    /// The name of the model, where it wants one and none was given.
    model: Option<String>,
    /// Why it is asked by chat where that was not wanted.
    why_chat: Option<String>,
}

/// One server.
pub struct Client {
    agent: ureq::Agent,
    base: String,
    /// The address without a user's name and password.
    shown: String,
    model: Option<String>,
    settings: Settings,
    patience: Patience,
    manner: Mutex<Manner>,
    /// It has streamed although it was asked not to.
    streamed: AtomicBool,
    /// It was busy, was not ready, or failed for a while.
    waited_for: Mutex<Option<u16>>,
}

/// A status that is no answer.
struct Refused {
    status: u16,
    body: Vec<u8>,
    retry_after: Option<Duration>,
}

impl Refused {
    fn message(&self) -> String {
        refusal::message(&serde_json::from_slice(&self.body).unwrap_or_default(), &self.body)
    }

    fn error(&self) -> ProbeError {
        ProbeError::Status { status: self.status, message: self.message() }
    }
}

enum Failure {
    Refused(Refused),
    Error(ProbeError),
}

impl Client {
    /// # Errors
    /// An address that is not `http://host[:port][/path]`.
    pub fn new(url: &str, model: Option<&str>, settings: Settings) -> Result<Client, String> {
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
        let url = url.trim_end_matches('/');
        let chat = settings.chat || url.ends_with("/chat/completions");
        let base = url.trim_end_matches("/completions").trim_end_matches("/chat").trim_end_matches("/v1");
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(settings.timeout))
            .max_idle_connections(0)
            .build();
        let endpoint = if chat { Endpoint::Chat } else { Endpoint::Completions };
        Ok(Client {
            agent: config.into(),
            shown: without_user(base),
            base: base.to_owned(),
            model: model.map(str::to_owned),
            patience: Patience::new(settings.patience),
            settings,
            manner: Mutex::new(Manner { endpoint, left_out: BTreeMap::new(), model: None, why_chat: None }),
            streamed: AtomicBool::new(false),
            waited_for: Mutex::new(None),
        })
    }

    pub fn url(&self) -> String {
        format!("{}{}", self.shown, self.manner().endpoint.path())
    }

    pub fn endpoint(&self) -> Endpoint {
        self.manner().endpoint
    }

    /// Whether it was asked for the likeliest token each time, so that equal questions have equal answers.
    pub fn is_greedy(&self) -> bool {
        !self.manner().left_out.contains_key(&Parameter::Temperature)
    }

    /// What was found out about the way in which it wants to be asked.
    pub fn remarks(&self) -> Vec<String> {
        let manner = self.manner();
        let mut remarks = Vec::new();
        if let Some(why) = &manner.why_chat {
            remarks.push(format!(
                "It has no /v1/completions ({why}): the prompts were asked of /v1/chat/completions, where a template stands \
                 around each."
            ));
        }
        if let Some(model) = &manner.model {
            remarks
                .push(format!("It wants a model's name: {model}, the only one that it serves, was given."));
        }
        for (parameter, said) in &manner.left_out {
            remarks.push(match parameter {
                Parameter::Stream => format!("It only streams ({said}): the streams were read."),
                Parameter::MaxTokens => format!("It refuses max_tokens ({said}): max_completion_tokens was sent instead."),
                Parameter::Temperature => format!(
                    "It refuses temperature ({said}): it was left out, so that answers may differ, and equal questions \
                     were not compared."
                ),
                Parameter::Seed | Parameter::Logprobs => {
                    format!("It refuses {} ({said}): it was left out.", parameter.name())
                }
            });
        }
        if self.streamed.load(Ordering::Relaxed) && !manner.left_out.contains_key(&Parameter::Stream) {
            remarks.push("It streams although it was asked not to: the streams were read.".to_owned());
        }
        let waited = *lock(&self.waited_for);
        if let Some(status) = waited {
            remarks.push(format!(
                "It was waited for, for {} s in all, because it answered with status {status}.",
                self.patience.seconds()
            ));
        }
        remarks
    }

    fn manner(&self) -> Manner {
        lock(&self.manner).clone()
    }

    /// Asks until there is an answer or an error that stays: again where the connection failed, later where the server is
    /// busy, and otherwise where it refuses how it was asked. What helped is kept for the questions that follow.
    pub fn complete(&self, prompt: &str, max_tokens: u32) -> Result<Completion, ProbeError> {
        let max_tokens = max_tokens.max(self.settings.max_tokens.unwrap_or(0));
        let mut manner = self.manner();
        let mut first_refusal: Option<ProbeError> = None;
        let (mut tried, mut connects, mut failures, mut waits) = (1, 0, 0, 0);
        loop {
            let refused = match self.ask(&manner, prompt, max_tokens) {
                Ok(completion) => {
                    if first_refusal.is_some() {
                        *lock(&self.manner) = manner;
                    }
                    return Ok(completion);
                }
                Err(Failure::Error(ProbeError::Connect(_))) if connects + 1 < ATTEMPTS => {
                    std::thread::sleep(Duration::from_millis(200 << connects));
                    connects += 1;
                    continue;
                }
                Err(Failure::Error(error)) => return Err(first_refusal.unwrap_or(error)),
                Err(Failure::Refused(refused)) => refused,
            };
            if is_busy(refused.status) || (fails_for_now(refused.status) && failures < MAX_FAILURES) {
                failures += u32::from(!is_busy(refused.status));
                self.wait(&refused, waits)?;
                waits += 1;
                continue;
            }
            if tried >= MAX_MANNERS {
                return Err(first_refusal.unwrap_or_else(|| refused.error()));
            }
            tried += 1;
            let next = self.otherwise(&manner, &refused);
            match next {
                Ok(next) => {
                    first_refusal.get_or_insert_with(|| refused.error());
                    manner = next;
                }
                // What it said first is about what it was asked first.
                Err(error) => return Err(first_refusal.filter(|_| is_plain(&error)).unwrap_or(error)),
            }
        }
    }

    /// Waits as long as the server asks for, or twice as long each time.
    fn wait(&self, refused: &Refused, waits: u32) -> Result<(), ProbeError> {
        let (status, message) = (refused.status, refused.message());
        let time = refused.retry_after.unwrap_or(Duration::from_millis(500 << waits.min(4)));
        *lock(&self.waited_for) = Some(status);
        if self.patience.wait(time) {
            return Ok(());
        }
        Err(match refused.retry_after {
            Some(wanted) if self.patience.exceeds(wanted) => {
                ProbeError::AskedToWait { status, message, wanted: wanted.as_secs_f64().ceil() as u64 }
            }
            _ => ProbeError::StillBusy { status, message, waited: self.patience.seconds() },
        })
    }

    /// Another way to ask, after this one was refused.
    fn otherwise(&self, manner: &Manner, refused: &Refused) -> Result<Manner, ProbeError> {
        let said = || refused.message();
        if !matches!(refused.status, 400 | 404 | 405 | 415 | 422 | 501) {
            return Err(refused.error());
        }
        let refusal = refusal::read(&refused.body);
        let chat = |manner: &Manner| {
            let why = format!("status {}: {}", refused.status, said());
            Manner { endpoint: Endpoint::Chat, why_chat: Some(why), ..manner.clone() }
        };
        let completions = manner.endpoint == Endpoint::Completions;
        let missing = matches!(refused.status, 404 | 405 | 501);
        let leave_out = |parameter: Parameter| {
            let mut next = manner.clone();
            next.left_out.insert(parameter, said());
            next
        };
        let sent = |parameter: &Parameter| !manner.left_out.contains_key(parameter);
        match refusal {
            Refusal::Endpoint if completions => Ok(chat(manner)),
            Refusal::Parameters(named) if named.iter().any(sent) => {
                let mut next = manner.clone();
                for parameter in named.into_iter().filter(sent) {
                    next.left_out.insert(parameter, said());
                }
                Ok(next)
            }
            Refusal::Model => self.with_model(manner, refused),
            Refusal::Unnamed if missing && completions => Ok(chat(manner)),
            Refusal::Endpoint | Refusal::Unnamed if missing => {
                Err(ProbeError::NoEndpoint { status: refused.status, message: said() })
            }
            // It says only that it does not want this: what it can do without is left out, one thing after the other.
            Refusal::Unnamed => [Parameter::Logprobs, Parameter::Seed, Parameter::Stream]
                .into_iter()
                .find(sent)
                .map(leave_out)
                .ok_or_else(|| refused.error()),
            Refusal::Parameters(_) | Refusal::Endpoint | Refusal::Other => Err(refused.error()),
        }
    }

    /// The only model that it serves, where none was named.
    fn with_model(&self, manner: &Manner, refused: &Refused) -> Result<Manner, ProbeError> {
        let names = self.models();
        match names.as_slice() {
            [only] if self.model.is_none() && manner.model.is_none() => {
                Ok(Manner { model: Some(only.clone()), ..manner.clone() })
            }
            _ => Err(ProbeError::NoSuchModel { status: refused.status, message: refused.message(), names }),
        }
    }

    /// The names at `/v1/models`; none where it does not say.
    fn models(&self) -> Vec<String> {
        let mut request = self.agent.get(format!("{}/v1/models", self.base));
        if let Some(key) = &self.settings.api_key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let mut bytes = Vec::new();
        let read = request
            .call()
            .is_ok_and(|r| r.into_body().into_reader().take(MAX_ANSWER).read_to_end(&mut bytes).is_ok());
        let list: Value = if read { serde_json::from_slice(&bytes).unwrap_or_default() } else { Value::Null };
        let models = list.get("data").and_then(Value::as_array).into_iter().flatten();
        models.filter_map(|m| m.get("id")?.as_str().map(str::to_owned)).collect()
    }

    fn body(&self, manner: &Manner, prompt: &str, max_tokens: u32) -> Value {
        let mut body = json!({});
        let mut put = |parameter: Parameter, name: &str, value: Value| {
            if !manner.left_out.contains_key(&parameter) {
                body[name] = value;
            }
        };
        put(Parameter::Temperature, "temperature", json!(0));
        put(Parameter::Seed, "seed", json!(self.settings.seed));
        let tokens = match manner.endpoint {
            Endpoint::Completions => {
                put(Parameter::Logprobs, "logprobs", json!(ALTERNATIVES));
                max_tokens
            }
            Endpoint::Chat => {
                put(Parameter::Logprobs, "logprobs", json!(true));
                put(Parameter::Logprobs, "top_logprobs", json!(ALTERNATIVES));
                max_tokens.max(CHAT_TOKENS)
            }
        };
        let limit = match manner.left_out.contains_key(&Parameter::MaxTokens) {
            true => "max_completion_tokens",
            false => "max_tokens",
        };
        body[limit] = json!(tokens);
        body["stream"] = json!(manner.left_out.contains_key(&Parameter::Stream));
        match manner.endpoint {
            Endpoint::Completions => body["prompt"] = json!(prompt),
            Endpoint::Chat => body["messages"] = json!([{"role": "user", "content": prompt}]),
        }
        if let Some(model) = self.model.as_ref().or(manner.model.as_ref()) {
            body["model"] = json!(model);
        }
        for (name, value) in &self.settings.body {
            body[name] = value.clone();
        }
        body
    }

    fn ask(&self, manner: &Manner, prompt: &str, max_tokens: u32) -> Result<Completion, Failure> {
        let body = self.body(manner, prompt, max_tokens);
        let url = format!("{}{}", self.base, manner.endpoint.path());
        let mut request = self.agent.post(&url).header("content-type", "application/json");
        if let Some(key) = &self.settings.api_key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let sent = request.send(body.to_string().as_bytes());
        let response = sent.map_err(|e| Failure::Error(self.failure(&e)))?;
        let status = response.status().as_u16();
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|v| v.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (content_type, encoding) =
            (header("content-type").to_ascii_lowercase(), header("content-encoding").to_ascii_lowercase());
        let milliseconds = header("retry-after-ms").parse().ok().map(Duration::from_millis);
        let retry_after = milliseconds.or_else(|| retry_after(&header("retry-after")));
        let events = content_type.starts_with("text/event-stream");
        let (bytes, read) = read_body(response.into_body().into_reader(), events && status == 200);
        if status != 200 {
            return Err(Failure::Refused(Refused { status, body: bytes, retry_after }));
        }
        self.completion(&bytes, read, &content_type, &encoding).map_err(Failure::Error)
    }

    /// The answer in a body, as far as it was read.
    fn completion(
        &self,
        bytes: &[u8],
        read: std::io::Result<()>,
        content_type: &str,
        encoding: &str,
    ) -> Result<Completion, ProbeError> {
        if let Err(e) = read {
            return Err(match e.get_ref().and_then(|e| e.downcast_ref::<ureq::Error>()) {
                Some(ureq::Error::Timeout(_)) => ProbeError::TimedOut(self.settings.timeout.as_secs()),
                _ if e.kind() == std::io::ErrorKind::TimedOut => {
                    ProbeError::TimedOut(self.settings.timeout.as_secs())
                }
                _ => ProbeError::ClosedEarly(e.to_string()),
            });
        }
        if bytes.len() as u64 > MAX_ANSWER {
            return Err(ProbeError::TooLarge);
        }
        if !matches!(encoding, "" | "identity") {
            return Err(ProbeError::Encoded(encoding.to_owned()));
        }
        let events = content_type.starts_with("text/event-stream") || answer::looks_like_events(bytes);
        if !events && !content_type.starts_with("application/json") {
            return Err(ProbeError::ContentType(match content_type {
                "" => "without a content type".to_owned(),
                other => format!("as `{other}`"),
            }));
        }
        let events =
            answer::looks_like_events(bytes) || (events && !bytes.trim_ascii_start().starts_with(b"{"));
        if events {
            self.streamed.store(true, Ordering::Relaxed);
        }
        answer::read(bytes, events)
    }

    fn failure(&self, error: &ureq::Error) -> ProbeError {
        use std::io::ErrorKind::{ConnectionRefused, NotConnected, TimedOut, WouldBlock};
        match error {
            ureq::Error::Timeout(_) => ProbeError::TimedOut(self.settings.timeout.as_secs()),
            ureq::Error::Io(e) if matches!(e.kind(), TimedOut | WouldBlock) => {
                ProbeError::TimedOut(self.settings.timeout.as_secs())
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

/// Reads a body up to its end, or up to the end that a stream of events says of itself: such a connection may stay open.
fn read_body(mut body: impl std::io::Read, events: bool) -> (Vec<u8>, std::io::Result<()>) {
    let mut bytes = Vec::new();
    let mut part = [0; 8192];
    while bytes.len() as u64 <= MAX_ANSWER {
        match body.read(&mut part) {
            Ok(0) => break,
            Ok(n) => bytes.extend(&part[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return (bytes, Err(e)),
        }
        if events && answer::is_over(&bytes) {
            break;
        }
    }
    (bytes, Ok(()))
}

/// A server that says so is asked again until there is no patience left.
fn is_busy(status: u16) -> bool {
    matches!(status, 425 | 429 | 503 | 529)
}

/// A server or a proxy that failed at this one request may not at the next.
fn fails_for_now(status: u16) -> bool {
    matches!(status, 408 | 500 | 502 | 504 | 520..=527)
}

/// An error that says no more than its status.
fn is_plain(error: &ProbeError) -> bool {
    matches!(error, ProbeError::Status { .. })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// `http://user:password@host` without what is before the `@`.
fn without_user(url: &str) -> String {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("http://{host}{path}")
}
