//! The status of a Broker.

use capstan_api::control::{BrokerState, QueueState, StorageState};
use capstan_crds::broker::{Queues, Resize, RetainedQueue, StorageStatus};
use capstan_crds::condition::{AVAILABLE, READY, RESIZING, STORAGE_HEALTHY, UPDATED, reason};
use capstan_crds::queue::ReplacedStore;
use capstan_crds::{Broker, BrokerStatus, ByteSize, Key};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;

use super::Found;
use super::claim::Growth;
use super::control::Control;
use super::volume::Volume;
use crate::api::ApiError;
use crate::condition::{Conditions, Verdict, find};
use crate::context::Context;
use crate::names::endpoint;
use crate::status;

/// Retained queues that are listed.
const RETAINED_MAX: usize = 50;
/// The use of the volume is written when it moved by this part of the volume.
const USE_STEP: u64 = 100;

/// What was seen beside the answers of the broker.
#[derive(Debug, Clone)]
pub(super) struct Looks {
    pub(super) volume: Volume,
    /// Whether its objects are as its spec has them, or are refused for good; otherwise the status is of the spec before.
    pub(super) is_applied: bool,
    /// Whether its pod is as this version makes it.
    pub(super) updated: Verdict,
    /// Why it does not answer, when it does not.
    pub(super) outage: Option<Verdict>,
    /// The store that was lost with messages.
    pub(super) lost: Option<ReplacedStore>,
}

/// Writes the status when it differs.
pub(super) async fn write(
    context: &Context,
    broker: &Broker,
    found: &Found,
    control: &Control,
    looks: &Looks,
) -> Result<(), ApiError> {
    let old = broker.status.clone().unwrap_or_default();
    let new = status(broker, &old, found, control, looks, &status::now());
    if new == old {
        return Ok(());
    }
    status::write(context, broker, &new).await?;
    context.events.changed(&broker.object_ref(&()), &old.conditions, &new.conditions, &[RESIZING]);
    Ok(())
}

/// What is to be said of a Broker. Pure.
fn status(
    broker: &Broker,
    old: &BrokerStatus,
    found: &Found,
    control: &Control,
    looks: &Looks,
    now: &Time,
) -> BrokerStatus {
    let key = Key::of(&broker.metadata);
    let state = control.state.as_ref();
    let generation = if looks.is_applied { broker.metadata.generation } else { old.observed_generation };
    let available = looks.outage.clone().unwrap_or_else(|| serving(looks.lost.as_ref()));
    let growth = looks.volume.growth.as_ref();
    let ready = ready(found, control, &available, growth.or(refused(old).as_ref()));
    let conditions =
        Conditions::new(&old.conditions, generation, now).set(READY, &ready).set(AVAILABLE, &available);
    let conditions = storage_healthy(conditions, old, state.and_then(|state| state.storage));
    let conditions = match growth {
        Some(growth) => conditions.set(RESIZING, &growth.verdict(&broker.spec.storage.size)),
        None => conditions.keep(find(&old.conditions, RESIZING)),
    };
    BrokerStatus {
        observed_generation: generation,
        endpoint: Some(endpoint(&key)),
        // While it does not answer, what it said last.
        version: state.map(|state| state.version.clone()).or_else(|| old.version.clone()),
        incarnation: state.map(|state| state.incarnation.clone()).or_else(|| old.incarnation.clone()),
        storage: storage(old.storage.as_ref(), state.and_then(|state| state.storage), &looks.volume),
        queues: state.map(queues).or_else(|| old.queues.clone()),
        retained_queues: state.map_or_else(|| old.retained_queues.clone(), |state| retained(&key, state)),
        replaced_store: looks.lost.clone(),
        conditions: conditions.set(UPDATED, &looks.updated).finish(),
    }
}

fn serving(lost: Option<&ReplacedStore>) -> Verdict {
    lost.map_or_else(|| Verdict::yes(reason::SERVING, ""), replaced)
}

/// It serves, but not from the store that had messages.
fn replaced(lost: &ReplacedStore) -> Verdict {
    let ReplacedStore { incarnation, messages, noticed_at } = lost;
    Verdict::yes(
        reason::STORE_REPLACED,
        format!(
            "it serves, from a store that was new and empty at {}: {messages} of its messages were last seen in the one \
             before, {incarnation}. If nobody replaced the volume on purpose, keep the old one",
            noticed_at.0
        ),
    )
}

/// The refusal of a growth that was said last.
fn refused(old: &BrokerStatus) -> Option<Growth> {
    let condition = find(&old.conditions, RESIZING)?;
    (condition.reason == reason::RESIZE_REFUSED).then(|| Growth::Refused(condition.message.clone()))
}

fn ready(found: &Found, control: &Control, available: &Verdict, growth: Option<&Growth>) -> Verdict {
    match (found, control) {
        (Found::Exists { refused: Some(text) }, _) => Verdict::no(reason::APPLY_REFUSED, text),
        _ if !available.holds => available.clone(),
        (_, Control { problem: Some(problem), .. }) => Verdict::no(reason::NOT_DECLARED, problem),
        (_, Control { is_declared: false, .. }) => {
            Verdict::no(reason::NOT_DECLARED, "the broker is told of its queues at the next look")
        }
        _ => match growth {
            Some(Growth::Refused(why)) => Verdict::no(reason::RESIZE_REFUSED, why),
            _ => Verdict::yes(reason::AS_DECLARED, "it serves, and knows its queues"),
        },
    }
}

/// Whether sends have room. A broker that does not answer leaves what it said last.
fn storage_healthy<'a>(
    conditions: Conditions<'a>,
    old: &'a BrokerStatus,
    state: Option<StorageState>,
) -> Conditions<'a> {
    let before = find(&old.conditions, STORAGE_HEALTHY);
    match (state, before) {
        (Some(state), _) if state.reserve_bytes > 0 => {
            let was_full = before.is_some_and(|before| before.status == "False");
            conditions.set(STORAGE_HEALTHY, &room(state, was_full))
        }
        (None, Some(_)) => conditions.keep(before),
        _ => conditions.set_unknown(
            STORAGE_HEALTHY,
            reason::NOT_REPORTED,
            "the broker has not said yet how much of its volume it keeps",
        ),
    }
}

/// As the broker decides: it takes sends again when an eighth more than the reserve is free.
fn room(state: StorageState, was_full: bool) -> Verdict {
    let reserve = state.reserve_bytes;
    let again = reserve.saturating_add(reserve / 8);
    if state.available_bytes >= if was_full { again } else { reserve } {
        return Verdict::yes(reason::HEALTHY, "");
    }
    // No number that changes: each change of the message is a write.
    Verdict::no(
        reason::NEARLY_FULL,
        format!(
            "less than {} of the volume is free, which is kept for acks and compaction: sends are refused until {} are. Consume or \
             purge messages, or raise spec.storage.size",
            ByteSize::rounded(reserve),
            ByteSize::rounded(again)
        ),
    )
}

/// The use of a volume changes all the time; small changes are not worth a write. What it was stays while the broker
/// does not answer.
fn storage(
    old: Option<&StorageStatus>,
    state: Option<StorageState>,
    volume: &Volume,
) -> Option<StorageStatus> {
    let resize = volume
        .growth
        .as_ref()
        .map_or_else(|| old.map_or(Resize::None, |old| old.resize), super::claim::Growth::resize);
    let Some(state) = state else {
        if let Some(old) = old {
            return Some(StorageStatus { resize, ..old.clone() });
        }
        let capacity = volume.claim.as_ref()?.capacity.clone()?;
        return Some(StorageStatus { capacity, used: ByteSize::rounded(0), reserve: None, resize });
    };
    let used = state.capacity_bytes.saturating_sub(state.available_bytes);
    let step = (state.capacity_bytes / USE_STEP).max(1);
    let new = StorageStatus {
        capacity: ByteSize::rounded(state.capacity_bytes),
        used: ByteSize::rounded(used),
        reserve: (state.reserve_bytes > 0).then(|| ByteSize::rounded(state.reserve_bytes)),
        resize,
    };
    let same_use = old.filter(|old| old.used.bytes().abs_diff(used) < step).map(|old| old.used.clone());
    Some(match same_use.filter(|_| old.is_some_and(|old| old.capacity == new.capacity)) {
        Some(used) => StorageStatus { used, ..new },
        None => new,
    })
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
        empty_by: queue.empty_by_ms.and_then(time),
    });
    listed.collect()
}

/// In whole seconds, as the others of a status; not before it is so.
fn time(millis: u64) -> Option<Time> {
    let seconds = i64::try_from(millis.div_ceil(1000)).ok()?;
    jiff::Timestamp::from_second(seconds).ok().map(Time)
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
    use super::super::claim::Template;
    use super::*;

    fn state(queues: usize, retained: usize, available: u64) -> BrokerState {
        let queue = |i: usize| {
            serde_json::json!({"namespace": "shop", "name": format!("q{i:03}"), "retained": i < retained, "ready": 1,
                "delayed": 2, "leased": 3, "dead": 4, "bytes": 5, "empty_by_ms": 1_500})
        };
        let queues: Vec<_> = (0..queues).map(queue).collect();
        serde_json::from_value(serde_json::json!({
            "incarnation": "7f3c", "revision": "r", "version": "0.1.0", "queues": queues,
            "storage": {"capacity_bytes": 10_u64 << 30, "available_bytes": available, "reserve_bytes": 1_u64 << 30},
        }))
        .unwrap()
    }

    fn looks(growth: Option<Growth>) -> Looks {
        let template = Template::new(&broker("{}").spec.storage);
        Looks {
            volume: Volume { claim: None, growth, template, is_template_old: false },
            is_applied: true,
            updated: Verdict::yes(reason::AS_DECLARED, ""),
            outage: None,
            lost: None,
        }
    }

    fn of(old: &BrokerStatus, found: &Found, control: &Control) -> BrokerStatus {
        let outage = control.problem.as_ref().filter(|_| control.state.is_none());
        let outage = outage.map(|problem| Verdict::no(reason::NOT_SERVING, problem));
        let looks = Looks { outage, ..looks(Some(Growth::Done)) };
        status(&broker("{}"), old, found, control, &looks, &status::now())
    }

    fn serving(available: u64) -> Control {
        Control { state: Some(state(0, 0, available)), is_declared: true, problem: None }
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
        assert_eq!(
            status.retained_queues,
            [RetainedQueue { name: "q000".into(), messages: 10, bytes: 5, empty_by: time(1_500) }]
        );
        let storage = status.storage.unwrap();
        assert_eq!((storage.capacity.as_str(), storage.used.as_str()), ("10Gi", "1Gi"));
        assert_eq!((storage.reserve.unwrap().as_str(), storage.resize), ("1Gi", Resize::None));
        for type_ in [STORAGE_HEALTHY, UPDATED] {
            assert_eq!(find(&status.conditions, type_).unwrap().status, "True", "{type_}");
        }
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
        assert!(find(&status.conditions, READY).unwrap().message.contains("connection refused"));
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
    fn a_spec_that_was_not_applied_is_not_observed() {
        let mut changed = broker("{}");
        changed.metadata.generation = Some(2);
        let old = BrokerStatus { observed_generation: Some(1), ..BrokerStatus::default() };
        for (is_applied, generation) in [(false, Some(1)), (true, Some(2))] {
            let looks = Looks { is_applied, ..looks(None) };
            let status = status(&changed, &old, &exists(), &serving(9 << 30), &looks, &status::now());
            assert_eq!(status.observed_generation, generation);
            assert_eq!(find(&status.conditions, READY).unwrap().observed_generation, generation);
        }
    }

    #[test]
    fn the_use_of_the_volume_moves_in_steps() {
        let of_use = |old: Option<&StorageStatus>, available: u64| {
            storage(old, state(0, 0, available).storage, &looks(None).volume).unwrap()
        };
        let first = of_use(None, 9 << 30);
        assert_eq!(of_use(Some(&first), (9 << 30) - (50 << 20)), first, "half a percent");
        assert_eq!(of_use(Some(&first), (9 << 30) - (200 << 20)).used.as_str(), "1.1Gi");
    }

    #[test]
    fn a_volume_that_is_nearly_full_is_said_until_there_is_some_more_room() {
        let full = of(&BrokerStatus::default(), &exists(), &serving((1 << 30) - 1));
        assert_eq!(reason_of(&full, STORAGE_HEALTHY), ("False", "NearlyFull"));
        assert_eq!(reason_of(&full, READY), ("True", "AsDeclared"), "it serves");
        let still = of(&full, &exists(), &serving(1 << 30));
        assert_eq!(reason_of(&still, STORAGE_HEALTHY), ("False", "NearlyFull"));
        let message =
            |status: &BrokerStatus| find(&status.conditions, STORAGE_HEALTHY).unwrap().message.clone();
        assert_eq!(message(&still), message(&full), "nothing is written for nothing");
        let well = of(&still, &exists(), &serving((1 << 30) + (1 << 27)));
        assert_eq!(reason_of(&well, STORAGE_HEALTHY), ("True", "Healthy"));
        assert_eq!(reason_of(&of(&well, &exists(), &serving(1 << 30)), STORAGE_HEALTHY), ("True", "Healthy"));
        let silent = Control { problem: Some("refused".into()), ..Control::unasked() };
        assert_eq!(reason_of(&of(&full, &exists(), &silent), STORAGE_HEALTHY), ("False", "NearlyFull"));
        let unknown = of(&BrokerStatus::default(), &exists(), &silent);
        assert_eq!(reason_of(&unknown, STORAGE_HEALTHY), ("Unknown", "NotReported"));
    }

    #[test]
    fn a_growth_is_shown_and_a_refused_one_is_not_ready() {
        let grown = |old: &BrokerStatus, growth: Option<Growth>| {
            status(&broker("{}"), old, &exists(), &serving(9 << 30), &looks(growth), &status::now())
        };
        let refused = grown(&BrokerStatus::default(), Some(Growth::Refused("no class".into())));
        assert_eq!(reason_of(&refused, RESIZING), ("True", "ResizeRefused"));
        assert_eq!(reason_of(&refused, READY), ("False", "ResizeRefused"));
        assert_eq!(refused.storage.as_ref().unwrap().resize, Resize::Refused);
        assert_eq!(grown(&refused, None), refused, "what nobody looked at stays");
        let growing = grown(&refused, Some(Growth::InProgress));
        assert_eq!(reason_of(&growing, READY), ("True", "AsDeclared"));
        assert_eq!(growing.storage.as_ref().unwrap().resize, Resize::InProgress);
        let done = grown(&growing, Some(Growth::Done));
        assert_eq!(reason_of(&done, RESIZING), ("False", "AsDeclared"));
        assert_eq!(done.storage.unwrap().resize, Resize::None);
    }
}
