//! A policy that lets nothing happen by time, for tests of everything else.

use capstan_core::{Consumer, Policy};

/// Of a queue without limits, whose messages are retried so often and then go to `dead_letter`.
pub(crate) fn policy(max_retries: u32, dead_letter: Option<&str>) -> Policy {
    let consumer = Consumer {
        paused: false,
        max_concurrency: None,
        max_retries,
        retry_delay: 0,
        backoff: None,
        dead_letter: dead_letter.map(str::to_owned),
        visibility_timeout: 1_000_000,
    };
    let (max_bytes, max_messages, consumer) = (None, None, Some(consumer));
    let (resource, purged_by) = (String::new(), None);
    let (paused, delivery_delay, retention) = (false, 0, 100_000_000);
    Policy { paused, delivery_delay, retention, max_bytes, max_messages, consumer, resource, purged_by }
}
