//! Why messages whose retries are used up do not get into their dead-letter queue. Pure.

use capstan_api::control::{DeadBlocked, QueueState};
use capstan_crds::ResolvedQueue;
use capstan_crds::condition::reason;

use crate::condition::Verdict;

/// Holds while some wait; says what to do about it. They are never dropped for it before their retention ends.
pub(super) fn blocked(resolved: &ResolvedQueue, queue: &QueueState) -> Verdict {
    let Some(why) = queue.dead_blocked.filter(|_| queue.dead > 0) else {
        return Verdict::no(reason::NOT_BLOCKED, "no message waits for its dead-letter queue");
    };
    // The number changes all the time: it is in status.messages.
    let waits = "messages whose retries are used up wait";
    let target = resolved.dead_letter_queue.as_ref().map_or("the dead-letter queue", |key| key.name.as_str());
    let full = |limit: &str| {
        let remedy = format!("consume or purge messages of Queue {target}, or raise its limits.{limit}");
        Verdict::yes(reason::DEAD_LETTER_QUEUE_FULL, format!("{waits}, because {target} is full: {remedy}"))
    };
    match (why, &resolved.claim) {
        (DeadBlocked::NoConsumer, Some(claim)) => Verdict::yes(
            reason::DEAD_LETTER_QUEUE_ELSEWHERE,
            format!(
                "{waits}, because the dead-letter queue of Consumer {} is stored by another Broker: name one of the same \
                 Broker",
                claim.name
            ),
        ),
        (DeadBlocked::NoConsumer, None) => Verdict::yes(
            reason::NO_CONSUMER,
            format!(
                "{waits}, because there is no Consumer any more to say where they go: create one, or purge them"
            ),
        ),
        (DeadBlocked::TargetMissing | DeadBlocked::TargetRetained, _) => Verdict::yes(
            reason::DEAD_LETTER_QUEUE_RETAINED,
            format!("{waits}, because there is no Queue {target} (any more): create it, on the same Broker"),
        ),
        (DeadBlocked::TargetBytesFull, _) => full("maxBytes"),
        (DeadBlocked::TargetMessagesFull, _) => full("maxMessages"),
        (DeadBlocked::TargetTooSmall, _) => Verdict::yes(
            reason::DEAD_LETTER_QUEUE_FULL,
            format!(
                "{waits}, because one alone is more than {target} may hold: raise limits.maxBytes and limits.maxMessages of \
                 Queue {target}"
            ),
        ),
        (DeadBlocked::Other, _) => Verdict::yes(
            reason::DEAD_LETTER_QUEUE_FULL,
            format!("{waits}, because {target} does not take them: see the Broker's log"),
        ),
    }
}
