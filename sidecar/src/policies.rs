//! Learns from the broker, by long poll, what the workload consumes and how.

use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_api::workload::WorkloadConsumer;
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::context::Context;
use crate::pull::retry_after;

/// How long the broker waits for a change before it answers that there is none.
const WAIT: Duration = Duration::from_secs(30);
/// An answer without a change that comes sooner did not wait, so the next request does.
const UNCHANGED_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Publishes the consumers of the workload until the drain begins. While the broker is away, the last ones stay.
pub(crate) async fn follow(context: Arc<Context>, policies: watch::Sender<Vec<WorkloadConsumer>>) {
    tokio::select! {
        () = poll(&context, &policies) => {}
        () = context.drain.cancelled() => {}
    }
}

async fn poll(context: &Context, policies: &watch::Sender<Vec<WorkloadConsumer>>) {
    let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
    let mut revision = String::new();
    let mut failing = false;
    loop {
        let asked_at = Instant::now();
        let answer =
            context.broker.workload_consumers(&context.namespace, &context.workload, &revision, WAIT);
        let wait = match answer.await {
            Ok(answer) if answer.revision != revision => {
                tracing::info!(workload = %context.workload, consumers = answer.consumers.len(), "configured");
                revision = answer.revision;
                policies.send_replace(answer.consumers);
                None
            }
            Ok(_) => (asked_at.elapsed() < UNCHANGED_MIN).then(|| backoff.wait()),
            Err(error) => {
                context.metrics.count_broker_error("configuration");
                if !failing {
                    tracing::warn!(%error, workload = %context.workload, "the broker does not say what to consume; trying again");
                }
                failing = true;
                tokio::time::sleep(backoff.wait_at_least(retry_after(&error))).await;
                continue;
            }
        };
        failing = false;
        match wait {
            None => backoff.reset(),
            Some(wait) => tokio::time::sleep(wait).await,
        }
    }
}
