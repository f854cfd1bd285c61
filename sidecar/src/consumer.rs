//! One consumer: keeps as many slots running as its policy says.

use std::collections::BTreeSet;
use std::sync::Arc;

use capstan_api::workload::WorkloadConsumer;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::context::{Context, Scope};
use crate::gate::Gate;
use crate::slot::{Slot, slots_of};

/// A running consumer, as the supervisor holds it.
#[derive(Debug)]
pub(crate) struct Consumer {
    policy: watch::Sender<Arc<WorkloadConsumer>>,
    scope: Arc<Scope>,
    gate: Arc<Gate>,
}

impl Consumer {
    pub(crate) fn new(context: Arc<Context>, policy: WorkloadConsumer) -> Self {
        let scope = Arc::new(Scope::new(context, &policy));
        let gate = Arc::new(Gate::new(Arc::clone(&scope)));
        Self { policy: watch::Sender::new(Arc::new(policy)), scope, gate }
    }

    /// Takes a policy; an equal one changes nothing.
    pub(crate) fn set(&self, policy: WorkloadConsumer) {
        let mut moved = false;
        let changed = self.policy.send_if_modified(|current| {
            moved = current.endpoint != policy.endpoint;
            let changed = **current != policy;
            if changed {
                *current = Arc::new(policy);
            }
            changed
        });
        if changed {
            tracing::info!(queue = %self.scope.queue, consumer = %self.scope.consumer, "policy changed");
        }
        if moved {
            self.gate.reset();
        }
    }

    /// Looks whether the application listens before the next pull, as at the start.
    pub(crate) fn begin_anew(&self) {
        self.gate.reset();
    }

    /// Pulls no more. Calls that are open go on to their end.
    pub(crate) fn stop(&self) {
        self.scope.stop.cancel();
    }

    /// Runs the slots until all have ended after a stop.
    pub(crate) fn run(&self) -> impl Future<Output = ()> + Send + use<> {
        run(Arc::clone(&self.scope), Arc::clone(&self.gate), self.policy.subscribe())
    }
}

async fn run(scope: Arc<Scope>, gate: Arc<Gate>, mut policy: watch::Receiver<Arc<WorkloadConsumer>>) {
    let mut slots = JoinSet::new();
    let mut running = BTreeSet::new();
    let watched = Arc::clone(&gate);
    let mut watching = std::pin::pin!(watched.watch(policy.clone()));
    tracing::info!(queue = %scope.queue, consumer = %scope.consumer, "consuming");
    while !scope.stop.is_cancelled() {
        let wanted = slots_of(&policy.borrow_and_update());
        for number in (0..wanted).filter(|number| running.insert(*number)) {
            let (scope, gate, policy) = (Arc::clone(&scope), Arc::clone(&gate), policy.clone());
            slots.spawn(Slot { number, scope, gate, policy }.run());
        }
        tokio::select! {
            () = scope.stop.cancelled() => break,
            () = &mut watching => {}
            Ok(()) = policy.changed() => {}
            Some(ended) = slots.join_next() => {
                if let Ok(number) = ended {
                    running.remove(&number);
                }
            }
        }
    }
    while slots.join_next().await.is_some() {}
    tracing::info!(queue = %scope.queue, consumer = %scope.consumer, "no longer consuming");
}
