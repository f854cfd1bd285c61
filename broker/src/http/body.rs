//! Reading a request's body: by what it holds, not by its Content-Type, which SDKs and curl set in many ways.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use capstan_api::ErrorCode;
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use super::refused::Refused;

/// The bytes of a body within the limit.
pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let body = Bytes::from_request(request, state).await;
        Self::within(body, capstan_api::limits::REQUEST_BYTES_MAX)
    }
}

impl Body {
    /// A body that was read, or why it was not: `limit` is the most bytes that its route takes.
    pub(super) fn within(body: Result<Bytes, BytesRejection>, limit: usize) -> Result<Self, Refused> {
        body.map(Self).map_err(|rejection| {
            if rejection.status() == 413 {
                let message = format!("the request body is larger than {limit} bytes");
                return Refused::new(ErrorCode::BatchSizeOutOfBounds, message);
            }
            Refused::new(ErrorCode::JsonBodyMalformed, "the request body ended early")
        })
    }

    /// Reads JSON. An empty body counts as `{}`.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Refused> {
        let text: &[u8] = if self.0.trim_ascii().is_empty() { b"{}" } else { &self.0 };
        let mut json = serde_json::Deserializer::from_slice(text);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let pointer = pointer(error.path());
            refused(error.inner(), Some((error.path().to_string(), pointer)))
        })?;
        json.end().map_err(|error| refused(&error, None))?;
        Ok(value)
    }
}

fn refused(error: &serde_json::Error, place: Option<(String, String)>) -> Refused {
    if !error.is_data() {
        return Refused::new(ErrorCode::JsonBodyMalformed, format!("the request body is not JSON: {error}"));
    }
    match place {
        Some((path, pointer)) if !pointer.is_empty() => {
            Refused::at(ErrorCode::JsonBodyInvalid, pointer, format!("{path}: {error}"))
        }
        _ => Refused::new(ErrorCode::JsonBodyInvalid, error.to_string()),
    }
}

/// A path as a JSON pointer.
fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Unknown => {}
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use capstan_api::message::SendBatch;

    use super::*;

    fn read(text: &str) -> Refused {
        Body(Bytes::copy_from_slice(text.as_bytes())).read::<SendBatch>().unwrap_err()
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        for text in ["{", "nonsense", "{\"messages\":[]} trailing", "{\"messages\":[{\"body\":1},]}"] {
            assert_eq!(read(text).code, ErrorCode::JsonBodyMalformed, "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_invalid_and_the_field_is_named() {
        for (text, pointer) in [
            ("{\"messages\":{}}", "/messages"),
            ("{\"messages\":[{\"body\":1,\"delay_seconds\":\"5\"}]}", "/messages/0/delay_seconds"),
            ("{\"messages\":[{\"body\":1},{\"body\":2,\"content_type\":7}]}", "/messages/1/content_type"),
            ("{\"messages\":[{\"body\":1,\"attributes\":{\"a/b\":1}}]}", "/messages/0/attributes/a~1b"),
        ] {
            let refused = read(text);
            assert_eq!(refused.code, ErrorCode::JsonBodyInvalid, "{text}");
            assert_eq!(refused.pointer.as_deref(), Some(pointer), "{text}");
        }
        assert!(read("{}").message.contains("messages"), "a missing field is named");
    }
}
