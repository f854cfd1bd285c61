//! An answer with messages: its bytes count as held until the connection has taken them all.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::refused::Refused;
use crate::engine::Held;
use crate::port::Connection;

/// The bytes of an answer, and what they count for.
struct Counted {
    bytes: Vec<u8>,
    _held: Option<Held>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The answer of these bytes, which are JSON; `connection` takes it.
pub(super) fn counted(
    bytes: Vec<u8>,
    held: Option<Held>,
    connection: &Connection,
) -> Result<Response, Refused> {
    if let Some(held) = &held {
        held.sent(connection.0.clone());
    }
    // The connection keeps these bytes, not a copy: what they count for goes with the last of them.
    let body = Body::from(Bytes::from_owner(Counted { bytes, _held: held }));
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], body).into_response())
}

/// An answer that takes long to write: it is written on a thread of its own.
pub(super) async fn written_aside(
    write: impl FnOnce() -> serde_json::Result<Vec<u8>> + Send + 'static,
) -> Result<Response, Refused> {
    let written = tokio::task::spawn_blocking(write).await.map_err(|_| super::unexpected())?;
    let bytes = written.map_err(|error| unwritten(&error))?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response())
}

/// An answer that could not be written.
pub(super) fn unwritten(error: &serde_json::Error) -> Refused {
    tracing::error!(%error, "an answer cannot be written");
    super::unexpected()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;
    use crate::engine::Answers;

    #[tokio::test]
    async fn bytes_count_until_the_last_of_them_is_taken() {
        let answers = Answers::new(100);
        let connection = Connection::default();
        let response = counted(b"text".to_vec(), Some(answers.hold(7)), &connection).unwrap();
        assert_eq!(answers.bytes(), 7);
        let taken = to_bytes(response.into_body(), 1000).await.unwrap();
        assert_eq!(answers.bytes(), 7, "they are in a buffer still");
        assert_eq!(taken, "text");
        drop(taken);
        assert_eq!(answers.bytes(), 0);
    }
}
