//! Reading a request's body: by what it holds, not by its Content-Type, which SDKs and curl set in many ways.

use axum::extract::{FromRequest, Request};
use capstan_api::object::{self, Objects};
use capstan_api::{ErrorCode, limits};
use capstan_port::body::{Budget, Held, PATIENCE};
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use super::AppState;
use super::refused::Refused;

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

/// The bytes of a body within the limit. They count in their budget until this is dropped.
pub(super) struct Body(Held);

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
        Ok(Self(Held::read(limit, body, budget).await?))
    }

    /// Bytes that no budget counts.
    #[cfg(any(test, fuzzing))]
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self(Held::uncounted(bytes))
    }

    /// Reads JSON. An empty body counts as `{}`.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Refused> {
        let bytes = self.0.bytes();
        let text: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
        // To know the place of an error costs as much as the reading: it is looked for when there is one.
        object::from_slice(text).or_else(|_| with_place(text))
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
