//! How a request is refused: the envelope, its status, and the headers that tell an SDK whether to try again.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use capstan_api::envelope::Envelope;
use capstan_api::error::ErrorSource;
use capstan_api::{ErrorCode, idempotency, limits};
use capstan_core::Refusal;

use crate::engine::Unavailable;

/// Seconds after which an overloaded broker may be asked again.
const RETRY_AFTER_SECONDS: u32 = 1;

/// A refusal on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: ErrorCode,
    pub(super) message: String,
    /// The place in the request's body, as a JSON pointer.
    pub(super) pointer: Option<String>,
    /// The header that is wrong, by its name.
    pub(super) header: Option<String>,
}

impl Refused {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), pointer: None, header: None }
    }

    /// A refusal of one field of the body.
    pub(super) fn at(code: ErrorCode, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), ..Self::new(code, message) }
    }

    /// A refusal of a header.
    pub(super) fn in_header(code: ErrorCode, header: impl Into<String>, message: impl Into<String>) -> Self {
        Self { header: Some(header.into()), ..Self::new(code, message) }
    }

    pub(super) fn queue_not_found(queue: &str) -> Self {
        let message = format!(
            "queue {queue:?} is not declared here; apply a Queue of that name, or look at its conditions"
        );
        Self::new(ErrorCode::QueueNotFound, message)
    }
}

impl From<Unavailable> for Refused {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::Overloaded => Self::new(
                ErrorCode::QueueOverloaded,
                "too much is waiting in the broker; try again after Retry-After",
            ),
            Unavailable::NearlyFull(full) => Self::new(ErrorCode::StorageLimitExceeded, full.to_string()),
            Unavailable::Ended => {
                let message = "the broker is ending; whether the request took effect is unknown: try again";
                Self::new(ErrorCode::ShuttingDown, message)
            }
        }
    }
}

/// What the core's refusal means to the client of `queue`.
pub(super) fn of_core(refusal: Refusal, queue: &str) -> Refused {
    match refusal {
        Refusal::QueueUnknown => Refused::queue_not_found(queue),
        Refusal::QueueRetained => Refused::new(
            ErrorCode::QueueNotFound,
            format!(
                "queue {queue:?} is no longer declared and only keeps its messages; declare it again to use it"
            ),
        ),
        Refusal::DeliveryPaused => Refused::new(ErrorCode::DeliveryPaused, "queue_delivery_paused"),
        Refusal::NoConsumer => Refused::new(
            ErrorCode::PullDisabled,
            format!(
                "messages cannot be pulled unless http_pull mode is enabled: no Consumer names queue {queue:?}; \
                 apply one without targetRef"
            ),
        ),
        Refusal::BeyondQueue => Refused::new(
            ErrorCode::BatchSizeOutOfBounds,
            format!(
                "this is more than limits.maxBytes or limits.maxMessages of queue {queue:?}, which will never have room \
                 for it; send less at once, or raise the limit"
            ),
        ),
        Refusal::QueueBytesFull => Refused::new(
            ErrorCode::StorageLimitExceeded,
            format!("queue {queue:?} holds limits.maxBytes already; consume messages, or raise the limit"),
        ),
        Refusal::QueueMessagesFull => Refused::new(
            ErrorCode::StorageLimitExceeded,
            format!("queue {queue:?} holds limits.maxMessages already; consume messages, or raise the limit"),
        ),
        Refusal::KeyReused => Refused::in_header(
            ErrorCode::IdempotencyKeyReused,
            idempotency::HEADER,
            format!(
                "header {}: queue {queue:?} took another send with this key less than {} minutes ago; repeat a send \
                 unchanged, and give every other send a key of its own",
                idempotency::HEADER,
                limits::IDEMPOTENCY_WINDOW_SECONDS / 60
            ),
        ),
        Refusal::KeysFull => Refused::in_header(
            ErrorCode::IdempotencyKeysFull,
            idempotency::HEADER,
            format!(
                "header {}: queue {queue:?} remembers {} sends with a key already, or the broker {} of all its queues; \
                 try again after Retry-After, send more messages in each batch, or send without a key",
                idempotency::HEADER,
                limits::IDEMPOTENCY_KEYS_MAX,
                limits::IDEMPOTENCY_KEYS_ALL_MAX
            ),
        ),
        // The engine asks this by itself, and answers something else.
        Refusal::NotSent => super::unexpected(),
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retryable = self.code.is_retryable();
        let Self { code, message, pointer, header } = self;
        let source = (pointer.is_some() || header.is_some()).then_some(ErrorSource { pointer, header });
        let mut response = (status, Json(Envelope::failure(code, message, source))).into_response();
        // To be counted.
        response.extensions_mut().insert(code);
        let headers = response.headers_mut();
        if retryable {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        } else if status == StatusCode::CONFLICT {
            // SDKs retry a 409; a paused queue does not change that soon.
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}
