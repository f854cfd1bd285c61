//! `--send`: messages that are sent once the broker runs.

use std::collections::BTreeMap;

use capstan_api::limits::BATCH_COUNT_MAX;
use capstan_api::message::{Send, SendBatch};
use serde_json::value::RawValue;

use super::broker::Embedded;
use super::plan::{Plan, listed};
use crate::client::raw_json;
use crate::failure::Failure;

/// A message to send.
#[derive(Debug)]
pub(super) struct Seed {
    queue: String,
    body: Box<RawValue>,
}

/// Checks pairs of queue and body before anything is started.
pub(super) fn check(plan: &Plan, pairs: &[String]) -> Result<Vec<Seed>, Failure> {
    let mut seeds = Vec::new();
    for pair in pairs.chunks(2) {
        let [queue, body] = pair else { continue };
        if plan.queue(queue).is_none() {
            let names: Vec<String> =
                plan.declaration.queues.iter().map(|queue| queue.name.to_string()).collect();
            return Err(Failure::Usage(format!(
                "--send: there is no Queue {queue}; there are {}",
                listed(&names)
            )));
        }
        let body = raw_json(body).map_err(|why| Failure::Usage(format!("--send: {why}")))?;
        seeds.push(Seed { queue: queue.clone(), body });
    }
    Ok(seeds)
}

/// Sends them; those of a queue together.
pub(super) async fn send(plan: &Plan, seeds: Vec<Seed>, broker: &Embedded) -> Result<(), Failure> {
    let mut queues: BTreeMap<String, Vec<Send>> = BTreeMap::new();
    for Seed { queue, body } in seeds {
        let message = Send { body, content_type: None, delay_seconds: None, attributes: None };
        queues.entry(queue).or_default().push(message);
    }
    for (queue, mut messages) in queues {
        let Some(policy) = plan.queue(&queue) else { continue };
        while !messages.is_empty() {
            let rest = messages.split_off(messages.len().min(BATCH_COUNT_MAX));
            let batch = SendBatch { messages: std::mem::replace(&mut messages, rest), delay_seconds: None };
            let sent = broker.client().send_batch(&policy.namespace, &policy.name, &batch).await;
            sent.map_err(|error| Failure::Refused(format!("--send {queue}: {error}")))?;
        }
    }
    Ok(())
}
