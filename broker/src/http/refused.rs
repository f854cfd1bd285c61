//! What refusals of the engine and of the core mean to a client.

use capstan_api::{ErrorCode, idempotency, limits};
use capstan_core::Refusal;
pub(super) use capstan_port::Refused;

use crate::engine::Unavailable;

/// The refusal of a queue that there is not.
pub(super) fn queue_not_found(queue: &str) -> Refused {
    let message = format!(
        "queue {queue:?} is not declared here; apply a Queue of that name, or look at its conditions"
    );
    Refused::new(ErrorCode::QueueNotFound, message)
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
        Refusal::QueueUnknown => queue_not_found(queue),
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
