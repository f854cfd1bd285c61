//! What brokers say of the applications of their Queues, kept between looks. Pure.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use capstan_api::control::{ApplicationState, BrokerState};
use capstan_crds::Key;

/// By Broker, and by Queue within it.
#[derive(Debug, Default)]
pub(crate) struct Reaches(Mutex<BTreeMap<Key, BTreeMap<Key, Reach>>>);

/// What is said of one Queue's application.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Reach {
    /// What its Consumer shows.
    shown: Option<ApplicationState>,
    /// At the last look, an application took nothing for the first time.
    is_suspect: bool,
}

impl Reaches {
    /// Takes in what a Broker says; the Queues of which its Consumers have something new to show.
    pub(crate) fn learn(&self, broker: &Key, state: &BrokerState) -> Vec<Key> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut old = all.remove(broker).unwrap_or_default();
        let (mut new, mut changed) = (BTreeMap::new(), Vec::new());
        for queue in state.queues.iter().filter(|queue| !queue.retained) {
            let key = Key::new(queue.namespace.as_str(), queue.name.as_str());
            let mut reach = old.remove(&key).unwrap_or_default();
            if reach.learn(queue.application.as_ref()) {
                changed.push(key.clone());
            }
            // Most queues have none.
            if reach != Reach::default() {
                new.insert(key, reach);
            }
        }
        if !new.is_empty() {
            all.insert(broker.clone(), new);
        }
        changed
    }

    /// What is to be shown of a Queue's application, if anything is known of it.
    pub(crate) fn of(&self, broker: &Key, queue: &Key) -> Option<ApplicationState> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(broker)?.get(queue)?.shown.clone()
    }

    /// Forgets a Broker that is gone.
    pub(crate) fn forget(&self, broker: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(broker);
    }
}

impl Reach {
    /// Whether there is something new to show. A broker that was just started knows nothing for a moment, and an application
    /// that was just started does not listen for a moment: neither is news at the first look.
    fn learn(&mut self, said: Option<&ApplicationState>) -> bool {
        let Some(said) = said else {
            self.is_suspect = false;
            return false;
        };
        let was_unreachable = self.shown.as_ref().is_some_and(|shown| shown.unreachable > 0);
        let is_first = said.unreachable > 0 && !was_unreachable && !self.is_suspect;
        self.is_suspect = is_first;
        if is_first || self.shown.as_ref() == Some(said) {
            return false;
        }
        self.shown = Some(said.clone());
        true
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

    fn shown(reaches: &Reaches) -> Option<(u32, u32)> {
        let shown = reaches.of(&Key::new("shop", "default"), &Key::new("shop", "orders"))?;
        Some((shown.reachable, shown.unreachable))
    }

    #[test]
    fn what_lasts_is_shown_and_what_passes_is_not() {
        let (reaches, broker) = (Reaches::default(), Key::new("shop", "default"));
        // What is said, whether that is news, and what is shown then.
        let nothing: &[(u32, u32)] = &[];
        let looks = [
            (nothing, false, None),
            (&[(0, 2)], false, None),
            (&[(2, 0)], true, Some((2, 0))),
            (&[(2, 0)], false, Some((2, 0))),
            (&[(1, 1)], false, Some((2, 0))),
            (&[(1, 1)], true, Some((1, 1))),
            (&[(0, 2)], true, Some((0, 2))),
            (&[], false, Some((0, 2))),
            (&[(2, 0)], true, Some((2, 0))),
            (&[(1, 1)], false, Some((2, 0))),
            (&[], false, Some((2, 0))),
        ];
        for (number, (said, is_news, expected)) in looks.into_iter().enumerate() {
            let news = reaches.learn(&broker, &state(said));
            let expected_news: &[Key] = if is_news { &[Key::new("shop", "orders")] } else { &[] };
            assert_eq!((news.as_slice(), shown(&reaches)), (expected_news, expected), "look {number}");
        }
        reaches.forget(&broker);
        assert_eq!(shown(&reaches), None);
    }

    #[test]
    fn a_queue_that_is_gone_is_forgotten() {
        let (reaches, broker) = (Reaches::default(), Key::new("shop", "default"));
        reaches.learn(&broker, &state(&[(1, 0)]));
        let mut gone = state(&[]);
        gone.queues.remove(0);
        assert_eq!(reaches.learn(&broker, &gone), []);
        assert_eq!(shown(&reaches), None);
        assert!(reaches.0.lock().unwrap().is_empty());
    }
}
