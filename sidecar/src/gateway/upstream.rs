//! One try at the broker, and whether another makes sense.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use capstan_api::ErrorCode;
use capstan_api::envelope::Envelope;
use reqwest::{Client, Url};

use super::KEY;
use super::metrics::Reason;
use crate::call;

/// Most bytes of an answer that are read: that to 100 messages has 5,000.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long the broker's system may confirm nothing: its node is gone then.
const SILENT_MAX: Duration = Duration::from_secs(5);
/// Idle connections are kept so long, far shorter than the broker keeps them.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// What of an answer is passed on beside its status and body.
const ANSWER_HEADERS: [HeaderName; 3] =
    [header::CONTENT_TYPE, header::RETRY_AFTER, HeaderName::from_static("x-should-retry")];

/// A request as it goes to the broker, each time the same.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The gateway made its key.
    pub(super) own_key: bool,
}

impl Outgoing {
    /// Takes away the gateway's own key; whether there was one.
    pub(super) fn drop_own_key(&mut self) -> bool {
        std::mem::take(&mut self.own_key) && self.headers.remove(KEY).is_some()
    }
}

/// What the broker answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        (self.status, self.headers, self.body).into_response()
    }
}

/// A try that came to nothing. Another may succeed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    /// What happened, for people.
    pub(super) text: String,
    /// How long the broker wants to be left alone.
    pub(super) asked: Option<Duration>,
    /// What it answered.
    pub(super) answer: Option<Box<Answer>>,
}

impl Failure {
    pub(super) fn silent(limit: Duration) -> Self {
        let text = format!("no answer within {} s", limit.as_secs_f32());
        Self { reason: Reason::Silent, text, asked: None, answer: None }
    }

    fn broken(text: String) -> Self {
        Self { reason: Reason::Broken, text, asked: None, answer: None }
    }

    /// Whether the broker remembers as many keys as it can, so that it takes sends without one alone.
    pub(super) fn is_full_of_keys(&self) -> bool {
        let full = ErrorCode::IdempotencyKeysFull.code();
        let body = self.answer.as_ref().filter(|_| self.reason == Reason::Busy).map(|answer| &answer.body);
        let envelope =
            body.and_then(|body| serde_json::from_slice::<Envelope<serde::de::IgnoredAny>>(body).ok());
        envelope.is_some_and(|envelope| envelope.errors.iter().any(|error| error.code == full))
    }

    /// Whether the broker may have taken the request all the same.
    pub(super) const fn may_have_taken(&self) -> bool {
        !matches!(self.reason, Reason::Unreachable | Reason::Busy)
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        let text = call::cause(&error);
        // Without a connection nothing was sent.
        let reason = if error.is_connect() { Reason::Unreachable } else { Reason::Broken };
        Self { reason, text, asked: None, answer: None }
    }
}

/// The broker as the gateway reaches it.
#[derive(Debug)]
pub(super) struct Upstream {
    http: Client,
    base: Url,
    minds_keys: AtomicBool,
}

impl Upstream {
    pub(super) fn new(base: Url) -> reqwest::Result<Self> {
        let builder = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let builder = builder.connect_timeout(CONNECT_MAX).pool_idle_timeout(IDLE_MAX);
        Ok(Self {
            http: builder.tcp_user_timeout(SILENT_MAX).build()?,
            base,
            minds_keys: AtomicBool::new(false),
        })
    }

    /// The address of `path`, which begins with `/`.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(path);
        url
    }

    /// Whether the broker has shown that it minds keys: the last time that it took a send with one, it answered with it.
    pub(super) fn minds_keys(&self) -> bool {
        self.minds_keys.load(Ordering::Relaxed)
    }

    /// Asks once. An answer is one that another try would not change.
    pub(super) async fn ask(&self, outgoing: &Outgoing) -> Result<Answer, Failure> {
        let Outgoing { method, url, headers, body, .. } = outgoing;
        let request = self.http.request(method.clone(), url.clone());
        let response = request.headers(headers.clone()).body(body.clone()).send().await?;
        let echoed = response.headers().contains_key(KEY);
        let answer = read(response).await?;
        if answer.status.is_success() && headers.contains_key(KEY) {
            self.minds_keys.store(echoed, Ordering::Relaxed);
        }
        let reason = match answer.status.as_u16() {
            429 => Reason::Busy,
            502..=504 => Reason::Failing,
            _ => return Ok(answer),
        };
        let text = format!("it answered {}", answer.status.as_u16());
        let asked = answer.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let asked = asked.and_then(|text| call::read_retry_after(text, SystemTime::now()));
        Err(Failure { reason, text, asked, answer: Some(Box::new(answer)) })
    }
}

async fn read(mut response: reqwest::Response) -> Result<Answer, Failure> {
    let mut headers = HeaderMap::new();
    for name in ANSWER_HEADERS {
        if let Some(value) = response.headers().get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let (status, mut body) = (response.status(), Vec::new());
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Failure::broken(format!("its answer is longer than {ANSWER_BYTES_MAX} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, headers, body: body.into() })
}
