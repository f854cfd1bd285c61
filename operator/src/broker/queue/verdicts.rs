//! What holds of a Queue, and what to do where it does not. Pure.

use capstan_api::control::{QueueState, StorageState};
use capstan_crds::condition::reason;
use capstan_crds::queue::{Limits, ReplacedStore};
use capstan_crds::{Key, QueueFinding, ResolvedQueue};

use super::super::Found;
use super::super::control::Control;
use crate::condition::Verdict;

pub(super) fn accepted(resolved: &ResolvedQueue) -> Verdict {
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

pub(super) fn broker_resolved(broker: &Key, found: &Found) -> Verdict {
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
pub(super) fn serving(broker: &Key, found: &Found, control: &Control) -> Verdict {
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

pub(super) fn delivering(resolved: &ResolvedQueue, serving: &Verdict) -> Verdict {
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

/// Whether the queue takes sends, as far as room goes. What was full is full until a twentieth is free: a condition that
/// came and went with each message would tell nothing.
pub(super) fn room(
    broker: &Key,
    limits: &Limits,
    queue: Option<&QueueState>,
    storage: Option<&StorageState>,
    was_full: bool,
) -> Verdict {
    if storage.is_some_and(is_full) {
        return Verdict::no(
            reason::STORAGE_FULL,
            format!(
                "sends are refused, because the volume of Broker {} is nearly full: consume or purge messages of its queues, \
                 also of retained ones, or enlarge the volume",
                broker.name
            ),
        );
    }
    let full = queue.and_then(|queue| full_limit(limits, queue, was_full));
    full.map_or_else(
        || Verdict::yes(reason::AS_DECLARED, ""),
        |limit| {
            let text = format!("sends are refused, because the queue holds as much as limits.{limit} allows");
            Verdict::no(
                reason::QUEUE_FULL,
                format!("{text}: let its Consumer catch up, purge messages, or raise the limit"),
            )
        },
    )
}

/// A broker from before it says so shows it by its numbers.
const fn is_full(storage: &StorageState) -> bool {
    storage.sends_refused || storage.available_bytes < storage.reserve_bytes
}

/// The limit that is reached. Of bytes it is where the largest message does not fit, or less than a hundredth is left.
fn full_limit(limits: &Limits, queue: &QueueState, was_full: bool) -> Option<String> {
    let QueueState { ready, delayed, leased, dead, bytes, .. } = queue;
    let count = ready + delayed + leased + dead;
    if let Some(most) = limits.max_messages.filter(|most| is_reached(*most, count, 1, was_full)) {
        return Some(format!("maxMessages ({most})"));
    }
    let most = limits.max_bytes.bytes();
    let largest = u64::from(limits.max_message_bytes).min(most / 100).max(1);
    is_reached(most, *bytes, largest, was_full).then(|| format!("maxBytes ({})", limits.max_bytes.as_str()))
}

fn is_reached(most: u64, used: u64, next: u64, was_full: bool) -> bool {
    let least = if was_full { (most / 20).max(next) } else { next };
    most.saturating_sub(used) < least
}

/// Ready for producers: with a note of what an earlier store had.
pub(super) fn sendable(lost: Option<&ReplacedStore>) -> Verdict {
    let note = lost.map_or_else(String::new, |lost| {
        format!("; {} went with an earlier store, see BrokerResolved", messages(lost.messages))
    });
    Verdict::yes(reason::AS_DECLARED, format!("producers can send to the queue{note}"))
}

/// The Broker is there, but its store is not the one that had messages of this queue.
pub(super) fn replaced(broker: &Key, lost: &ReplacedStore) -> Verdict {
    Verdict::yes(
        reason::STORE_REPLACED,
        format!(
            "Broker {}'s store was new and empty at {}: {} last seen in the one before, {}, are not in it. If nobody replaced \
             the volume on purpose, keep the old one",
            broker.name,
            lost.noticed_at.0,
            messages(lost.messages),
            lost.incarnation
        ),
    )
}

fn messages(count: u64) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}
