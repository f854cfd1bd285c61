//! Leases one batch: waits for a permit, asks the broker, backs off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_api::ClientError;
use capstan_api::message::{Pull, Pulled};
use capstan_api::number::Whole;
use capstan_api::workload::WorkloadConsumer;

use crate::backoff::Backoff;
use crate::context::Scope;
use crate::gate::{Gate, Permit};
use crate::metrics::Request;

/// How long the broker waits for a first ready message before it answers with none.
const IDLE: Duration = Duration::from_secs(30);
/// An empty answer that comes sooner did not wait, so the next pull does.
const EMPTY_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The pulls of one slot.
#[derive(Debug)]
pub(crate) struct Pulls {
    backoff: Backoff,
    /// How long the next one waits.
    wait: Duration,
}

impl Pulls {
    pub(crate) const fn new() -> Self {
        Self { backoff: Backoff::new(BACKOFF_MIN, BACKOFF_MAX), wait: Duration::ZERO }
    }

    /// Waits until the slot may pull. Nothing is asked of the broker yet.
    pub(crate) async fn permit(
        &mut self,
        scope: &Scope,
        gate: &Arc<Gate>,
        policy: &WorkloadConsumer,
    ) -> Permit {
        if policy.paused {
            return std::future::pending().await;
        }
        self.pause().await;
        scope.context.quiesce.over().await;
        gate.permit(&policy.endpoint).await
    }

    /// Waits as long as the last pull asks for, at most [`BACKOFF_MAX`].
    async fn pause(&mut self) {
        // Even a sleep of no time would last until the timer's next millisecond, between any two batches.
        if !self.wait.is_zero() {
            tokio::time::sleep(self.wait).await;
            self.wait = Duration::ZERO;
        }
    }

    /// Pulls once; what it got, if it got something, and when its leases began. After `stop` that comes at once. Dropping this would lose
    /// what the broker leases in that moment.
    pub(crate) async fn messages(
        &mut self,
        scope: &Scope,
        policy: &WorkloadConsumer,
        probe: bool,
        stop: impl Future<Output = ()>,
    ) -> (Pulled, Instant) {
        let (pull, asked_at) = (request(policy, probe), Instant::now());
        let mut stopped = false;
        let stop = async {
            stop.await;
            stopped = true;
        };
        let answer = scope.context.broker.pull_until(&scope.namespace, &scope.queue, &pull, stop).await;
        match answer {
            Ok((pulled, leased_at)) if !pulled.messages.is_empty() => {
                self.backoff.reset();
                return (pulled, leased_at);
            }
            Ok(_) if stopped => {}
            Ok(_) if asked_at.elapsed() >= EMPTY_MIN => self.backoff.reset(),
            Ok(_) => self.wait = self.backoff.wait(),
            Err(error) => {
                report(scope, &error);
                self.wait = self.backoff.wait_at_least(retry_after(&error));
            }
        }
        (Pulled::default(), asked_at)
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
    scope.context.metrics.count_broker_error(Request::Pull);
    if scope.may_warn() {
        tracing::warn!(queue = %scope.queue, %error, "nothing can be pulled; trying again");
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn only_a_pull_that_got_nothing_too_soon_holds_up_the_next() {
        let mut pulls = Pulls::new();
        let is_over = |pulls: &mut Pulls| {
            let pause = std::pin::pin!(pulls.pause());
            pause.poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        assert!(is_over(&mut pulls), "nothing is waited for, not even a tick of the timer");
        pulls.wait = Duration::from_secs(60);
        assert!(!is_over(&mut pulls));
        assert_eq!(pulls.wait, Duration::from_secs(60), "a pause that was given up begins anew");
    }
}
