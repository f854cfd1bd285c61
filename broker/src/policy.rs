//! From the declared policy to what the core works with, and the bounds a declaration must keep.

use capstan_api::control::{ConsumerPolicy, Declaration, PushPolicy, QueuePolicy};
use capstan_api::limits;
use capstan_core as core;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 86_400_000;
/// Of a revision, a declarer and the mark of a resource.
const MARK_BYTES_MAX: usize = 128;
const ENDPOINT_PATH_BYTES_MAX: usize = 1024;

/// A policy that is out of bounds, or a declaration that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub(crate) struct InvalidPolicy {
    /// Where, as a JSON path.
    pub(crate) field: String,
    /// What is wrong, with the bound.
    pub(crate) problem: String,
}

impl InvalidPolicy {
    /// The field as a JSON pointer: `queues[3].consumer.name` is `/queues/3/consumer/name`.
    pub(crate) fn pointer(&self) -> String {
        format!("/{}", self.field.replace('[', "/").replace(']', "").replace('.', "/"))
    }
}

/// The name by which the core knows a queue.
#[must_use]
pub(crate) fn label(namespace: &str, queue: &str) -> String {
    format!("{namespace}/{queue}")
}

/// Checks a declaration and translates it.
///
/// # Errors
/// [`InvalidPolicy`] for the first field that is wrong.
pub(crate) fn declaration(declaration: &Declaration) -> Result<core::Declaration, InvalidPolicy> {
    let wrong = |field: String, problem: &str| Err(InvalidPolicy { field, problem: problem.to_owned() });
    mark("revision", &declaration.revision)?;
    mark("declarer", &declaration.declarer)?;
    if declaration.queues.len() > limits::QUEUES_MAX {
        return wrong("queues".to_owned(), "holds more than 10000 queues");
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut queues = Vec::with_capacity(declaration.queues.len());
    for (index, policy) in declaration.queues.iter().enumerate() {
        check(policy).map_err(|e| InvalidPolicy { field: format!("queues[{index}].{}", e.field), ..e })?;
        let label = label(policy.namespace.as_str(), policy.name.as_str());
        if !seen.insert(label.clone()) {
            return wrong(format!("queues[{index}]"), "is declared twice");
        }
        let document = serde_json::to_vec(policy)
            .map_err(|e| InvalidPolicy { field: format!("queues[{index}]"), problem: e.to_string() })?;
        queues.push(core::DeclaredQueue { label, policy: translate(policy), document });
    }
    let (revision, declarer) = (declaration.revision.clone(), declaration.declarer.clone());
    Ok(core::Declaration { revision, declarer, queues })
}

/// Reads a policy as it was declared.
#[must_use]
pub(crate) fn read_document(document: &[u8]) -> Option<QueuePolicy> {
    serde_json::from_slice(document).ok()
}

/// The core's view of a declared policy.
#[must_use]
pub(crate) fn translate(policy: &QueuePolicy) -> core::Policy {
    core::Policy {
        paused: policy.delivery_paused,
        delivery_delay: policy.delivery_delay_ms,
        retention: policy.retention_ms,
        max_bytes: policy.max_bytes,
        max_messages: policy.max_messages,
        consumer: policy.consumer.as_ref().map(|consumer| translate_consumer(policy, consumer)),
        resource: policy.resource.clone(),
        purged_by: policy.purged_by.clone(),
    }
}

fn translate_consumer(policy: &QueuePolicy, consumer: &ConsumerPolicy) -> core::Consumer {
    let backoff =
        consumer.retry_backoff.map(|b| core::Backoff { factor: b.factor, max_delay: b.max_delay_ms });
    let dead_letter =
        consumer.dead_letter_queue.as_ref().map(|name| label(policy.namespace.as_str(), name.as_str()));
    core::Consumer {
        paused: consumer.paused,
        max_concurrency: consumer.max_concurrency.map(u32::from),
        max_retries: consumer.max_retries,
        retry_delay: consumer.retry_delay_ms,
        backoff,
        dead_letter,
        visibility_timeout: consumer.visibility_timeout_ms,
    }
}

fn check(policy: &QueuePolicy) -> Result<(), InvalidPolicy> {
    within("delivery_delay_ms", policy.delivery_delay_ms, 0, DAY_MS)?;
    within("retention_ms", policy.retention_ms, MINUTE_MS, 14 * DAY_MS)?;
    within("max_message_bytes", policy.max_message_bytes.into(), 1, limits::MESSAGE_BYTES_MAX.into())?;
    mark("resource", &policy.resource)?;
    mark("purged_by", policy.purged_by.as_deref().unwrap_or_default())?;
    let Some(consumer) = &policy.consumer else {
        return Ok(());
    };
    within("consumer.max_retries", consumer.max_retries.into(), 0, limits::RETRIES_MAX.into())?;
    within("consumer.retry_delay_ms", consumer.retry_delay_ms, 0, DAY_MS)?;
    within(
        "consumer.visibility_timeout_ms",
        consumer.visibility_timeout_ms,
        1_000,
        limits::VISIBILITY_TIMEOUT_MS_MAX,
    )?;
    if let Some(most) = consumer.max_concurrency {
        within("consumer.max_concurrency", most.into(), 1, limits::CONCURRENCY_MAX)?;
    }
    if let Some(backoff) = consumer.retry_backoff {
        within("consumer.retry_backoff.factor", backoff.factor.into(), 1, 10)?;
        within("consumer.retry_backoff.max_delay_ms", backoff.max_delay_ms, 0, DAY_MS)?;
    }
    if consumer.dead_letter_queue.as_ref() == Some(&policy.name) {
        let problem = "names the queue itself; name another queue".to_owned();
        return Err(InvalidPolicy { field: "consumer.dead_letter_queue".to_owned(), problem });
    }
    let Some(push) = &consumer.push else { return Ok(()) };
    check_push(push)
}

fn check_push(push: &PushPolicy) -> Result<(), InvalidPolicy> {
    let endpoint = &push.endpoint;
    within("consumer.push.endpoint.port", endpoint.port.into(), 1, u16::MAX.into())?;
    if !endpoint.path.starts_with('/') || endpoint.path.len() > ENDPOINT_PATH_BYTES_MAX {
        let problem = format!("must begin with '/' and be at most {ENDPOINT_PATH_BYTES_MAX} bytes long");
        return Err(InvalidPolicy { field: "consumer.push.endpoint.path".to_owned(), problem });
    }
    let longest = limits::VISIBILITY_TIMEOUT_MS_MAX;
    within("consumer.push.endpoint.timeout_ms", endpoint.timeout_ms, 1, longest)?;
    within("consumer.push.max_batch_bytes", push.max_batch_bytes.into(), 1, limits::PULL_BYTES_MAX)?;
    within("consumer.push.max_batch_size", push.max_batch_size.into(), 1, limits::BATCH_COUNT_MAX as u64)?;
    within("consumer.push.max_wait_ms", push.max_wait_ms, 0, limits::WAIT_MS_MAX)?;
    within("consumer.push.concurrency_per_pod", push.concurrency_per_pod.into(), 1, limits::CONCURRENCY_MAX)
}

fn mark(field: &str, text: &str) -> Result<(), InvalidPolicy> {
    if text.len() <= MARK_BYTES_MAX {
        return Ok(());
    }
    Err(InvalidPolicy { field: field.to_owned(), problem: format!("is longer than {MARK_BYTES_MAX} bytes") })
}

fn within(field: &str, value: u64, least: u64, most: u64) -> Result<(), InvalidPolicy> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(InvalidPolicy {
        field: field.to_owned(),
        problem: format!("is {value}, but must be {least} to {most}"),
    })
}
