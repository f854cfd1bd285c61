//! Learns from the broker, by long poll, what the workload consumes and how.

use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_api::workload::WorkloadConsumer;
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::context::Context;
use crate::memory;
use crate::metrics::Request;
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
    let (mut failing, mut same_broker) = (false, true);
    loop {
        let asked_at = Instant::now();
        // Of one that may have started anew it is first of interest that it is there.
        let wait = if same_broker { WAIT } else { Duration::ZERO };
        let answer =
            context.broker.workload_consumers(&context.namespace, &context.workload, &revision, wait);
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(error) => {
                context.metrics.count_broker_error(Request::Configuration);
                if !failing {
                    tracing::warn!(%error, workload = %context.workload, "the broker does not say what to consume; trying again");
                }
                (failing, same_broker) = (true, false);
                tokio::time::sleep(backoff.wait_at_least(retry_after(&error))).await;
                continue;
            }
        };
        failing = false;
        let is_back = !std::mem::replace(&mut same_broker, true);
        if is_back {
            context.reach.say_again();
        }
        if answer.revision != revision {
            tracing::info!(workload = %context.workload, consumers = answer.consumers.len(), "configured");
            revision = answer.revision;
            memory::check(&answer.consumers, context.metrics.gateway_bytes());
            policies.send_replace(answer.consumers);
            backoff.reset();
        } else if asked_at.elapsed() >= UNCHANGED_MIN {
            backoff.reset();
        } else if !is_back {
            // As a broker does that ends.
            same_broker = false;
            tokio::time::sleep(backoff.wait()).await;
        }
    }
}
