//! Reading a request's body: by what it holds, not by its Content-Type, which SDKs and curl set in many ways.

use axum::extract::{FromRequest, Request};
use capstan_api::object::Objects;
use capstan_api::{ErrorCode, limits};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use super::refused::Refused;

/// Most bytes beyond the limit that are read and thrown away: a client that is cut off while it writes may never read
/// the answer that says why.
const DISCARDED_MAX: usize = 64 << 20;

/// The bytes of a body within the limit.
pub(super) struct Body(Vec<u8>);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        Self::within(limits::REQUEST_BYTES_MAX, request.into_body()).await
    }
}

impl Body {
    /// Reads a body of at most `limit` bytes.
    pub(super) async fn within(limit: usize, body: axum::body::Body) -> Result<Self, Refused> {
        let mut chunks = body.into_data_stream();
        let (mut bytes, mut size) = (Vec::new(), 0_usize);
        while let Some(chunk) = chunks.next().await {
            let ended = |_| Refused::new(ErrorCode::JsonBodyMalformed, "the request body ended early");
            let chunk = chunk.map_err(ended)?;
            size = size.saturating_add(chunk.len());
            if size <= limit {
                bytes.extend_from_slice(&chunk);
            } else if size - limit > DISCARDED_MAX {
                break;
            } else {
                bytes = Vec::new();
            }
        }
        if size > limit {
            let message = format!("the request body is larger than {limit} bytes");
            return Err(Refused::new(ErrorCode::BatchSizeOutOfBounds, message));
        }
        Ok(Self(bytes))
    }

    /// Reads JSON. An empty body counts as `{}`.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Refused> {
        let text: &[u8] = if self.0.trim_ascii().is_empty() { b"{}" } else { &self.0 };
        let mut json = serde_json::Deserializer::from_slice(text);
        let value = serde_path_to_error::deserialize(Objects(&mut json)).map_err(|error| {
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
        Body(text.as_bytes().to_vec()).read::<SendBatch>().unwrap_err()
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let read =
            async |size: usize| Body::within(1000, vec![b' '; size].into()).await.map(|body| body.0.len());
        assert_eq!(read(1000).await, Ok(1000));
        for size in [1001, 1001 + DISCARDED_MAX] {
            assert_eq!(read(size).await.unwrap_err().code, ErrorCode::BatchSizeOutOfBounds);
        }
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
            ("{\"messages\":[[1]]}", "/messages/0"),
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
