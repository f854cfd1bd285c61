//! What Brokers said last, and since when they have not been heard. Pure: times come with each call.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use capstan_api::control::Changes;
use capstan_crds::Key;

use super::backlog::Backlog;

/// What was said is taken as true for so long after the last answer. A broker answers every [`super::listen::WAIT`], if only
/// that nothing changed.
pub(super) const STALE: Duration = Duration::from_secs(15);

/// What is known of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// What its Broker said; it answered last `at`, and nothing had changed until then.
    Seen { backlog: Backlog, at: Instant },
    /// The Broker answers, but has not been told of such a queue (yet).
    Missing,
    /// The Broker does not answer: since it did last, or since it was asked first.
    Unheard { since: Instant },
}

/// By Broker.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<Key, Heard>);

/// What one Broker said.
#[derive(Debug)]
struct Heard {
    /// When it was asked first.
    began: Instant,
    /// When it answered last.
    at: Option<Instant>,
    /// Whether its silence was told of.
    is_told: bool,
    queues: HashMap<Key, Backlog>,
}

impl Heard {
    fn is_stale(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| now.saturating_duration_since(at) > STALE)
    }
}

impl Known {
    /// A Broker is asked from now on.
    pub(super) fn begin(&mut self, broker: &Key, now: Instant) {
        let new = || Heard { began: now, at: None, is_told: false, queues: HashMap::new() };
        self.0.entry(broker.clone()).or_insert_with(new);
    }

    /// A Broker answered; the queues of which something else is known than before. Nothing from one that is not asked any more.
    pub(super) fn learn(&mut self, broker: &Key, changes: &Changes, now: Instant) -> Vec<Key> {
        let Some(heard) = self.0.get_mut(broker) else { return Vec::new() };
        let was_stale = heard.is_stale(now);
        (heard.at, heard.is_told) = (Some(now), false);
        let mut gone = if changes.whole { std::mem::take(&mut heard.queues) } else { HashMap::new() };
        let mut news = Vec::new();
        for state in &changes.queues {
            let key = Key::new(state.namespace.as_str(), state.name.as_str());
            let old = gone.remove(&key).or_else(|| heard.queues.remove(&key));
            // Retained: it was not declared, or is not any more.
            let new = (!state.retained).then(|| Backlog::new(state, now));
            let is_same = match (&old, &new) {
                (Some(old), Some(new)) => new.is_same(old),
                (None, None) => true,
                _ => false,
            };
            if let Some(new) = new {
                heard.queues.insert(key.clone(), new);
            }
            if !is_same {
                news.push(key);
            }
        }
        if was_stale {
            // To who did not know, everything is new.
            news = heard.queues.keys().cloned().collect();
        }
        news.extend(gone.into_keys());
        news
    }

    /// A Broker did not answer; its queues, once, when what it said is not taken as true any more.
    pub(super) fn silence(&mut self, broker: &Key, now: Instant) -> Vec<Key> {
        let Some(heard) = self.0.get_mut(broker) else { return Vec::new() };
        if heard.is_told || !heard.is_stale(now) {
            return Vec::new();
        }
        heard.is_told = true;
        heard.queues.keys().cloned().collect()
    }

    /// What is known of a queue of a Broker.
    pub(super) fn queue(&self, broker: &Key, queue: &Key, now: Instant) -> Sight {
        let Some(heard) = self.0.get(broker) else { return Sight::Unheard { since: now } };
        match heard.at {
            Some(at) if !heard.is_stale(now) => match heard.queues.get(queue) {
                Some(backlog) => Sight::Seen { backlog: *backlog, at },
                None => Sight::Missing,
            },
            at => Sight::Unheard { since: at.unwrap_or(heard.began) },
        }
    }

    /// A Broker is not asked any more.
    pub(super) fn forget(&mut self, broker: &Key) {
        self.0.remove(broker);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// An answer about queues of the namespace `shop`: name, ready, leased.
    pub(in super::super) fn changes(whole: bool, queues: &[(&str, u64, u64)]) -> Changes {
        let queue = |(name, ready, leased): &(&str, u64, u64)| {
            json!({"namespace": "shop", "name": name, "retained": false, "ready": ready, "delayed": 0, "leased": leased,
                "dead": 0, "bytes": 0, "due_soon": 3, "oldest_ready_age_ms": (*ready > 0).then_some(2000)})
        };
        let queues: Vec<_> = queues.iter().map(queue).collect();
        serde_json::from_value(json!({"version": "1", "whole": whole, "queues": queues})).unwrap()
    }

    fn key(name: &str) -> Key {
        Key::new("shop", name)
    }

    fn sorted(mut keys: Vec<Key>) -> Vec<String> {
        keys.sort();
        keys.into_iter().map(|key| key.name).collect()
    }

    /// A Broker of which two queues are known, and when.
    fn known() -> (Known, Key, Instant) {
        let (mut known, broker, now) = (Known::default(), key("default"), Instant::now());
        known.begin(&broker, now);
        let news = known.learn(&broker, &changes(true, &[("a", 1, 0), ("b", 0, 0)]), now);
        assert_eq!(sorted(news), ["a", "b"]);
        (known, broker, now)
    }

    fn ready(known: &Known, broker: &Key, queue: &str, now: Instant) -> Option<u64> {
        match known.queue(broker, &key(queue), now) {
            Sight::Seen { backlog, .. } => Some(backlog.ready),
            Sight::Missing | Sight::Unheard { .. } => None,
        }
    }

    #[test]
    fn what_changed_is_told_and_what_is_gone_too() {
        let (mut known, broker, now) = known();
        assert!(known.learn(&broker, &changes(false, &[]), now).is_empty());
        assert!(known.learn(&broker, &changes(false, &[("a", 1, 0)]), now).is_empty(), "the same again");
        assert_eq!(sorted(known.learn(&broker, &changes(false, &[("a", 1, 1)]), now)), ["a"]);
        assert_eq!(sorted(known.learn(&broker, &changes(false, &[("c", 0, 0)]), now)), ["c"]);
        let whole = changes(true, &[("a", 1, 1), ("b", 2, 0)]);
        assert_eq!(sorted(known.learn(&broker, &whole, now)), ["b", "c"]);
        assert_eq!(ready(&known, &broker, "b", now), Some(2));
        assert_eq!(known.queue(&broker, &key("c"), now), Sight::Missing);
        let mut retained = changes(false, &[("a", 1, 1)]);
        retained.queues[0].retained = true;
        assert_eq!(sorted(known.learn(&broker, &retained, now)), ["a"]);
        assert_eq!(known.queue(&broker, &key("a"), now), Sight::Missing);
    }

    #[test]
    fn the_age_of_the_oldest_grows_while_nothing_is_said() {
        let (known, broker, now) = known();
        let Sight::Seen { backlog, .. } = known.queue(&broker, &key("a"), now) else { panic!() };
        let later = now + Duration::from_secs(5);
        let demand = backlog.demand(later);
        assert_eq!((demand.total(), demand.oldest_ready), (4, Some(Duration::from_secs(7))));
    }

    #[test]
    fn a_broker_that_is_silent_is_unheard_since_its_last_answer() {
        let (mut known, broker, now) = known();
        let (fresh, stale) = (now + STALE, now + STALE + Duration::from_millis(1));
        assert!(known.silence(&broker, fresh).is_empty());
        assert_eq!(ready(&known, &broker, "a", fresh), Some(1));
        assert_eq!(known.queue(&broker, &key("a"), stale), Sight::Unheard { since: now });
        assert_eq!(sorted(known.silence(&broker, stale)), ["a", "b"]);
        assert!(known.silence(&broker, stale).is_empty(), "told once");
        let news = known.learn(&broker, &changes(false, &[]), stale);
        assert_eq!(sorted(news), ["a", "b"], "to who did not know, all is new");
        assert_eq!(ready(&known, &broker, "a", stale), Some(1));
    }

    #[test]
    fn a_broker_that_never_answered_is_unheard_since_it_was_asked() {
        let (mut known, broker, now) = (Known::default(), key("default"), Instant::now());
        let later = now + Duration::from_secs(60);
        assert_eq!(known.queue(&broker, &key("a"), later), Sight::Unheard { since: later }, "not asked");
        known.begin(&broker, now);
        known.begin(&broker, later);
        assert_eq!(known.queue(&broker, &key("a"), later), Sight::Unheard { since: now });
        known.forget(&broker);
        assert!(known.learn(&broker, &changes(true, &[("a", 1, 0)]), later).is_empty(), "too late");
        assert_eq!(known.queue(&broker, &key("a"), later), Sight::Unheard { since: later });
    }
}
