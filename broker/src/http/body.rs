//! Reading a request's body: by what it holds, not by its Content-Type, which SDKs and curl set in many ways.

use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use capstan_api::object::{self, Objects};
use capstan_api::{ErrorCode, limits};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::AppState;
use super::refused::Refused;

/// Most bytes beyond the limit that are read and thrown away: a client that is cut off while it writes may never read
/// the answer that says why.
const DISCARDED_MAX: usize = 64 << 20;

/// A body must be there within this.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of sends that are held while they are read.
const SENDS_BYTES: usize = 64 << 20;
/// Most bytes of verdicts, pulls and looks. Verdicts hold theirs until they are answered, which also bounds how many
/// leases wait for the engine.
const OTHERS_BYTES: usize = 32 << 20;
/// Longest text of serde's that is repeated.
const ERROR_CHARACTERS_MAX: usize = 300;
/// Names in a body may be as long as it is; an answer is not to repeat them.
const POINTER_BYTES_MAX: usize = 512;

const _: () = assert!(limits::send_bytes_max(limits::MESSAGE_BYTES_MAX) <= SENDS_BYTES);

/// Bytes of bodies that may be held at once. Sends cannot take what verdicts need, nor clients what the operator needs.
#[derive(Debug, Clone)]
pub(super) struct Budgets {
    pub(super) sends: Budget,
    others: Budget,
    pub(super) declarations: Budget,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            sends: Budget::new(SENDS_BYTES, PATIENCE),
            others: Budget::new(OTHERS_BYTES, PATIENCE),
            declarations: Budget::new(limits::DECLARATION_BYTES_MAX, PATIENCE),
        }
    }
}

/// Bytes that bodies of one kind share.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    bytes: Arc<Semaphore>,
    patience: Duration,
}

impl Budget {
    fn new(bytes: usize, patience: Duration) -> Self {
        Self { bytes: Arc::new(Semaphore::new(bytes)), patience }
    }

    /// Adds `count` bytes to what is `held`; whether there were so many.
    fn take(&self, count: usize, held: &mut Option<OwnedSemaphorePermit>) -> bool {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let Ok(more) = Arc::clone(&self.bytes).try_acquire_many_owned(count) else {
            return false;
        };
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        true
    }
}

/// The parts of a body. One that came in one piece, as most do, is not copied.
#[derive(Default)]
struct Chunks {
    first: Bytes,
    joined: Vec<u8>,
}

impl Chunks {
    fn push(&mut self, chunk: Bytes) {
        if self.first.is_empty() {
            self.first = chunk;
            return;
        }
        if self.joined.is_empty() {
            self.joined.extend_from_slice(&self.first);
        }
        self.joined.extend_from_slice(&chunk);
    }

    fn join(self) -> Bytes {
        if self.joined.is_empty() { self.first } else { self.joined.into() }
    }
}

/// The bytes of a body within the limit. They count in their budget until this is dropped.
pub(super) struct Body {
    bytes: Bytes,
    _held: Option<OwnedSemaphorePermit>,
}

impl FromRequest<AppState> for Body {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Refused> {
        Self::within(limits::REQUEST_BYTES_MAX, request.into_body(), &state.budgets.others).await
    }
}

impl Body {
    /// Reads a body of at most `limit` bytes, in the time that the budget gives. One that is announced as larger is refused
    /// at once, and read over meanwhile.
    pub(super) async fn within(
        limit: usize,
        body: axum::body::Body,
        budget: &Budget,
    ) -> Result<Self, Refused> {
        let patience = budget.patience;
        if body.size_hint().lower() > limit as u64 {
            // One for each connection at most. Nothing is awaited from here to the answer's head: no `100 Continue` goes out.
            tokio::spawn(tokio::time::timeout(patience, discard(body)));
            return Err(too_large(limit));
        }
        tokio::time::timeout(patience, Self::all(limit, body, budget)).await.unwrap_or_else(|_| {
            let message = format!("the request body did not arrive within {} s", patience.as_secs());
            Err(Refused::new(ErrorCode::JsonBodyMalformed, message))
        })
    }

    async fn all(limit: usize, body: axum::body::Body, budget: &Budget) -> Result<Self, Refused> {
        let mut chunks = body.into_data_stream();
        let (mut bytes, mut held) = (Chunks::default(), None);
        let (mut size, mut overloaded) = (0_usize, false);
        while let Some(chunk) = chunks.next().await {
            let ended = |_| Refused::new(ErrorCode::JsonBodyMalformed, "the request body ended early");
            let chunk = chunk.map_err(ended)?;
            size = size.saturating_add(chunk.len());
            if size > limit.saturating_add(DISCARDED_MAX) {
                break;
            }
            overloaded = overloaded || size <= limit && !budget.take(chunk.len(), &mut held);
            if overloaded || size > limit {
                (bytes, held) = (Chunks::default(), None);
            } else {
                bytes.push(chunk);
            }
        }
        if size > limit {
            return Err(too_large(limit));
        }
        if overloaded {
            let message = "too many request bodies are being read; try again after Retry-After";
            return Err(Refused::new(ErrorCode::QueueOverloaded, message));
        }
        Ok(Self { bytes: bytes.join(), _held: held })
    }

    /// Bytes that no budget counts.
    #[cfg(any(test, fuzzing))]
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self { bytes: bytes.into(), _held: None }
    }

    /// Reads JSON. An empty body counts as `{}`.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Refused> {
        let text: &[u8] = if self.bytes.trim_ascii().is_empty() { b"{}" } else { &self.bytes };
        // To know the place of an error costs as much as the reading: it is looked for when there is one.
        object::from_slice(text).or_else(|_| with_place(text))
    }
}

fn too_large(limit: usize) -> Refused {
    let message = format!(
        "the request body is larger than {limit} bytes, as it is sent: with its JSON's escapes and spaces"
    );
    Refused::new(ErrorCode::BatchSizeOutOfBounds, message)
}

/// Reads over a body, but for its end when it is very long.
async fn discard(body: axum::body::Body) {
    let (mut chunks, mut size) = (body.into_data_stream(), 0);
    while size <= DISCARDED_MAX
        && let Some(Ok(chunk)) = chunks.next().await
    {
        size += chunk.len();
    }
}

/// Reads again what could not be read, and says where it is wrong.
fn with_place<T: DeserializeOwned>(text: &[u8]) -> Result<T, Refused> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(Objects(&mut json)).map_err(|error| {
        let (path, pointer) = (error.path().to_string(), pointer(error.path()));
        let path = if path.len() > POINTER_BYTES_MAX { pointer.clone() } else { path };
        refused(error.inner(), Some((path, pointer)))
    })?;
    json.end().map_err(|error| refused(&error, None))?;
    Ok(value)
}

fn refused(error: &serde_json::Error, place: Option<(String, String)>) -> Refused {
    if !error.is_data() {
        let message = format!("the request body is not JSON: {}", said(error));
        return Refused::new(ErrorCode::JsonBodyMalformed, message);
    }
    let text = said(error);
    let (path, mut pointer) = place.unwrap_or_default();
    let message = if pointer.is_empty() { text.clone() } else { format!("{path}: {text}") };
    if let Some(field) = missing(&text) {
        // Its place is where it belongs.
        push(&mut pointer, field);
    }
    if pointer.is_empty() {
        return Refused::new(ErrorCode::JsonBodyInvalid, message);
    }
    Refused::at(ErrorCode::JsonBodyInvalid, pointer, message)
}

/// serde repeats a string that is of the wrong type, however long.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.char_indices().nth(ERROR_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The field that is missing, in serde's words.
fn missing(error: &str) -> Option<&str> {
    error.strip_prefix("missing field `")?.split('`').next()
}

/// A path as a JSON pointer. Of one that is too long, what holds the rest.
pub(super) fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        let before = pointer.len();
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } | Segment::Enum { variant: key } => push(&mut pointer, key),
            Segment::Unknown => {}
        }
        if pointer.len() > POINTER_BYTES_MAX {
            pointer.truncate(before);
            break;
        }
    }
    pointer
}

fn push(pointer: &mut String, key: &str) {
    pointer.push('/');
    pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use capstan_api::message::SendBatch;

    use super::*;

    fn read(text: &str) -> Refused {
        Body::of(text.as_bytes().to_vec()).read::<SendBatch>().unwrap_err()
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let read = async |body: axum::body::Body| {
            let read = Body::within(1000, body, &Budget::new(1 << 30, PATIENCE)).await;
            read.map(|body| body.bytes.len())
        };
        assert_eq!(read(spaces(1000).into()).await, Ok(1000));
        assert_eq!(read(unannounced(1000)).await, Ok(1000));
        for size in [1001, 1001 + DISCARDED_MAX] {
            for body in [spaces(size).into(), unannounced(size)] {
                assert_eq!(read(body).await.unwrap_err().code, ErrorCode::BatchSizeOutOfBounds);
            }
        }
    }

    fn spaces(size: usize) -> Vec<u8> {
        vec![b' '; size]
    }

    /// Without a Content-Length.
    fn unannounced(size: usize) -> axum::body::Body {
        axum::body::Body::from_stream(futures::stream::iter([Ok::<_, std::io::Error>(spaces(size))]))
    }

    #[tokio::test]
    async fn bodies_share_a_budget_until_they_are_dropped() {
        let budget = Budget::new(100, PATIENCE);
        let read = async |size: usize| Body::within(1000, unannounced(size), &budget).await;
        let first = read(60).await.ok().unwrap();
        assert_eq!(read(41).await.err().unwrap().code, ErrorCode::QueueOverloaded);
        let second = read(40).await.ok().unwrap();
        assert_eq!(read(1).await.err().unwrap().code, ErrorCode::QueueOverloaded);
        drop((first, second));
        assert!(read(100).await.is_ok());
        // What is too large is said to be so, and holds nothing.
        assert_eq!(read(1001).await.err().unwrap().code, ErrorCode::BatchSizeOutOfBounds);
        assert_eq!(budget.bytes.available_permits(), 100);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let budget = Budget::new(100, Duration::from_millis(20));
        let first = futures::stream::iter([Ok::<_, std::io::Error>(" ".repeat(10))]);
        let body = axum::body::Body::from_stream(first.chain(futures::stream::pending()));
        let refused = Body::within(1000, body, &budget).await.err().unwrap();
        assert!(refused.message.contains("did not arrive"), "{refused:?}");
        assert_eq!(budget.bytes.available_permits(), 100);
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        for text in ["{", "nonsense", "{\"messages\":[]} trailing", "{\"messages\":[{\"body\":1},]}"] {
            assert_eq!(read(text).code, ErrorCode::JsonBodyMalformed, "{text}");
        }
    }

    #[test]
    fn a_refusal_never_repeats_what_is_long() {
        let long = "x".repeat(100_000);
        for text in [
            format!(r#"{{"messages":[{{"body":1,"delay_seconds":"{long}"}}]}}"#),
            format!(r#"{{"messages":[{{"body":1,"attributes":{{"{long}":1}}}}]}}"#),
            format!(r#"{{"messages":[{{"body":1,"content_type":{{"{long}":1}}}}]}}"#),
            format!(r#""{long}""#),
        ] {
            let Refused { code, message, pointer, .. } = read(&text);
            assert_eq!(code, ErrorCode::JsonBodyInvalid);
            let length = message.len() + pointer.map_or(0, |pointer| pointer.len());
            assert!(length < 1000, "{length} bytes repeat what was sent: {message:.100}");
        }
    }

    #[test]
    fn what_does_not_fit_is_invalid_and_the_field_is_named() {
        for (text, pointer) in [
            ("{\"messages\":{}}", "/messages"),
            ("{\"messages\":[[1]]}", "/messages/0"),
            ("{\"messages\":[{\"body\":1,\"delay_seconds\":\"5\"}]}", "/messages/0/delay_seconds"),
            ("{\"messages\":[{\"body\":1},{\"body\":2,\"content_type\":7}]}", "/messages/1/content_type"),
            ("{\"messages\":[{\"body\":1,\"attributes\":{\"a/b\":1}}]}", "/messages/0/attributes/a~1b"),
            ("", "/messages"),
            ("{\"delay_seconds\":1}", "/messages"),
            ("{\"messages\":[{\"body\":1},{}]}", "/messages/1/body"),
        ] {
            let refused = read(text);
            assert_eq!(refused.code, ErrorCode::JsonBodyInvalid, "{text}");
            assert_eq!(refused.pointer.as_deref(), Some(pointer), "{text}");
        }
        for (text, path) in [("[]", None), ("7", None)] {
            assert_eq!(read(text).pointer.as_deref(), path, "all of it is wrong");
        }
    }
}
