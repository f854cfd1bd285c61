//! Every way a request is refused: code, HTTP status, and whether the same request may succeed later.

use serde::{Deserialize, Serialize};

/// The codes of Cloudflare Queues (its `reference/error-codes` page) that a broker answers with, and two of Capstan's own
/// (extension).
///
/// Cloudflare documents no HTTP status for the 102xx codes; Capstan answers 400 to what can never succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// No such path.
    NoRoute,
    /// The path takes other methods.
    MethodNotAllowed,
    /// The resource is managed by `kubectl apply`, not by this API.
    ManagedElsewhere,
    /// The queue is not declared (or, later, not the caller's to see).
    QueueNotFound,
    /// The queue has no such consumer.
    ConsumerNotFound,
    /// The queue id or account id is no [`crate::Name`].
    QueueIdMalformed,
    /// A batch's `delay_seconds` is no delay.
    BatchDelayInvalid,
    /// A message's content type, delay or attributes are none.
    MessageMetadataInvalid,
    /// A message body is larger than the queue's limit.
    MessageSizeOutOfBounds,
    /// The bodies of a batch are larger than its limit together.
    BatchSizeOutOfBounds,
    /// A batch holds no message, or too many.
    BatchCountOutOfBounds,
    /// The body is JSON, but not what this endpoint takes.
    JsonBodyInvalid,
    /// The body is no JSON.
    JsonBodyMalformed,
    /// Too much is waiting in the broker; try again after `Retry-After`.
    QueueOverloaded,
    /// The queue's or the volume's storage limit is reached.
    StorageLimitExceeded,
    /// The idempotency key is that of an earlier send of other content (extension). 422, as the header's draft says, and as
    /// SDKs try a 409 again.
    IdempotencyKeyReused,
    /// Too many sends are remembered by their idempotency keys (extension).
    IdempotencyKeysFull,
    /// The queue's delivery is paused, so nothing can be pulled.
    DeliveryPaused,
    /// The queue's active consumer is not the one that pulls.
    PullDisabled,
    /// The broker is ending; whether the request took effect is unknown.
    ShuttingDown,
    /// Something failed that should not.
    Internal,
    /// The sidecar's gateway holds as much as it may; nothing was stored.
    GatewayFull,
    /// The sidecar's gateway got no answer in time; its message says whether the request may have taken effect.
    BrokerAway,
}

impl ErrorCode {
    /// The number in the envelope.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::PullDisabled => 0,
            Self::NoRoute | Self::MethodNotAllowed => 7003,
            Self::ManagedElsewhere => 10023,
            Self::QueueNotFound => 10104,
            Self::ConsumerNotFound => 11001,
            Self::QueueIdMalformed => 10107,
            Self::BatchDelayInvalid => 10202,
            Self::MessageMetadataInvalid => 10203,
            Self::MessageSizeOutOfBounds => 10204,
            Self::BatchSizeOutOfBounds => 10205,
            Self::BatchCountOutOfBounds => 10206,
            Self::JsonBodyInvalid => 10207,
            Self::JsonBodyMalformed => 10208,
            Self::QueueOverloaded | Self::GatewayFull => 10250,
            Self::StorageLimitExceeded => 10251,
            Self::DeliveryPaused => 10252,
            Self::IdempotencyKeyReused => 10280,
            Self::IdempotencyKeysFull => 10281,
            Self::ShuttingDown | Self::Internal | Self::BrokerAway => 15000,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::NoRoute | Self::QueueNotFound | Self::ConsumerNotFound => 404,
            Self::ManagedElsewhere => 403,
            Self::MethodNotAllowed => 405,
            Self::QueueIdMalformed
            | Self::BatchDelayInvalid
            | Self::MessageMetadataInvalid
            | Self::MessageSizeOutOfBounds
            | Self::BatchSizeOutOfBounds
            | Self::BatchCountOutOfBounds
            | Self::JsonBodyInvalid
            | Self::JsonBodyMalformed
            | Self::PullDisabled => 400,
            Self::DeliveryPaused => 409,
            Self::IdempotencyKeyReused => 422,
            Self::QueueOverloaded | Self::StorageLimitExceeded | Self::IdempotencyKeysFull => 429,
            Self::ShuttingDown | Self::GatewayFull | Self::BrokerAway => 503,
            Self::Internal => 500,
        }
    }

    /// Whether the same request may succeed later without anyone changing it or the queue.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::QueueOverloaded
                | Self::StorageLimitExceeded
                | Self::IdempotencyKeysFull
                | Self::ShuttingDown
                | Self::Internal
                | Self::GatewayFull
                | Self::BrokerAway
        )
    }
}

/// One entry of the envelope's `errors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEntry {
    /// Cloudflare's number; see [`ErrorCode::code`].
    pub code: u32,
    /// What is wrong, with the field and the limit.
    pub message: String,
    /// Where in the request, when it is in the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ErrorSource>,
}

/// The place of an error in the request: in its body, or a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorSource {
    /// A JSON pointer (RFC 6901), such as `/messages/3/delay_seconds`; for a field that is missing, where it belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// A header's name (extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
}

impl ErrorSource {
    /// A place in the body, as a JSON pointer.
    pub fn pointer(pointer: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), header: None }
    }

    /// A header, by its name.
    pub fn header(header: impl Into<String>) -> Self {
        Self { pointer: None, header: Some(header.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_document_says_every_code_and_its_status() {
        use ErrorCode::*;
        let document = include_str!("../../../docs/protocol.md");
        let rows: Vec<Vec<&str>> =
            document.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
        let all = [
            NoRoute,
            MethodNotAllowed,
            ManagedElsewhere,
            QueueNotFound,
            ConsumerNotFound,
            QueueIdMalformed,
            BatchDelayInvalid,
            MessageMetadataInvalid,
            MessageSizeOutOfBounds,
            BatchSizeOutOfBounds,
            BatchCountOutOfBounds,
            JsonBodyInvalid,
            JsonBodyMalformed,
            QueueOverloaded,
            StorageLimitExceeded,
            DeliveryPaused,
            IdempotencyKeyReused,
            IdempotencyKeysFull,
            PullDisabled,
            ShuttingDown,
            Internal,
            GatewayFull,
            BrokerAway,
        ];
        for code in all {
            let number = code.code().to_string();
            let row = rows.iter().find(|row| row.len() > 3 && row[1].split(' ').next() == Some(&*number));
            let row = row.unwrap_or_else(|| panic!("docs/protocol.md has no row for {code:?} ({number})"));
            assert!(
                row[2].split(", ").any(|status| status == code.status().to_string()),
                "{code:?}: {row:?}"
            );
            let says_retry = row[3].contains("`Retry-After`");
            assert_eq!(says_retry, code.is_retryable(), "{code:?}: {row:?}");
        }
    }
}
