//! What goes wrong between the operator and the API server.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::Call;

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is answered with a status, and perhaps a `Retry-After` in seconds.
    Answer(u16, Option<u16>),
    /// A watch begins, and says at once that its version is too old.
    Expired,
    /// It is never answered.
    Hang,
    /// It is carried out, and its answer is lost.
    Lost,
    /// The same, and that is known only after so long.
    LostLate(Duration),
}

/// A fault that waits for its requests.
struct Rule {
    applies: Box<dyn Fn(&Call) -> bool + Send>,
    fault: Fault,
    left: usize,
    met: Arc<AtomicUsize>,
}

/// All faults that wait.
#[derive(Default)]
pub(crate) struct Faults(VecDeque<Rule>);

/// How many requests met a fault.
#[derive(Debug, Clone)]
pub(crate) struct Met(Arc<AtomicUsize>);

impl Met {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Faults {
    /// The next `times` requests for which `applies` holds fail.
    pub(crate) fn add(
        &mut self,
        fault: Fault,
        times: usize,
        applies: impl Fn(&Call) -> bool + Send + 'static,
    ) -> Met {
        let met = Arc::new(AtomicUsize::new(0));
        self.0.push_back(Rule { applies: Box::new(applies), fault, left: times, met: Arc::clone(&met) });
        Met(met)
    }

    /// How a request fails, if it does.
    pub(crate) fn take(&mut self, call: &Call) -> Option<Fault> {
        let rule = self.0.iter_mut().find(|rule| rule.left > 0 && (rule.applies)(call))?;
        rule.left -= 1;
        rule.met.fetch_add(1, Ordering::Relaxed);
        Some(rule.fault)
    }

    /// No fault waits any more.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// An answer as the API server gives it.
pub(crate) fn refusal(code: u16, retry_after: Option<u16>) -> Response {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        500 => "InternalError",
        _ => "ServiceUnavailable",
    };
    let mut response = json_response(code, &status(code, reason));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

/// A watch that says that it begins too far in the past, as the API server does after its history was compacted.
pub(crate) fn expired() -> Response {
    json_response(200, &json!({"type": "ERROR", "object": status(410, "Expired")}))
}

/// An answer that breaks off.
pub(crate) fn broken() -> Response {
    let parts = [Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("the answer is lost"))];
    Response::new(Body::from_stream(futures::stream::iter(parts)))
}

fn status(code: u16, reason: &str) -> serde_json::Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "a fault of the test",
        "reason": reason, "code": code})
}

fn json_response(code: u16, body: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(format!("{body}\n")));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}
