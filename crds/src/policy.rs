//! What a broker is told of a Queue and its Consumer.

use capstan_api::Name;
use capstan_api::control::{Backoff, ConsumerPolicy, PushPolicy, QueuePolicy};
use capstan_api::workload::Endpoint;

use crate::queue::Delivery;
use crate::{ConsumerSpec, QueueSpec};

/// The policy of a queue that nobody consumes.
///
/// `uid` is the resource's, empty when there is none. That its messages go with it is added with the declarer.
pub(crate) fn queue(namespace: Name, name: Name, uid: &str, spec: &QueueSpec) -> QueuePolicy {
    QueuePolicy {
        namespace,
        name,
        delivery_paused: spec.delivery == Delivery::Paused,
        delivery_delay_ms: spec.delivery_delay.millis(),
        retention_ms: spec.message_retention.millis(),
        max_message_bytes: spec.limits.max_message_bytes,
        max_bytes: Some(spec.limits.max_bytes.bytes()),
        max_messages: spec.limits.max_messages,
        consumer: None,
        resource: uid.to_owned(),
        purged_by: None,
    }
}

/// The policy of a Consumer.
pub(crate) fn consumer(name: Name, dead_letter_queue: Option<Name>, spec: &ConsumerSpec) -> ConsumerPolicy {
    let backoff = |backoff: &crate::consumer::RetryBackoff| Backoff {
        factor: backoff.factor,
        max_delay_ms: backoff.max_delay.millis(),
    };
    ConsumerPolicy {
        name,
        push: push(spec),
        max_retries: spec.max_retries,
        retry_delay_ms: spec.retry_delay.millis(),
        retry_backoff: spec.retry_backoff.as_ref().map(backoff),
        dead_letter_queue,
        max_concurrency: spec.max_concurrency,
        visibility_timeout_ms: spec.visibility_timeout.millis(),
        paused: spec.paused,
    }
}

fn push(spec: &ConsumerSpec) -> Option<PushPolicy> {
    let target = spec.target_ref.as_ref()?;
    Some(PushPolicy {
        workload: target.workload(),
        endpoint: Endpoint {
            port: spec.endpoint.port,
            path: spec.endpoint.path.clone(),
            timeout_ms: spec.endpoint.timeout.millis(),
        },
        max_batch_size: spec.max_batch_size,
        max_batch_bytes: spec.max_batch_bytes,
        max_wait_ms: spec.max_wait_time.millis(),
        concurrency_per_pod: spec.concurrency_per_pod,
    })
}
