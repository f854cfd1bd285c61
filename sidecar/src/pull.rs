//! Leases one batch: waits for a permit, asks the broker, backs off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_api::ClientError;
use capstan_api::message::{Pull, PulledMessage};
use capstan_api::number::Whole;
use capstan_api::workload::WorkloadConsumer;

use crate::backoff::Backoff;
use crate::context::{Context, Scope};
use crate::gate::{Gate, Permit};

/// How long the broker waits for a first ready message before it answers with none.
const IDLE: Duration = Duration::from_secs(30);
/// An empty answer that comes sooner did not wait, so the next pull does.
const EMPTY_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What a slot got.
#[derive(Debug)]
pub(crate) struct Batch {
    /// At least one.
    pub(crate) messages: Vec<PulledMessage>,
    /// When they arrived; the leases began a little earlier.
    pub(crate) leased_at: Instant,
    pub(crate) permit: Permit,
}

/// The backoff of one slot's pulls.
pub(crate) const fn backoff() -> Backoff {
    Backoff::new(BACKOFF_MIN, BACKOFF_MAX)
}

/// Pulls until there is a batch. Dropping this abandons the pull; then the broker leases nothing.
pub(crate) async fn batch(
    scope: &Arc<Scope>,
    gate: &Arc<Gate>,
    policy: &WorkloadConsumer,
    backoff: &mut Backoff,
) -> Batch {
    if policy.paused {
        return std::future::pending().await;
    }
    let Context { broker, quiesce, .. } = &*scope.context;
    loop {
        quiesce.over().await;
        let permit = gate.permit(&policy.endpoint).await;
        let pull = request(policy, permit.is_probe());
        let asked_at = Instant::now();
        let answer = tokio::select! {
            // A batch that is there is taken first: nobody else would settle it.
            biased;
            answer = broker.pull(&scope.namespace, &scope.queue, &pull) => answer,
            () = quiesce.began() => continue,
            () = permit.withdrawn() => continue,
        };
        let wait = match answer {
            Ok(pulled) if !pulled.messages.is_empty() => {
                backoff.reset();
                let leased_at = Instant::now();
                return Batch { messages: pulled.messages, leased_at, permit };
            }
            Ok(_) if asked_at.elapsed() >= EMPTY_MIN => {
                backoff.reset();
                Duration::ZERO
            }
            Ok(_) => backoff.wait(),
            Err(error) => {
                report(scope, &error);
                backoff.wait_at_least(retry_after(&error))
            }
        };
        drop(permit);
        tokio::time::sleep(wait).await;
    }
}

fn request(policy: &WorkloadConsumer, probe: bool) -> Pull {
    let (size, gather) = if probe { (1, 0) } else { (u64::from(policy.max_batch_size), policy.max_wait_ms) };
    Pull {
        batch_size: Some(Whole(size)),
        visibility_timeout_ms: Some(Whole(policy.visibility_timeout_ms)),
        visibility_timeout: None,
        wait_ms: Some(Whole(gather)),
        idle_ms: Some(Whole(u64::try_from(IDLE.as_millis()).unwrap_or(u64::MAX))),
        batch_bytes: Some(Whole(u64::from(policy.max_batch_bytes))),
    }
}

pub(crate) const fn retry_after(error: &ClientError) -> Option<Duration> {
    match error {
        ClientError::Refused { retry_after, .. } => *retry_after,
        _ => None,
    }
}

fn report(scope: &Scope, error: &ClientError) {
    scope.context.metrics.count_broker_error("pull");
    if scope.may_warn() {
        tracing::warn!(queue = %scope.queue, %error, "nothing can be pulled; trying again");
    }
}
