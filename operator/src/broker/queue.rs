//! The status of the Queues of a Broker.

use std::sync::Arc;

use capstan_api::control::{BrokerState, QueueState};
use capstan_crds::condition::{ACCEPTED, BROKER_RESOLVED, DELIVERING, READY, reason};
use capstan_crds::queue::{DeadLetter, Messages, QueueBroker, QueueConsumer};
use capstan_crds::{Duration, Key, Queue, QueueFinding, QueueStatus, ResolvedQueue};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use tracing::warn;

use super::Found;
use super::control::Control;
use super::dereference::Scene;
use crate::api::ApiError;
use crate::condition::{Conditions, Verdict};
use crate::context::Context;
use crate::counts::Counts;
use crate::names::endpoint;
use crate::status;

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
    context.events.changed(&queue.object_ref(&()), &old.conditions, &new.conditions, &[]);
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
    let accepted = accepted(resolved);
    let broker_resolved = broker_resolved(&resolved.broker, found);
    let serving = serving(&resolved.broker, found, control);
    let delivering = delivering(resolved, &serving);
    let ready = [&accepted, &broker_resolved, &serving].into_iter().find(|verdict| !verdict.holds).cloned();
    let ready = ready.unwrap_or_else(|| Verdict::yes(reason::AS_DECLARED, "producers can send to the queue"));
    let conditions = Conditions::new(&old.conditions, queue.metadata.generation, now)
        .set(READY, &ready)
        .set(ACCEPTED, &accepted)
        .set(BROKER_RESOLVED, &broker_resolved)
        .set(DELIVERING, &delivering)
        .finish();
    let state = control.state.as_ref();
    let counts = counts(&old, resolved, state, now);
    QueueStatus {
        observed_generation: queue.metadata.generation,
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
        conditions,
    }
}

fn accepted(resolved: &ResolvedQueue) -> Verdict {
    match &resolved.finding {
        QueueFinding::InvalidName => Verdict::no(
            reason::INVALID_NAME,
            "the name cannot be used on the wire: create a Queue with a name of at most 63 of a-z, 0-9 and '-'",
        ),
        QueueFinding::Accepted | QueueFinding::Missing { .. } => {
            Verdict::yes(reason::ACCEPTED, "the Queue is valid")
        }
    }
}

fn broker_resolved(broker: &Key, found: &Found) -> Verdict {
    let name = &broker.name;
    match found {
        Found::Exists { .. } => Verdict::yes(reason::RESOLVED, format!("stored by Broker {name}")),
        Found::Coming => Verdict::no(reason::PENDING, format!("Broker {name} is being created")),
        Found::Refused(text) => {
            Verdict::no(reason::APPLY_REFUSED, format!("Broker {name} cannot be created: {text}"))
        }
        Found::Ending => Verdict::no(reason::PENDING, format!("Broker {name} is being deleted")),
        Found::Missing => Verdict::no(
            reason::BROKER_NOT_FOUND,
            format!(
                "there is no Broker {name} in this namespace: create it; only the one called default comes by itself"
            ),
        ),
    }
}

/// Whether the broker answers and knows the newest of everything.
fn serving(broker: &Key, found: &Found, control: &Control) -> Verdict {
    let name = &broker.name;
    match (found, control) {
        (Found::Exists { .. }, Control { is_declared: true, problem: None, .. }) => {
            Verdict::yes(reason::SERVING, "")
        }
        (Found::Exists { .. }, Control { state: Some(_), problem, .. }) => {
            let problem = problem.as_deref().unwrap_or("it is told at the next look");
            Verdict::no(
                reason::NOT_DECLARED,
                format!("Broker {name} does not know the newest of its queues: {problem}"),
            )
        }
        _ => Verdict::no(
            reason::BROKER_UNAVAILABLE,
            format!("Broker {name} does not answer: see its conditions"),
        ),
    }
}

fn delivering(resolved: &ResolvedQueue, serving: &Verdict) -> Verdict {
    let consumer = resolved.policy.as_ref().and_then(|policy| policy.consumer.as_ref());
    let is_paused = resolved.policy.as_ref().is_some_and(|policy| policy.delivery_paused);
    match (&resolved.claim, consumer) {
        (None, _) => Verdict::no(reason::NO_CONSUMER, "no Consumer names this queue: messages wait for one"),
        (Some(claim), None) => Verdict::no(
            reason::DEAD_LETTER_QUEUE_ELSEWHERE,
            format!("nothing is delivered before Consumer {} is accepted: see its conditions", claim.name),
        ),
        (Some(_), Some(_)) if is_paused => {
            Verdict::no(reason::PAUSED, "spec.delivery is Paused: set it to Active to deliver")
        }
        (Some(claim), Some(consumer)) if consumer.paused => Verdict::no(
            reason::PAUSED,
            format!("Consumer {} is paused: set its spec.paused to false", claim.name),
        ),
        (Some(_), Some(_)) if !serving.holds => serving.clone(),
        (Some(claim), Some(consumer)) if consumer.push.is_none() => {
            Verdict::yes(reason::PULL, format!("clients pull, by the rules of Consumer {}", claim.name))
        }
        (Some(claim), Some(_)) => Verdict::yes(reason::DELIVERING, format!("to Consumer {}", claim.name)),
    }
}

/// The counts as the broker knows them; the old ones while it does not answer.
fn counts(old: &QueueStatus, resolved: &ResolvedQueue, state: Option<&BrokerState>, now: &Time) -> Counts {
    let Some(state) = state else {
        return Counts { messages: old.messages.clone(), dead_letter: old.dead_letter.clone() };
    };
    // They are ordered: looking at each would take the square of their number in all.
    let find = |key: &Key| {
        let wanted = (key.namespace.as_str(), key.name.as_str());
        let at = state.queues.binary_search_by_key(&wanted, |q| (q.namespace.as_str(), q.name.as_str()));
        at.ok().map(|at| &state.queues[at])
    };
    let target = resolved.dead_letter_queue.as_ref();
    Counts {
        messages: find(&resolved.key).map(|queue| messages(queue, now)),
        dead_letter: target.and_then(|key| find(key).map(|queue| dead_letter(key, queue))),
    }
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

#[cfg(test)]
mod tests {
    use capstan_crds::{Consumer, Object, Resolution, parse, resolve};

    use super::*;
    use crate::condition::find;

    fn objects(yaml: &str) -> (Vec<Queue>, Vec<Consumer>, Resolution) {
        let (mut queues, mut consumers) = (Vec::new(), Vec::new());
        for object in parse(yaml).unwrap() {
            match object {
                Object::Queue(mut queue) => {
                    queue.metadata.generation = Some(7);
                    queues.push(queue.as_ref().clone());
                }
                Object::Consumer(consumer) => consumers.push(consumer.as_ref().clone()),
                other => panic!("not expected here: {other:?}"),
            }
        }
        let resolution = resolve(&queues, &consumers);
        (queues, consumers, resolution)
    }

    const QUEUE: &str = "apiVersion: capstan.dev/v1alpha1\nkind: Queue\nmetadata: {name: orders, namespace: shop}\nspec: {}\n";
    const CONSUMER: &str = "---\napiVersion: capstan.dev/v1alpha1\nkind: Consumer\nmetadata: {name: c, namespace: shop, uid: u}\n\
        spec: {queueRef: {name: orders}, targetRef: {kind: Deployment, name: shop}, deadLetterQueueRef: {name: dead}}\n";

    fn state(revision: &str) -> BrokerState {
        let queue = |name: &str, ready| {
            serde_json::json!({"namespace": "shop", "name": name, "retained": false, "ready": ready, "delayed": 1,
                "leased": 2, "dead": 0, "bytes": 300, "oldest_age_ms": 90_500})
        };
        serde_json::from_value(serde_json::json!({
            "incarnation": "7f3c", "revision": revision, "version": "0.1.0",
            "queues": [queue("dead", 4), queue("orders", 3)],
        }))
        .unwrap()
    }

    fn exists() -> Found {
        Found::Exists { refused: None }
    }

    fn declared() -> Control {
        Control { state: Some(state("r")), is_declared: true, problem: None }
    }

    fn of(yaml: &str, found: &Found, control: &Control) -> QueueStatus {
        let (queues, _, resolution) = objects(yaml);
        let resolved = &resolution.queues[&Key::of(&queues[0].metadata)];
        status(&queues[0], resolved, found, control, &status::now())
    }

    fn reason_of(status: &QueueStatus, type_: &str) -> (String, String) {
        let condition = find(&status.conditions, type_).unwrap();
        assert_eq!(condition.observed_generation, Some(7));
        (condition.status.clone(), condition.reason.clone())
    }

    fn is(status: &str, reason: &str) -> (String, String) {
        (status.to_owned(), reason.to_owned())
    }

    #[test]
    fn a_queue_that_is_served_shows_everything() {
        let status = of(&format!("{QUEUE}{CONSUMER}"), &exists(), &declared());
        assert_eq!(reason_of(&status, READY), is("True", "AsDeclared"));
        assert_eq!(reason_of(&status, DELIVERING), is("True", "Delivering"));
        assert_eq!(status.observed_generation, Some(7));
        assert_eq!(status.consumer.unwrap().uid, "u");
        let broker = status.broker.unwrap();
        assert_eq!(broker.endpoint, "http://capstan-default.shop.svc");
        assert_eq!(broker.incarnation.as_deref(), Some("7f3c"));
        let messages = status.messages.unwrap();
        assert_eq!((messages.ready, messages.delayed, messages.leased, messages.bytes), (3, 1, 2, 300));
        assert_eq!(messages.oldest_age.unwrap().as_str(), "1m30s");
        let dead = status.dead_letter.unwrap();
        assert_eq!((dead.queue.as_str(), dead.ready), ("dead", 4));
    }

    #[test]
    fn a_queue_is_ready_without_a_consumer_but_delivers_nothing() {
        let status = of(QUEUE, &exists(), &declared());
        assert_eq!(reason_of(&status, READY), is("True", "AsDeclared"));
        assert_eq!(reason_of(&status, DELIVERING), is("False", "NoConsumer"));
        assert_eq!((status.consumer, status.dead_letter), (None, None));
    }

    #[test]
    fn a_missing_broker_is_said_to_be_missing_or_coming() {
        let status = of(QUEUE, &Found::Missing, &Control::unasked());
        assert_eq!(reason_of(&status, READY), is("False", "BrokerNotFound"));
        assert_eq!(reason_of(&status, BROKER_RESOLVED), is("False", "BrokerNotFound"));
        assert_eq!((status.broker, status.messages), (None, None));
        for coming in [Found::Coming, Found::Ending] {
            let status = of(QUEUE, &coming, &Control::unasked());
            assert_eq!(reason_of(&status, READY), is("False", "Pending"));
        }
        let status = of(QUEUE, &Found::Refused("quota".into()), &Control::unasked());
        assert_eq!(reason_of(&status, READY), is("False", "ApplyRefused"));
        assert!(find(&status.conditions, READY).unwrap().message.contains("quota"));
    }

    #[test]
    fn a_broker_that_does_not_answer_or_does_not_know_is_told_apart() {
        let yaml = format!("{QUEUE}{CONSUMER}");
        let silent = Control { problem: Some("refused".into()), ..Control::unasked() };
        let status = of(&yaml, &exists(), &silent);
        assert_eq!(reason_of(&status, READY), is("False", "BrokerUnavailable"));
        assert_eq!(reason_of(&status, DELIVERING), is("False", "BrokerUnavailable"));
        let behind =
            Control { state: Some(state("old")), is_declared: false, problem: Some("too many".into()) };
        let status = of(&yaml, &exists(), &behind);
        assert_eq!(reason_of(&status, READY), is("False", "NotDeclared"));
        assert!(find(&status.conditions, READY).unwrap().message.contains("too many"));
    }

    #[test]
    fn what_is_paused_says_who_paused_it() {
        let paused = format!("{}{CONSUMER}", QUEUE.replace("spec: {}", "spec: {delivery: Paused}"));
        let status = of(&paused, &exists(), &declared());
        assert_eq!(reason_of(&status, DELIVERING), is("False", "Paused"));
        let paused = format!("{QUEUE}{}", CONSUMER.replace("spec: {", "spec: {paused: true, "));
        let status = of(&paused, &exists(), &declared());
        assert_eq!(reason_of(&status, DELIVERING), is("False", "Paused"));
        assert!(find(&status.conditions, DELIVERING).unwrap().message.contains("Consumer c"));
    }

    #[test]
    fn a_pull_consumer_is_no_delivery_to_pods() {
        let pull = CONSUMER.replace("targetRef: {kind: Deployment, name: shop}, ", "");
        let status = of(&format!("{QUEUE}{pull}"), &exists(), &declared());
        assert_eq!(reason_of(&status, DELIVERING), is("True", "Pull"));
    }

    #[test]
    fn counts_stay_while_nobody_can_be_asked() {
        let (mut queues, _, resolution) = objects(QUEUE);
        queues[0].status = Some(of(QUEUE, &exists(), &declared()));
        let resolved = &resolution.queues[&Key::of(&queues[0].metadata)];
        let status = status(&queues[0], resolved, &exists(), &Control::unasked(), &status::now());
        assert_eq!(status.messages.unwrap().ready, 3);
        assert_eq!(status.broker.unwrap().incarnation.as_deref(), Some("7f3c"));
    }
}
