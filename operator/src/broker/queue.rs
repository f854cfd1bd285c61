//! The status of the Queues of a Broker.

mod dead;
pub(super) mod lost;
#[cfg(test)]
mod tests;
mod verdicts;

use std::sync::Arc;

use capstan_api::control::{BrokerState, QueueState};
use capstan_crds::condition::{ACCEPTED, BROKER_RESOLVED, DEAD_LETTER_BLOCKED, DELIVERING, READY, reason};
use capstan_crds::queue::{DeadLetter, Messages, QueueBroker, QueueConsumer, ReplacedStore};
use capstan_crds::{Duration, Key, Queue, QueueStatus, ResolvedQueue};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Resource;
use tracing::warn;

use super::Found;
use super::control::Control;
use super::dereference::Scene;
use crate::api::ApiError;
use crate::condition::{Conditions, find};
use crate::context::Context;
use crate::counts::Counts;
use crate::names::endpoint;
use crate::status;

/// Conditions that are bad news when they hold.
const BAD_WHEN_TRUE: &[&str] = &[DEAD_LETTER_BLOCKED];
/// Statuses of one Broker's Queues that are written at once.
const WRITES_AT_ONCE: usize = 8;

/// Writes the status of every Queue of the Broker whose status differs.
pub(super) async fn write_all(
    context: &Context,
    scene: &Scene,
    found: &Found,
    control: &Control,
) -> Result<(), ApiError> {
    let now = status::now();
    let one = |queue: Arc<Queue>| write_one(context, scene, queue, found, control, &now);
    // A request takes milliseconds, and a Broker may have thousands of Queues.
    let all = stream::iter(scene.queues.iter().map(Arc::clone)).map(Ok);
    all.try_for_each_concurrent(WRITES_AT_ONCE, one).await
}

async fn write_one(
    context: &Context,
    scene: &Scene,
    queue: Arc<Queue>,
    found: &Found,
    control: &Control,
    now: &Time,
) -> Result<(), ApiError> {
    let key = Key::of(queue.meta());
    let Some(resolved) = scene.resolution.queues.get(&key) else { return Ok(()) };
    let old = queue.status.clone().unwrap_or_default();
    let new = status(&queue, resolved, found, control, now);
    match write(context, &queue, &old, new).await {
        // A Queue that is gone needs no status.
        Ok(()) | Err(ApiError::NotFound(_) | ApiError::Stale(_)) => Ok(()),
        // The others still do.
        Err(ApiError::Refused(reason)) => {
            warn!(queue = %key, reason, "status refused");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

async fn write(
    context: &Context,
    queue: &Queue,
    old: &QueueStatus,
    new: QueueStatus,
) -> Result<(), ApiError> {
    if !is_due(context, old, &new) {
        return Ok(());
    }
    status::write(context, queue, &new).await?;
    context.events.changed(&queue.object_ref(&()), &old.conditions, &new.conditions, BAD_WHEN_TRUE);
    if (&old.conditions, &old.consumer) != (&new.conditions, &new.consumer) {
        // Its Consumers show whether the Queue is ready; the watch sees no news in what the world knows already.
        let units = crate::world::units_of_consumers(&context.world.read(), queue);
        units.into_iter().for_each(|unit| context.queue.add(unit));
    }
    Ok(())
}

/// Whether the new status is worth a write now.
fn is_due(context: &Context, old: &QueueStatus, new: &QueueStatus) -> bool {
    let counts = |status: &QueueStatus| Counts {
        messages: status.messages.clone(),
        dead_letter: status.dead_letter.clone(),
    };
    let bare = |status: &QueueStatus| QueueStatus { messages: None, dead_letter: None, ..status.clone() };
    if bare(old) != bare(new) {
        context.count_writes.force_take();
        return true;
    }
    counts(new).is_news(&counts(old)) && context.count_writes.try_take()
}

/// What is to be said of a Queue. Pure.
fn status(
    queue: &Queue,
    resolved: &ResolvedQueue,
    found: &Found,
    control: &Control,
    now: &Time,
) -> QueueStatus {
    let old = queue.status.clone().unwrap_or_default();
    let state = control.state.as_ref();
    let lost = lost::of_queue(queue, state, now);
    let counts = counts(&old, resolved, state, now);
    QueueStatus {
        observed_generation: queue.metadata.generation,
        conditions: conditions(queue, resolved, found, control, lost.as_ref(), now),
        broker: matches!(found, Found::Exists { .. }).then(|| QueueBroker {
            name: resolved.broker.name.clone(),
            namespace: resolved.broker.namespace.clone(),
            incarnation: state
                .map(|state| state.incarnation.clone())
                .or_else(|| old.broker.as_ref().and_then(|broker| broker.incarnation.clone())),
            endpoint: endpoint(&resolved.broker),
        }),
        consumer: resolved
            .claim
            .as_ref()
            .map(|claim| QueueConsumer { name: claim.name.clone(), uid: claim.uid.clone() }),
        messages: counts.messages,
        dead_letter: counts.dead_letter,
        replaced_store: lost,
    }
}

fn conditions(
    queue: &Queue,
    resolved: &ResolvedQueue,
    found: &Found,
    control: &Control,
    lost: Option<&ReplacedStore>,
    now: &Time,
) -> Vec<Condition> {
    let old = queue.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let state = control.state.as_ref();
    let known = state.and_then(|state| find_queue(state, &resolved.key));
    let accepted = verdicts::accepted(resolved);
    let mut broker_resolved = verdicts::broker_resolved(&resolved.broker, found);
    if let Some(lost) = lost.filter(|_| broker_resolved.holds) {
        broker_resolved = verdicts::replaced(&resolved.broker, lost);
    }
    let serving = verdicts::serving(&resolved.broker, found, control);
    let was_full = find(old, READY).is_some_and(|ready| ready.reason == reason::QUEUE_FULL);
    let storage = state.and_then(|state| state.storage.as_ref());
    let room = verdicts::room(&resolved.broker, &queue.spec.limits, known, storage, was_full);
    let missing =
        [&accepted, &broker_resolved, &serving, &room].into_iter().find(|verdict| !verdict.holds).cloned();
    let conditions = Conditions::new(old, queue.metadata.generation, now)
        .set(READY, &missing.unwrap_or_else(|| verdicts::sendable(lost)))
        .set(ACCEPTED, &accepted)
        .set(BROKER_RESOLVED, &broker_resolved)
        .set(DELIVERING, &verdicts::delivering(resolved, &serving));
    match known {
        Some(known) => conditions.set(DEAD_LETTER_BLOCKED, &dead::blocked(resolved, known)),
        // While nobody can be asked, what was said last.
        None => conditions.keep(find(old, DEAD_LETTER_BLOCKED)),
    }
    .finish()
}

/// The counts as the broker knows them; the old ones while it does not answer.
fn counts(old: &QueueStatus, resolved: &ResolvedQueue, state: Option<&BrokerState>, now: &Time) -> Counts {
    let Some(state) = state else {
        return Counts { messages: old.messages.clone(), dead_letter: old.dead_letter.clone() };
    };
    let find = |key: &Key| find_queue(state, key);
    let target = resolved.dead_letter_queue.as_ref();
    Counts {
        messages: find(&resolved.key).map(|queue| messages(queue, now)),
        dead_letter: target.and_then(|key| find(key).map(|queue| dead_letter(key, queue))),
    }
}

fn find_queue<'a>(state: &'a BrokerState, key: &Key) -> Option<&'a QueueState> {
    // They are ordered: looking at each would take the square of their number in all.
    let wanted = (key.namespace.as_str(), key.name.as_str());
    let at = state.queues.binary_search_by_key(&wanted, |q| (q.namespace.as_str(), q.name.as_str()));
    at.ok().map(|at| &state.queues[at])
}

fn messages(queue: &QueueState, now: &Time) -> Messages {
    Messages {
        ready: queue.ready,
        leased: queue.leased,
        delayed: queue.delayed,
        dead: queue.dead,
        bytes: queue.bytes,
        oldest_age: age(queue),
        observed_at: now.clone(),
    }
}

fn dead_letter(key: &Key, queue: &QueueState) -> DeadLetter {
    DeadLetter { queue: key.name.clone(), ready: queue.ready, oldest_age: age(queue) }
}

fn age(queue: &QueueState) -> Option<Duration> {
    queue.oldest_age_ms.map(|millis| Duration::from_seconds(millis / 1000))
}
