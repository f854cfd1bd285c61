//! Keeps one consumer running for each queue that the workload consumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use capstan_api::Name;
use capstan_api::workload::{REPORT_CONSUMERS_MAX as CONSUMERS_MAX, WorkloadConsumer};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::consumer::Consumer;
use crate::context::Context;

/// What tells consumers apart: namespace, queue, and the Consumer's name.
type Key = (Name, Name, Name);

/// Follows `policies` until the drain has begun and every consumer has ended.
pub(crate) async fn run(context: Arc<Context>, mut policies: watch::Receiver<Vec<WorkloadConsumer>>) {
    let mut quiesce = context.quiesce.changes();
    let mut consumers: BTreeMap<Key, Consumer> = BTreeMap::new();
    let mut running: JoinSet<Key> = JoinSet::new();
    loop {
        tokio::select! {
            () = context.drain.cancelled() => break,
            Ok(()) = policies.changed() => {
                let wanted = policies.borrow_and_update().clone();
                follow(&context, wanted, &mut consumers, &mut running);
            }
            Ok(()) = quiesce.changed() => {
                // Of the application that comes after this one, nothing is known.
                if quiesce.borrow_and_update().is_some() {
                    consumers.values().for_each(Consumer::begin_anew);
                }
            }
            Some(Ok((namespace, queue, name))) = running.join_next() => {
                let labels = [namespace.as_str(), queue.as_str()];
                if !consumers.contains_key(&(namespace.clone(), queue.clone(), name.clone())) {
                    context.reach.forget(&queue, &name);
                }
                // A queue that went to another Consumer has its series still.
                if !consumers.keys().any(|key| key.0 == namespace && key.1 == queue) {
                    context.metrics.forget(labels);
                }
                tracing::debug!(%queue, consumer = %name, "consumer ended");
            }
        }
    }
    consumers.values().for_each(Consumer::stop);
    while running.join_next().await.is_some() {}
}

fn follow(
    context: &Arc<Context>,
    wanted: Vec<WorkloadConsumer>,
    consumers: &mut BTreeMap<Key, Consumer>,
    running: &mut JoinSet<Key>,
) {
    if wanted.len() > CONSUMERS_MAX {
        tracing::error!(
            consumers = wanted.len(),
            "a pod consumes at most {CONSUMERS_MAX} queues; the others are left out"
        );
    }
    let wanted: BTreeMap<Key, WorkloadConsumer> =
        wanted.into_iter().take(CONSUMERS_MAX).map(|policy| (key(&policy), policy)).collect();
    consumers.retain(|key, consumer| {
        let stays = wanted.contains_key(key);
        if !stays {
            consumer.stop();
        }
        stays
    });
    for (key, policy) in wanted {
        match consumers.get(&key) {
            Some(consumer) => consumer.set(policy),
            None => {
                let consumer = Consumer::new(Arc::clone(context), policy);
                let (run, ended) = (consumer.run(), key.clone());
                running.spawn(async move {
                    run.await;
                    ended
                });
                consumers.insert(key, consumer);
            }
        }
    }
}

fn key(policy: &WorkloadConsumer) -> Key {
    (policy.namespace.clone(), policy.queue.clone(), policy.name.clone())
}
