//! What brokers say of the applications of their Queues, kept between looks. Pure.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use capstan_api::control::{ApplicationState, BrokerState};
use capstan_api::workload::Workload as Reference;
use capstan_crds::Key;

use crate::counts::REFRESH;

/// When nobody has said anything for so long, nothing is known any more. Longer than a broker takes to start and a sidecar
/// to say again what it said.
const SILENCE: Duration = Duration::from_secs(300);

/// By Broker, and by Queue within it.
#[derive(Debug, Default)]
pub(crate) struct Reaches(Mutex<BTreeMap<Key, Reported>>);

/// What one Broker says.
#[derive(Debug)]
struct Reported {
    /// When it was first asked.
    since: Instant,
    queues: BTreeMap<Key, Reach>,
}

/// What is said of one Queue's application.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Reach {
    /// What its Consumer shows.
    shown: Option<Shown>,
    /// At the last look, an application took nothing for the first time.
    is_suspect: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    state: ApplicationState,
    /// Since when.
    at: Instant,
    /// When it was last said, or anything else.
    heard: Instant,
    /// The workload for which it was shown first.
    target: Option<Reference>,
}

/// What is to be shown of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reachable {
    /// What the broker says.
    Said(ApplicationState),
    /// What is shown already: the broker may not have been told again since the operator or the broker started.
    Kept,
    /// That nobody says anything.
    Unknown,
}

impl Reaches {
    /// Takes in what a Broker says; the Queues of which its Consumers have something new to show. Numbers alone are new
    /// only now and then, and when `may_write` agrees.
    pub(crate) fn learn(
        &self,
        broker: &Key,
        state: &BrokerState,
        now: Instant,
        may_write: impl Fn() -> bool,
    ) -> Vec<Key> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reported =
            all.entry(broker.clone()).or_insert_with(|| Reported { since: now, queues: BTreeMap::new() });
        let mut old = std::mem::take(&mut reported.queues);
        let mut changed = Vec::new();
        for queue in state.queues.iter().filter(|queue| !queue.retained) {
            let key = Key::new(queue.namespace.as_str(), queue.name.as_str());
            let mut reach = old.remove(&key).unwrap_or_default();
            if reach.learn(queue.application.as_ref(), now, &may_write) {
                changed.push(key.clone());
            }
            // Most queues have none.
            if reach != Reach::default() {
                reported.queues.insert(key, reach);
            }
        }
        changed
    }

    /// What is to be shown of a Queue's application in `target`, which has pods.
    pub(crate) fn of(&self, broker: &Key, queue: &Key, target: &Reference, now: Instant) -> Reachable {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(reported) = all.get_mut(broker) else {
            return Reachable::Kept;
        };
        let is_early = now.duration_since(reported.since) < SILENCE;
        let Some(reach) = reported.queues.get_mut(queue) else {
            return if is_early { Reachable::Kept } else { Reachable::Unknown };
        };
        let Some(shown) = &mut reach.shown else {
            return if is_early { Reachable::Kept } else { Reachable::Unknown };
        };
        if shown.target.get_or_insert_with(|| target.clone()) != target {
            // It was said of another workload's pods.
            reach.shown = None;
            return Reachable::Unknown;
        }
        Reachable::Said(shown.state.clone())
    }

    /// Forgets what is shown of a Queue's application: it has no pods.
    pub(crate) fn clear(&self, broker: &Key, queue: &Key) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reported) = all.get_mut(broker) {
            reported.queues.remove(queue);
        }
    }

    /// Forgets a Broker that is gone.
    pub(crate) fn forget(&self, broker: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(broker);
    }
}

impl Reach {
    /// Whether there is something new to show. A broker that was just started knows nothing for a moment, and an application
    /// that was just started does not listen for a moment: neither is news at the first look.
    fn learn(&mut self, said: Option<&ApplicationState>, now: Instant, may_write: impl Fn() -> bool) -> bool {
        let Some(said) = said else {
            self.is_suspect = false;
            let is_over = |shown: &Shown| now.duration_since(shown.heard) >= SILENCE;
            return self.shown.take_if(|shown| is_over(shown)).is_some();
        };
        if let Some(shown) = &mut self.shown {
            shown.heard = now;
        }
        let was_unreachable = self.shown.as_ref().is_some_and(|shown| shown.state.unreachable > 0);
        let is_first = said.unreachable > 0 && !was_unreachable && !self.is_suspect;
        self.is_suspect = is_first;
        if is_first || !self.shown.as_ref().is_none_or(|shown| shown.is_outdated(said, now, may_write)) {
            return false;
        }
        let target = self.shown.take().and_then(|shown| shown.target);
        self.shown = Some(Shown { state: said.clone(), at: now, heard: now, target });
        true
    }
}

impl Shown {
    /// Pods come and go: their number alone is not worth a write each time.
    fn is_outdated(&self, said: &ApplicationState, now: Instant, may_write: impl Fn() -> bool) -> bool {
        let is_other =
            (self.state.unreachable > 0) != (said.unreachable > 0) || self.state.consumer != said.consumer;
        is_other || (self.state != *said && now.duration_since(self.at) >= REFRESH && may_write())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state(application: &[(u32, u32)]) -> BrokerState {
        let queue = |name: &str, application: &serde_json::Value| {
            json!({"namespace": "shop", "name": name, "retained": false, "ready": 0, "delayed": 0, "leased": 0,
                "dead": 0, "bytes": 0, "application": application})
        };
        let said = application.first().map(|(reachable, unreachable)| {
            json!({"consumer": "orders", "reachable": reachable, "unreachable": unreachable})
        });
        let queues = [queue("orders", &said.into()), queue("other", &serde_json::Value::Null)];
        let state = json!({"incarnation": "1", "revision": "1", "version": "1", "queues": queues});
        serde_json::from_value(state).unwrap()
    }

    fn broker() -> Key {
        Key::new("shop", "default")
    }

    fn target(name: &str) -> Reference {
        format!("Deployment/{name}").parse().unwrap()
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn learn(reaches: &Reaches, said: &[(u32, u32)], now: Instant) -> bool {
        let news = reaches.learn(&broker(), &state(said), now, || true);
        assert!(news.is_empty() || news == [Key::new("shop", "orders")], "{news:?}");
        !news.is_empty()
    }

    fn of(reaches: &Reaches, workload: &str, now: Instant) -> Reachable {
        reaches.of(&broker(), &Key::new("shop", "orders"), &target(workload), now)
    }

    fn shown(reaches: &Reaches, now: Instant) -> Option<(u32, u32)> {
        match of(reaches, "web", now) {
            Reachable::Said(state) => Some((state.reachable, state.unreachable)),
            Reachable::Kept | Reachable::Unknown => None,
        }
    }

    #[test]
    fn what_lasts_is_shown_and_what_passes_is_not() {
        let (reaches, now) = (Reaches::default(), Instant::now());
        // What is said, whether that is news, and what is shown then.
        let nothing: &[(u32, u32)] = &[];
        let looks = [
            (nothing, false, None),
            (&[(0, 2)], false, None),
            (&[(2, 0)], true, Some((2, 0))),
            (&[(2, 0)], false, Some((2, 0))),
            (&[(1, 1)], false, Some((2, 0))),
            (&[(1, 1)], true, Some((1, 1))),
            (&[(2, 0)], true, Some((2, 0))),
            (&[], false, Some((2, 0))),
            (&[(1, 1)], false, Some((2, 0))),
            (&[], false, Some((2, 0))),
        ];
        for (number, (said, is_news, expected)) in looks.into_iter().enumerate() {
            let news = learn(&reaches, said, now);
            assert_eq!((news, shown(&reaches, now)), (is_news, expected), "look {number}");
        }
        reaches.forget(&broker());
        assert_eq!(of(&reaches, "web", now), Reachable::Kept);
    }

    #[test]
    fn numbers_alone_are_shown_now_and_then_and_when_a_write_is_free() {
        let (reaches, start) = (Reaches::default(), Instant::now());
        assert!(learn(&reaches, &[(2, 0)], start));
        // One pod more at each look, as in a rollout.
        let news = (1..=12).filter(|look| learn(&reaches, &[(2 + look, 0)], at(start, 5 * u64::from(*look))));
        assert_eq!(news.count(), 2, "in a minute");
        let later = at(start, 600);
        assert_eq!(reaches.learn(&broker(), &state(&[(9, 0)]), later, || false), []);
        assert_eq!(shown(&reaches, later), Some((14, 0)));
        assert!(learn(&reaches, &[(9, 0)], later));
        assert!(
            (0..9).all(|_| !learn(&reaches, &[(9, 0)], at(start, 6000))),
            "nothing is new in the steady state"
        );
    }

    #[test]
    fn what_nobody_says_any_more_is_not_known() {
        let (reaches, start) = (Reaches::default(), Instant::now());
        assert!(learn(&reaches, &[(2, 0)], start));
        assert!(!learn(&reaches, &[], at(start, 299)), "a broker that starts");
        assert_eq!(shown(&reaches, at(start, 299)), Some((2, 0)));
        assert!(learn(&reaches, &[], at(start, 300)));
        assert_eq!(of(&reaches, "web", at(start, 300)), Reachable::Unknown);
        assert!(!learn(&reaches, &[], at(start, 900)));
    }

    #[test]
    fn what_was_said_of_other_pods_is_not_shown() {
        let (reaches, start) = (Reaches::default(), Instant::now());
        assert!(learn(&reaches, &[(2, 0)], start));
        assert_eq!(shown(&reaches, start), Some((2, 0)));
        assert_eq!(of(&reaches, "other", start), Reachable::Unknown);
        assert!(learn(&reaches, &[(1, 0)], start));
        reaches.clear(&broker(), &Key::new("shop", "orders"));
        assert_eq!(shown(&reaches, start), None, "it had no pods");
    }

    #[test]
    fn what_an_earlier_operator_showed_stays_for_a_while() {
        let (reaches, start) = (Reaches::default(), Instant::now());
        assert_eq!(of(&reaches, "web", start), Reachable::Kept);
        learn(&reaches, &[], start);
        assert_eq!(of(&reaches, "web", at(start, 299)), Reachable::Kept);
        assert_eq!(of(&reaches, "web", at(start, 300)), Reachable::Unknown);
    }

    #[test]
    fn a_queue_that_is_gone_is_forgotten() {
        let (reaches, now) = (Reaches::default(), Instant::now());
        learn(&reaches, &[(1, 0)], now);
        let mut gone = state(&[]);
        gone.queues.remove(0);
        assert_eq!(reaches.learn(&broker(), &gone, now, || true), []);
        assert!(reaches.0.lock().unwrap()[&broker()].queues.is_empty());
    }
}
