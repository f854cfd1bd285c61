//! What becomes of each message of a batch, by the application's answer. Pure.
//!
//! `docs/protocol.md` has the table of outcomes; a test runs each of its rows through [`decide`].

mod body;

use std::time::Duration;

use body::{Body, Said};

/// Longest reason that is kept with a retried message, in characters.
const REASON_CHARS_MAX: usize = 200;

/// How a call ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The application answered.
    Answer(Answer),
    /// No connection to the application: it saw nothing of the batch.
    Unreachable(String),
    /// The connection broke after the request was on its way.
    Broken(String),
    /// No whole answer within `endpoint.timeout`.
    TimedOut(Duration),
    /// The sidecar's drain was over before the call was.
    Cut,
    /// The sidecar ended before it called.
    NotCalled,
}

/// An answer of the application.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    /// What `Retry-After` asks for.
    pub retry_after: Option<Duration>,
    /// Whether `content-type` names JSON.
    pub json: bool,
    /// The body as far as it was read.
    pub body: Vec<u8>,
    /// The body is longer than what is read.
    pub too_long: bool,
}

/// What becomes of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Done with: it goes.
    Ack,
    /// It comes back, and an attempt is spent.
    Retry {
        /// 0 to 86,400; the Consumer's retry delay when absent.
        delay_seconds: Option<u64>,
        /// Kept with the message.
        reason: String,
    },
    /// It is ready again, and no attempt is spent.
    Release,
}

/// What a call was, as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// The application handled the batch, and said so.
    Handled,
    /// It began and failed.
    Failed(String),
    /// It answered with what is no verdict, which is a failure.
    Malformed(String),
    /// It never began.
    NotBegun { reason: String, retry_after: Option<Duration> },
    /// The sidecar ended first: nothing is known about the application.
    Ended,
}

/// The verdict about a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub class: Class,
    /// In the order of the messages.
    pub decisions: Vec<Decision>,
    /// What the application said that had no effect.
    pub warnings: Vec<String>,
}

/// Decides about the messages `ids`. `draining` says that the sidecar is ending, and so, most likely, its application.
#[must_use]
pub fn decide(outcome: &Outcome, ids: &[&str], draining: bool) -> Verdict {
    match outcome {
        Outcome::Answer(answer) => of_answer(answer, ids),
        Outcome::Unreachable(why) => not_begun(format!("no connection to the application: {why}"), None, ids),
        Outcome::Cut | Outcome::NotCalled => released(Class::Ended, ids),
        Outcome::Broken(_) if draining => released(Class::Ended, ids),
        Outcome::Broken(why) => failed(format!("the connection to the application broke: {why}"), ids),
        Outcome::TimedOut(limit) => failed(format!("no answer within {} s", limit.as_secs_f64()), ids),
    }
}

/// Whether a status says that the application took nothing of the request: a wrong path or method, a redirect, a limit,
/// or not now.
const fn says_not_begun(status: u16) -> bool {
    matches!(status, 300..=399 | 404 | 405 | 413 | 421 | 429 | 501 | 503)
}

fn of_answer(answer: &Answer, ids: &[&str]) -> Verdict {
    let status = answer.status;
    if says_not_begun(status) {
        return not_begun(format!("the application answered {status}"), answer.retry_after, ids);
    }
    let ok = (200..=299).contains(&status);
    let (body, class) = match (body::read(answer), ok) {
        (Err(why), true) => {
            let why = short(format!("the answer's body is no verdict: {why}"));
            (Body::default(), Class::Malformed(why))
        }
        // The error page of a failure needs not be a verdict.
        (read, false) => {
            let reason = format!("the application answered {status}");
            (read.ok().flatten().unwrap_or_default(), Class::Failed(reason))
        }
        (Ok(read), true) => {
            let body = read.unwrap_or_default();
            let class = body.failure().map_or(Class::Handled, |reason| Class::Failed(short(reason)));
            (body, class)
        }
    };
    let failure = match &class {
        Class::Failed(reason) | Class::Malformed(reason) => Some(reason.as_str()),
        _ => None,
    };
    let (decisions, warnings) = by_body(&body, failure, ids);
    Verdict { class, decisions, warnings }
}

fn by_body(body: &Body, failure: Option<&str>, ids: &[&str]) -> (Vec<Decision>, Vec<String>) {
    let mut said = body.by_message();
    let mut decisions = Vec::with_capacity(ids.len());
    let mut warnings = Vec::new();
    for id in ids {
        let own = said.remove(id);
        if own == Some(Said::Both) {
            warnings.push(format!("message {id} is both acknowledged and retried: it is retried"));
        }
        decisions.push(match own {
            Some(Said::Ack) => Decision::Ack,
            Some(Said::Retry(delay_seconds)) => retry(delay_seconds, failure),
            Some(Said::Both) => retry(None, failure),
            None => match body.batch() {
                Some(Said::Ack) => Decision::Ack,
                Some(Said::Retry(delay_seconds)) => retry(delay_seconds, failure),
                _ if failure.is_some() => retry(None, failure),
                _ => Decision::Ack,
            },
        });
    }
    warnings
        .extend(said.keys().map(|id| format!("no message {:?} is in this batch", short((*id).to_owned()))));
    (decisions, warnings)
}

fn retry(delay_seconds: Option<u64>, failure: Option<&str>) -> Decision {
    let reason = short(failure.unwrap_or("the application asked for it").to_owned());
    Decision::Retry { delay_seconds, reason }
}

fn failed(reason: String, ids: &[&str]) -> Verdict {
    let decisions = ids.iter().map(|_| retry(None, Some(&reason))).collect();
    Verdict { class: Class::Failed(short(reason)), decisions, warnings: Vec::new() }
}

fn not_begun(reason: String, retry_after: Option<Duration>, ids: &[&str]) -> Verdict {
    released(Class::NotBegun { reason: short(reason), retry_after }, ids)
}

fn released(class: Class, ids: &[&str]) -> Verdict {
    Verdict { class, decisions: vec![Decision::Release; ids.len()], warnings: Vec::new() }
}

fn short(text: String) -> String {
    match text.char_indices().nth(REASON_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
