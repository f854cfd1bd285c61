//! A store that is another than before, although messages were waiting in it. Pure.

use std::time::Duration;

use capstan_api::control::BrokerState;
use capstan_crds::queue::{Messages, ReplacedStore};
use capstan_crds::{Broker, Queue, QueueStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// How long a Broker shows that its store was replaced: the longest retention, after which the messages would be gone anyway.
const BROKER_SHOWS: Duration = Duration::from_secs(14 * 86_400);

/// The store that a Queue lost messages with: noticed now, or earlier and still shown.
pub(super) fn of_queue(queue: &Queue, state: Option<&BrokerState>, now: &Time) -> Option<ReplacedStore> {
    let old = queue.status.as_ref()?;
    let shows = Duration::from_millis(queue.spec.message_retention.millis());
    noticed(queue, state, now).or_else(|| still_shown(old.replaced_store.as_ref(), shows, now))
}

fn noticed(queue: &Queue, state: Option<&BrokerState>, now: &Time) -> Option<ReplacedStore> {
    let QueueStatus { broker, messages, .. } = queue.status.as_ref()?;
    let before = broker.as_ref()?.incarnation.as_ref()?;
    let messages = messages.as_ref().map_or(0, waiting);
    let is_other = state.is_some_and(|state| state.incarnation != *before);
    (is_other && messages > 0).then(|| ReplacedStore {
        incarnation: before.clone(),
        messages,
        noticed_at: now.clone(),
    })
}

/// The same of a Broker: what all its Queues lost, and the retained ones. Their own status may be written already.
pub(in super::super) fn of_broker<'a>(
    broker: &Broker,
    queues: impl Iterator<Item = &'a Queue>,
    state: Option<&BrokerState>,
    now: &Time,
) -> Option<ReplacedStore> {
    let old = broker.status.as_ref()?;
    let shown = || still_shown(old.replaced_store.as_ref(), BROKER_SHOWS, now);
    let Some((before, state)) = old.incarnation.as_ref().zip(state) else {
        return shown();
    };
    if state.incarnation == *before {
        return shown();
    }
    let lost = queues.filter_map(|queue| of_queue(queue, Some(state), now));
    let in_queues: u64 = lost.filter(|lost| lost.incarnation == *before).map(|lost| lost.messages).sum();
    let retained: u64 = old.retained_queues.iter().map(|queue| queue.messages).sum();
    let messages = in_queues + retained;
    let replaced = || ReplacedStore { incarnation: before.clone(), messages, noticed_at: now.clone() };
    (messages > 0).then(replaced).or_else(shown)
}

fn still_shown(replaced: Option<&ReplacedStore>, shows: Duration, now: &Time) -> Option<ReplacedStore> {
    let age = |replaced: &&ReplacedStore| Duration::try_from(now.0.duration_since(replaced.noticed_at.0));
    // A clock that was set back shows it longer.
    replaced
        .filter(|replaced| age(replaced).is_ok_and(|age| age < shows) || replaced.noticed_at.0 > now.0)
        .cloned()
}

const fn waiting(messages: &Messages) -> u64 {
    let Messages { ready, leased, delayed, dead, .. } = messages;
    *ready + *leased + *delayed + *dead
}
