//! Every way in which a server can fail to answer. None of them says anything about kernels.

/// The longest answer that is read: a completion of a few dozen tokens with its log-probabilities is some kilobytes.
pub const MAX_ANSWER: u64 = 4 << 20;

/// Why there is no completion.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("no answer within {0} s")]
    TimedOut(u64),
    #[error("status {status}: {message}")]
    Status { status: u16, message: String },
    /// It said that it is busy, loads its model or fails for now, and went on to say so.
    #[error("status {status}: {message} (still so after {waited} s of waiting)")]
    StillBusy { status: u16, message: String, waited: u64 },
    /// It asked to be left alone for longer than there is patience for.
    #[error("status {status}: {message} (it asks to be left alone for {wanted} s)")]
    AskedToWait { status: u16, message: String, wanted: u64 },
    #[error("status {status}: {message}")]
    NoSuchModel { status: u16, message: String, names: Vec<String> },
    /// Neither `/v1/completions` nor `/v1/chat/completions` is there.
    #[error("status {status}: {message}")]
    NoEndpoint { status: u16, message: String },
    #[error("answered with status 200 and an error: {0}")]
    ErrorInAnswer(String),
    #[error("ended the answer itself (finish_reason `{0}`)")]
    Ended(String),
    #[error("closed the connection before the answer was complete ({0})")]
    ClosedEarly(String),
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
    pub fn advice(&self) -> String {
        match self {
            ProbeError::Connect(_) => "Is the server up, and is this its host and port?".to_owned(),
            ProbeError::Status { status: 401 | 403, .. } => {
                "It wants a key: put it into the environment variable that --api-key-env names.".to_owned()
            }
            ProbeError::NoSuchModel { names, .. } if !names.is_empty() => {
                format!("It serves {}: give one of them as --model.", names.join(", "))
            }
            ProbeError::NoEndpoint { .. } => {
                "It has neither /v1/completions nor /v1/chat/completions there. Is this an OpenAI-compatible server, is \
                 its base path right (--url http://host:port/base), and does it know this --model? GET /v1/models lists \
                 the names. --chat asks /v1/chat/completions alone."
                    .to_owned()
            }
            ProbeError::Status { status: 400 | 404 | 422, .. } | ProbeError::NoSuchModel { .. } => {
                "Is this an OpenAI-compatible server, and does it know this --model? GET /v1/models lists the names. \
                 --body adds what it asks for to every request."
                    .to_owned()
            }
            ProbeError::Status { status: 300..400, .. } => {
                "It sends elsewhere: give the address that it names.".to_owned()
            }
            ProbeError::AskedToWait { wanted, .. } => {
                format!("This is the server's limit and says nothing of the kernels. --patience {wanted} waits that long.")
            }
            ProbeError::StillBusy { status: 429, .. } => {
                "It limits its rate, which says nothing of the kernels: raise --patience, lower --concurrency, or ask it \
                 without the limit."
                    .to_owned()
            }
            ProbeError::StillBusy { .. } => {
                "The server is not ready or fails, which says nothing of the kernels: raise --patience, and see its log: \
                 cargo accuracy logs."
                    .to_owned()
            }
            ProbeError::ContentType(_)
            | ProbeError::Encoded(_)
            | ProbeError::TooLarge
            | ProbeError::Json(_) => {
                "Is this an OpenAI-compatible server, and is nothing in between (a proxy, another port)?".to_owned()
            }
            ProbeError::TimedOut(_) => {
                "The server is slow or hangs, which says nothing of the kernels: raise --timeout, and see its log: cargo \
                 accuracy logs."
                    .to_owned()
            }
            ProbeError::Status { .. }
            | ProbeError::ErrorInAnswer(_)
            | ProbeError::Ended(_)
            | ProbeError::ClosedEarly(_)
            | ProbeError::NotAsked => "See its log: cargo accuracy logs.".to_owned(),
        }
    }
}
