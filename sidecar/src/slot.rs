//! One slot of a consumer: pulls a batch, hands it over, settles, begins anew. Its settle and its next pull overlap.

use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_api::message::Pulled;
use capstan_api::workload::WorkloadConsumer;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::breaker::Reach;
use crate::context::Scope;
use crate::deliver::{deliver, not_delivered};
use crate::gate::{Gate, Permit, Refusal};
use crate::lease::Lease;
use crate::pull::Pulls;
use crate::request::{self, Prepared};
use crate::settle::{self, Decided};
use crate::verdict::{Class, Decision};

/// Most slots of one consumer, whatever the policy says.
const SLOTS_MAX: usize = 250;

/// A slot; there are `concurrencyPerPod` of them, numbered from 0.
pub(crate) struct Slot {
    pub(crate) number: usize,
    pub(crate) scope: Arc<Scope>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) policy: watch::Receiver<Arc<WorkloadConsumer>>,
}

/// How many batches a pod handles at once.
pub(crate) fn slots_of(policy: &WorkloadConsumer) -> usize {
    usize::from(policy.concurrency_per_pod).clamp(1, SLOTS_MAX)
}

impl Slot {
    /// Works until the consumer stops, or until it has fewer slots; then gives back the slot's number.
    pub(crate) async fn run(mut self) -> usize {
        // At most one: a slot whose last verdict is still on its way does not pile up another.
        let mut settling = JoinSet::new();
        let mut pulls = Pulls::new();
        while let Some(policy) = self.current() {
            let permit = tokio::select! {
                permit = pulls.permit(&self.scope, &self.gate, &policy) => permit,
                () = self.scope.stop.cancelled() => break,
                () = terms_change(&mut self.policy, &policy, self.number) => continue,
            };
            let stop = async {
                tokio::select! {
                    () = self.scope.stop.cancelled() => {}
                    () = self.scope.context.quiesce.began() => {}
                    () = permit.withdrawn() => {}
                    () = terms_change(&mut self.policy, &policy, self.number) => {}
                }
            };
            let pulling = self.gate.pulling();
            let (pulled, leased_at) = pulls.messages(&self.scope, &policy, permit.is_probe(), stop).await;
            drop(pulling);
            if pulled.messages.is_empty() {
                continue;
            }
            // The endpoint may have changed since the pull began.
            let policy = Arc::clone(&self.policy.borrow());
            let (decided, lease) = self.handle(&policy, pulled, leased_at, permit).await;
            settling.join_next().await;
            if decided.is_empty() {
                continue;
            }
            let (scope, gate) = (Arc::clone(&self.scope), Arc::clone(&self.gate));
            settling.spawn(async move {
                if decided.iter().any(|(_, decision)| *decision == Decision::Release) {
                    gate.quiet().await;
                }
                settle::settle(scope, decided, lease).await;
            });
        }
        settling.join_next().await;
        self.number
    }

    /// The policy of now, unless this slot is to end.
    fn current(&mut self) -> Option<Arc<WorkloadConsumer>> {
        let policy = Arc::clone(&self.policy.borrow_and_update());
        let goes_on = !self.scope.stop.is_cancelled() && self.number < slots_of(&policy);
        goes_on.then_some(policy)
    }

    /// Whether a call may begin now: much may have changed while a pull was on its way.
    fn may_begin(&self, policy: &WorkloadConsumer, permit: &Permit) -> bool {
        let ending = self.scope.stop.is_cancelled() || self.scope.context.quiesce.is_on();
        !ending && !policy.paused && self.number < slots_of(policy) && !permit.is_withdrawn()
    }

    async fn handle(
        &self,
        policy: &WorkloadConsumer,
        pulled: Pulled,
        leased_at: Instant,
        permit: Permit,
    ) -> (Decided, Lease) {
        let visibility = Duration::from_millis(policy.visibility_timeout_ms);
        let timeout = Duration::from_millis(policy.endpoint.timeout_ms);
        let mut lease = Lease::new(leased_at, visibility, Instant::now() + timeout);
        let mut prepared = match request::prepare(self.scope.queue.as_str(), pulled) {
            Ok(prepared) => prepared,
            Err(error) => {
                tracing::error!(queue = %self.scope.queue, %error, "a batch cannot be written down; its leases end by time");
                return (Vec::new(), lease);
            }
        };
        let mut decided = give_up(&self.scope, &mut prepared);
        if !prepared.leased.is_empty() {
            let (leased, verdict) = if self.may_begin(policy, &permit) {
                deliver(&self.scope, policy, prepared, &mut lease).await
            } else {
                not_delivered(&self.scope, prepared)
            };
            match verdict.class {
                Class::Handled | Class::Failed(_) | Class::Malformed(_) => {
                    permit.report(&policy.endpoint, None);
                }
                Class::NotBegun { reason, retry_after } => {
                    let reach = Reach::NotBegun { retry_after };
                    permit.report(&policy.endpoint, Some(Refusal { reason, reach }));
                }
                Class::Ended => drop(permit),
            }
            decided.extend(leased.into_iter().zip(verdict.decisions));
        }
        (decided, lease)
    }
}

/// Messages that no application could read fail without a call.
fn give_up(scope: &Scope, prepared: &mut Prepared) -> Decided {
    let failed = prepared.unreadable.drain(..).map(|(leased, reason)| {
        tracing::error!(queue = %scope.queue, id = leased.id, reason, "a message cannot be handed over");
        (leased, Decision::Retry { delay_seconds: None, reason })
    });
    failed.collect()
}

/// Waits until slot `number` must not go on with a pull it made under `current`. Other changes abandon no pull: they take
/// effect with its batch.
async fn terms_change(
    policy: &mut watch::Receiver<Arc<WorkloadConsumer>>,
    current: &WorkloadConsumer,
    number: usize,
) {
    let asked = terms(current);
    if policy.wait_for(|policy| terms(policy) != asked || number >= slots_of(policy)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What a pull asks for, and of whom.
const fn terms(policy: &WorkloadConsumer) -> (u16, u32, u64, u64, u16, bool) {
    let WorkloadConsumer {
        max_batch_size, max_batch_bytes, max_wait_ms, visibility_timeout_ms, paused, ..
    } = policy;
    (*max_batch_size, *max_batch_bytes, *max_wait_ms, *visibility_timeout_ms, policy.endpoint.port, *paused)
}
