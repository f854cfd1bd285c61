//! The status of a Broker.

use capstan_api::control::{BrokerState, QueueState, StorageState};
use capstan_crds::broker::{Queues, RetainedQueue, StorageStatus};
use capstan_crds::condition::{AVAILABLE, READY, reason};
use capstan_crds::{Broker, BrokerStatus, ByteSize, Key};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;

use super::Found;
use super::control::Control;
use crate::api::ApiError;
use crate::condition::{Conditions, Verdict};
use crate::context::Context;
use crate::names::{endpoint, names};
use crate::status;

/// Retained queues that are listed.
const RETAINED_MAX: usize = 50;
/// The use of the volume is written when it moved by this part of the volume.
const USE_STEP: u64 = 100;

/// Writes the status when it differs.
pub(super) async fn write(
    context: &Context,
    broker: &Broker,
    found: &Found,
    control: &Control,
) -> Result<(), ApiError> {
    let old = broker.status.clone().unwrap_or_default();
    let new = status(broker, &old, found, control, &status::now());
    if new == old {
        return Ok(());
    }
    status::write(context, broker, &new).await?;
    context.events.changed(&broker.object_ref(&()), &old.conditions, &new.conditions, &[]);
    Ok(())
}

/// What is to be said of a Broker. Pure.
fn status(broker: &Broker, old: &BrokerStatus, found: &Found, control: &Control, now: &Time) -> BrokerStatus {
    let key = Key::of(&broker.metadata);
    let state = control.state.as_ref();
    let available = available(&key, control);
    let ready = ready(found, control, &available);
    let conditions = Conditions::new(&old.conditions, broker.metadata.generation, now)
        .set(READY, &ready)
        .set(AVAILABLE, &available)
        .finish();
    BrokerStatus {
        observed_generation: broker.metadata.generation,
        endpoint: Some(endpoint(&key)),
        // While it does not answer, what it said last.
        version: state.map(|state| state.version.clone()).or_else(|| old.version.clone()),
        incarnation: state.map(|state| state.incarnation.clone()).or_else(|| old.incarnation.clone()),
        storage: state.map_or(old.storage.clone(), |state| storage(old.storage.as_ref(), state.storage)),
        queues: state.map(queues).or_else(|| old.queues.clone()),
        retained_queues: state.map_or_else(|| old.retained_queues.clone(), |state| retained(&key, state)),
        conditions,
    }
}

fn available(key: &Key, control: &Control) -> Verdict {
    if control.state.is_some() {
        return Verdict::yes(reason::SERVING, "");
    }
    let pod = format!("{}-0", names(&key.name).stateful_set);
    let problem = control.problem.as_deref().unwrap_or("not asked yet");
    Verdict::no(
        reason::NOT_SERVING,
        format!("pod {pod} does not answer; see kubectl describe pod {pod}: {problem}"),
    )
}

fn ready(found: &Found, control: &Control, available: &Verdict) -> Verdict {
    match (found, control) {
        (Found::Exists { refused: Some(text) }, _) => Verdict::no(reason::APPLY_REFUSED, text),
        _ if !available.holds => available.clone(),
        (_, Control { problem: Some(problem), .. }) => Verdict::no(reason::NOT_DECLARED, problem),
        (_, Control { is_declared: false, .. }) => {
            Verdict::no(reason::NOT_DECLARED, "the broker is told of its queues at the next look")
        }
        _ => Verdict::yes(reason::AS_DECLARED, "it serves, and knows its queues"),
    }
}

/// The use of a volume changes all the time; small changes are not worth a write.
fn storage(old: Option<&StorageStatus>, state: Option<StorageState>) -> Option<StorageStatus> {
    let state = state?;
    let used = state.capacity_bytes.saturating_sub(state.available_bytes);
    let capacity = ByteSize::rounded(state.capacity_bytes);
    let step = (state.capacity_bytes / USE_STEP).max(1);
    let is_same = |old: &&StorageStatus| old.capacity == capacity && old.used.bytes().abs_diff(used) < step;
    if let Some(old) = old.filter(is_same) {
        return Some(old.clone());
    }
    Some(StorageStatus { capacity, used: ByteSize::rounded(used) })
}

fn queues(state: &BrokerState) -> Queues {
    let retained = state.queues.iter().filter(|queue| is_shown(queue)).count();
    let active = state.queues.iter().filter(|queue| !queue.retained).count();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Queues { active: count(active), retained: count(retained) }
}

fn retained(key: &Key, state: &BrokerState) -> Vec<RetainedQueue> {
    let queues = state.queues.iter().filter(|q| is_shown(q) && q.namespace.as_str() == key.namespace);
    let listed = queues.take(RETAINED_MAX).map(|queue| RetainedQueue {
        name: queue.name.as_str().to_owned(),
        messages: messages(queue),
        bytes: queue.bytes,
    });
    listed.collect()
}

/// Whether a queue is retained for anyone to see: one without messages is kept a while for its idempotency keys alone.
fn is_shown(queue: &QueueState) -> bool {
    queue.retained && messages(queue) > 0
}

fn messages(queue: &QueueState) -> u64 {
    queue.ready + queue.delayed + queue.leased + queue.dead
}

#[cfg(test)]
mod tests {
    use super::super::build::tests::broker;
    use super::*;
    use crate::condition::find;

    fn state(queues: usize, retained: usize, available: u64) -> BrokerState {
        let queue = |i: usize| {
            serde_json::json!({"namespace": "shop", "name": format!("q{i:03}"), "retained": i < retained, "ready": 1,
                "delayed": 2, "leased": 3, "dead": 4, "bytes": 5})
        };
        let queues: Vec<_> = (0..queues).map(queue).collect();
        serde_json::from_value(serde_json::json!({
            "incarnation": "7f3c", "revision": "r", "version": "0.1.0", "queues": queues,
            "storage": {"capacity_bytes": 10_u64 << 30, "available_bytes": available},
        }))
        .unwrap()
    }

    fn of(old: &BrokerStatus, found: &Found, control: &Control) -> BrokerStatus {
        status(&broker("{}"), old, found, control, &status::now())
    }

    fn exists() -> Found {
        Found::Exists { refused: None }
    }

    fn reason_of<'a>(status: &'a BrokerStatus, type_: &str) -> (&'a str, &'a str) {
        let condition = find(&status.conditions, type_).unwrap();
        (&condition.status, &condition.reason)
    }

    #[test]
    fn a_broker_that_serves_shows_what_it_has() {
        let control = Control { state: Some(state(3, 1, 9 << 30)), is_declared: true, problem: None };
        let status = of(&BrokerStatus::default(), &exists(), &control);
        assert_eq!(reason_of(&status, READY), ("True", "AsDeclared"));
        assert_eq!(reason_of(&status, AVAILABLE), ("True", "Serving"));
        assert_eq!(status.endpoint.as_deref(), Some("http://capstan-main.shop.svc"));
        assert_eq!(status.queues, Some(Queues { active: 2, retained: 1 }));
        assert_eq!(status.retained_queues, [RetainedQueue { name: "q000".into(), messages: 10, bytes: 5 }]);
        let storage = status.storage.unwrap();
        assert_eq!((storage.capacity.as_str(), storage.used.as_str()), ("10Gi", "1Gi"));
    }

    #[test]
    fn at_most_fifty_retained_queues_are_listed() {
        let control = Control { state: Some(state(60, 60, 0)), is_declared: true, problem: None };
        let status = of(&BrokerStatus::default(), &exists(), &control);
        assert_eq!((status.retained_queues.len(), status.queues.unwrap().retained), (50, 60));
    }

    #[test]
    fn a_retained_queue_without_messages_is_not_shown() {
        let mut said = state(3, 2, 0);
        let empty = &mut said.queues[0];
        (empty.ready, empty.delayed, empty.leased, empty.dead) = (0, 0, 0, 0);
        let control = Control { state: Some(said), is_declared: true, problem: None };
        let status = of(&BrokerStatus::default(), &exists(), &control);
        assert_eq!(status.queues, Some(Queues { active: 1, retained: 1 }));
        let names: Vec<_> = status.retained_queues.into_iter().map(|queue| queue.name).collect();
        assert_eq!(names, ["q001"]);
    }

    #[test]
    fn a_broker_that_does_not_answer_keeps_what_it_said_last() {
        let control = Control { state: Some(state(3, 1, 9 << 30)), is_declared: true, problem: None };
        let known = of(&BrokerStatus::default(), &exists(), &control);
        let silent = Control { problem: Some("connection refused".into()), ..Control::unasked() };
        let status = of(&known, &exists(), &silent);
        assert_eq!(reason_of(&status, READY), ("False", "NotServing"));
        assert!(find(&status.conditions, READY).unwrap().message.contains("capstan-main-0"));
        assert_eq!((&status.storage, &status.retained_queues), (&known.storage, &known.retained_queues));
        assert_eq!(status.incarnation.as_deref(), Some("7f3c"));
    }

    #[test]
    fn a_refusal_of_the_api_server_is_shown_as_it_is() {
        let control = Control { state: Some(state(0, 0, 0)), is_declared: true, problem: None };
        let status =
            of(&BrokerStatus::default(), &Found::Exists { refused: Some("quota exceeded".into()) }, &control);
        assert_eq!(reason_of(&status, READY), ("False", "ApplyRefused"));
        assert_eq!(find(&status.conditions, READY).unwrap().message, "quota exceeded");
    }

    #[test]
    fn the_use_of_the_volume_moves_in_steps() {
        let of_use = |old: Option<&StorageStatus>, available: u64| {
            storage(old, state(0, 0, available).storage).unwrap()
        };
        let first = of_use(None, 9 << 30);
        assert_eq!(of_use(Some(&first), (9 << 30) - (50 << 20)), first, "half a percent");
        assert_eq!(of_use(Some(&first), (9 << 30) - (200 << 20)).used.as_str(), "1.1Gi");
    }
}
