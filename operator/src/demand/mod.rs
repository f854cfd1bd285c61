//! What there is to do for Consumers, as brokers say it at every change: for scaling, for KEDA, and for metrics.
//!
//! One stream for each Broker that somebody wants to hear of, in every replica of the operator: it only reads.

mod known;
mod stream;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use capstan_api::control::{ApplicationState, BrokerState, Changes};
use capstan_crds::Key;
use capstan_scaling::Demand;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::known::Known;
pub(crate) use self::stream::follow;

/// A Broker is listened to for so long after somebody wanted to hear of it: longer than between two looks at a workload.
const WANTED: Duration = Duration::from_secs(1200);
/// A broker that has said nothing for so long is not heard: longer than a poll, and than a short interruption.
const SILENCE: Duration = Duration::from_secs(20);
/// Most Brokers that are listened to.
const BROKERS_MAX: usize = 5000;

/// What is known of all Brokers that somebody wanted to hear of. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Demands(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    brokers: Mutex<HashMap<Key, Broker>>,
    /// Somebody wants to hear of another Broker.
    wanted: Notify,
    /// Rises with each news.
    news: watch::Sender<u64>,
}

#[derive(Debug)]
struct Broker {
    wanted_until: Instant,
    /// Since when it is listened to.
    since: Instant,
    heard: Option<Instant>,
    /// Whoever follows it was told that it is not heard.
    is_told: bool,
    queues: HashMap<Key, Known>,
}

/// What is known of a Queue.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Heard {
    Seen(Numbers),
    /// The broker was heard, and has no such queue.
    Unknown,
    /// The broker was not heard lately.
    Unheard,
}

/// What a broker says of a Queue.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Numbers {
    pub(crate) demand: Demand,
    /// Calls that are under way.
    pub(crate) batches: u64,
    /// The share of the deliveries of the last minute that failed, 0 to 1.
    pub(crate) error_ratio: Option<f64>,
    /// More than half of them failed.
    pub(crate) are_failing: bool,
    /// What sidecars say of the application.
    pub(crate) application: Option<ApplicationState>,
}

impl Default for Demands {
    fn default() -> Self {
        Self(Arc::new(Inner {
            start: Instant::now(),
            brokers: Mutex::default(),
            wanted: Notify::new(),
            news: watch::channel(0).0,
        }))
    }
}

impl Demands {
    /// What is known of a Queue now.
    pub(crate) fn queue(&self, broker: &Key, queue: &Key) -> Heard {
        let now = Instant::now();
        let brokers = self.brokers();
        let Some(known) = brokers.get(broker) else { return Heard::Unheard };
        if known.heard.is_none_or(|at| now.duration_since(at) >= SILENCE) {
            return Heard::Unheard;
        }
        known.queues.get(queue).map_or(Heard::Unknown, |known| Heard::Seen(known.numbers(now, self.0.start)))
    }

    /// How long a Broker has said nothing.
    pub(crate) fn silent_for(&self, broker: &Key) -> Duration {
        let brokers = self.brokers();
        brokers.get(broker).map_or(Duration::ZERO, |known| known.heard.unwrap_or(known.since).elapsed())
    }

    /// Moves with every news.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.0.news.subscribe()
    }

    /// A Broker is to be listened to, for a while. Beyond [`BROKERS_MAX`] there is no room.
    pub(crate) fn want(&self, broker: &Key) {
        let now = Instant::now();
        let until = now + WANTED;
        let mut brokers = self.brokers();
        if let Some(known) = brokers.get_mut(broker) {
            known.wanted_until = until;
            return;
        }
        if brokers.len() >= BROKERS_MAX {
            tracing::warn!(%broker, most = BROKERS_MAX, "not listened to: there are too many Brokers");
            return;
        }
        let known =
            Broker { wanted_until: until, since: now, heard: None, is_told: false, queues: HashMap::new() };
        brokers.insert(broker.clone(), known);
        drop(brokers);
        self.0.wanted.notify_one();
    }

    /// A Broker is gone.
    pub(crate) fn forget(&self, broker: &Key) {
        self.brokers().remove(broker);
        self.0.wanted.notify_one();
    }

    /// Takes in what sidecars say of applications, which is no change of its own to the stream. What the stream has told since the
    /// state was asked for is newer.
    pub(crate) fn learn_applications(&self, broker: &Key, state: &BrokerState, asked: Instant) {
        let mut brokers = self.brokers();
        let Some(known) = brokers.get_mut(broker) else { return };
        for queue in &state.queues {
            let key = Key::new(queue.namespace.as_str(), queue.name.as_str());
            if let Some(known) = known.queues.get_mut(&key) {
                known.learn_application(queue.application.clone(), asked);
            }
        }
    }

    /// Takes in what a broker says; the Queues of which it says something new.
    pub(crate) fn learn(&self, broker: &Key, changes: Changes) -> Vec<Key> {
        let now = Instant::now();
        let mut brokers = self.brokers();
        let Some(known) = brokers.get_mut(broker) else { return Vec::new() };
        known.heard = Some(now);
        known.is_told = false;
        let mut old = match changes.whole {
            true => std::mem::take(&mut known.queues),
            false => HashMap::new(),
        };
        let mut told = Vec::with_capacity(changes.queues.len());
        for queue in changes.queues.into_iter().filter(|queue| !queue.retained) {
            let key = Key::new(queue.namespace.as_str(), queue.name.as_str());
            let entry = known.queues.entry(key.clone());
            entry.or_insert_with(|| old.remove(&key).unwrap_or_default()).learn(queue, now, self.0.start);
            told.push(key);
        }
        // What was there, and is no more.
        told.extend(old.into_keys());
        drop(brokers);
        if !told.is_empty() {
            self.0.news.send_modify(|news| *news += 1);
        }
        told
    }

    /// The Queues of a Broker that is not heard any more, told once.
    fn silenced(&self, broker: &Key) -> Vec<Key> {
        let now = Instant::now();
        let mut brokers = self.brokers();
        let Some(known) = brokers.get_mut(broker) else { return Vec::new() };
        let is_silent = known.heard.is_some_and(|at| now.duration_since(at) >= SILENCE);
        if !is_silent || std::mem::replace(&mut known.is_told, true) {
            return Vec::new();
        }
        let told = known.queues.keys().cloned().collect();
        drop(brokers);
        self.0.news.send_modify(|news| *news += 1);
        told
    }

    /// The Brokers that are to be listened to now; the others are forgotten.
    fn wanted(&self) -> Vec<Key> {
        let (now, mut brokers) = (Instant::now(), self.brokers());
        brokers.retain(|_, broker| broker.wanted_until > now);
        brokers.keys().cloned().collect()
    }

    async fn wanted_changed(&self) {
        self.0.wanted.notified().await;
    }

    fn brokers(&self) -> MutexGuard<'_, HashMap<Key, Broker>> {
        self.0.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Numbers {
    /// What there is to do; what is not delivered needs no pod.
    pub(crate) fn to_do(&self, is_paused: bool) -> Demand {
        match is_paused {
            true => {
                Demand { leased: self.demand.leased, quiet_for: self.demand.quiet_for, ..Demand::default() }
            }
            false => self.demand,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn key(name: &str) -> Key {
        Key::new("shop", name)
    }

    fn queue(name: &str, more: &Value) -> Value {
        let mut queue = json!({"namespace": "shop", "name": name, "retained": false, "ready": 0, "delayed": 0, "leased": 0,
            "dead": 0, "bytes": 0});
        let (Value::Object(all), Value::Object(more)) = (&mut queue, more) else { panic!("no objects") };
        all.extend(more.clone());
        queue
    }

    fn learn(demands: &Demands, whole: bool, queues: &[Value]) -> Vec<String> {
        let changes = json!({"version": "1", "whole": whole, "queues": queues});
        let mut told: Vec<String> = demands
            .learn(&key("default"), serde_json::from_value(changes).unwrap())
            .into_iter()
            .map(|key| key.name)
            .collect();
        told.sort();
        told
    }

    fn demand(demands: &Demands, name: &str) -> Option<(u64, u64, u64, Option<u64>)> {
        match demands.queue(&key("default"), &key(name)) {
            Heard::Seen(Numbers { demand: Demand { ready, leased, due, oldest_ready, .. }, .. }) => {
                Some((ready, leased, due, oldest_ready.map(|age| age.as_secs())))
            }
            Heard::Unknown | Heard::Unheard => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_broker_says_is_known_until_it_falls_silent() {
        let demands = Demands::default();
        let broker = key("default");
        assert_eq!(demands.queue(&broker, &key("orders")), Heard::Unheard, "nobody listens");
        demands.want(&broker);
        assert_eq!(demands.queue(&broker, &key("orders")), Heard::Unheard, "nothing was said");
        let changed = demands.changed();
        let orders = queue(
            "orders",
            &json!({"ready": 3, "leased": 2, "delayed": 9, "due_soon": 1, "oldest_ready_age_ms": 5000}),
        );
        assert_eq!(learn(&demands, true, &[orders, queue("other", &json!({}))]), ["orders", "other"]);
        assert!(changed.has_changed().unwrap());
        assert_eq!(demand(&demands, "orders"), Some((3, 2, 1, Some(5))));
        assert_eq!(demands.queue(&broker, &key("missing")), Heard::Unknown);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(demand(&demands, "orders"), Some((3, 2, 1, Some(15))), "ages grow by themselves");
        assert_eq!(learn(&demands, false, &[queue("other", &json!({"ready": 1}))]), ["other"]);
        assert_eq!(demand(&demands, "orders"), Some((3, 2, 1, Some(15))));
        tokio::time::advance(SILENCE).await;
        assert_eq!(demands.queue(&broker, &key("orders")), Heard::Unheard);
        assert_eq!(demands.silenced(&broker).len(), 2, "whoever follows them is told");
        assert_eq!(demands.silenced(&broker), [], "once");
        assert_eq!(learn(&demands, true, &[queue("other", &json!({}))]), ["orders", "other"], "one is gone");
        assert_eq!(demands.queue(&broker, &key("orders")), Heard::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_and_applications_are_known_too() {
        let demands = Demands::default();
        demands.want(&key("default"));
        let totals = |acknowledged: u64, retried: u64| {
            let totals = json!({"sent": 0, "delivered": 0, "acknowledged": acknowledged, "retried": retried, "released": 0,
                "lease_expired": 0, "dead_lettered": 0, "dropped": 0, "expired": 0});
            queue("orders", &json!({"batches": 4, "totals": totals}))
        };
        learn(&demands, true, &[totals(100, 0)]);
        tokio::time::advance(Duration::from_secs(6)).await;
        learn(&demands, false, &[totals(104, 16)]);
        let Heard::Seen(numbers) = demands.queue(&key("default"), &key("orders")) else { panic!("not seen") };
        assert_eq!((numbers.batches, numbers.error_ratio, numbers.are_failing), (4, Some(0.8), true));
        assert_eq!(
            numbers.demand.quiet_for,
            Some(Duration::ZERO),
            "something was handled, though nothing is there"
        );
        tokio::time::advance(Duration::from_secs(61)).await;
        learn(&demands, false, &[totals(104, 16)]);
        let Heard::Seen(numbers) = demands.queue(&key("default"), &key("orders")) else { panic!("not seen") };
        assert_eq!((numbers.error_ratio, numbers.are_failing), (None, false), "that is long ago");
        assert_eq!(numbers.demand.quiet_for, Some(Duration::from_secs(61)));
        let unreachable = || match demands.queue(&key("default"), &key("orders")) {
            Heard::Seen(numbers) => numbers.application.map(|application| application.unreachable),
            Heard::Unknown | Heard::Unheard => panic!("not seen"),
        };
        let state = |more: &Value| -> BrokerState {
            let state = json!({"incarnation": "1", "revision": "1", "version": "1", "queues": [queue("orders", more)]});
            serde_json::from_value(state).unwrap()
        };
        let application =
            |pods: u32| json!({"application": {"consumer": "orders", "reachable": 0, "unreachable": pods}});
        demands.learn_applications(&key("default"), &state(&application(2)), Instant::now());
        assert_eq!(unreachable(), Some(2));
        // A state that was asked for before the stream told more.
        let asked = Instant::now();
        tokio::time::advance(Duration::from_millis(10)).await;
        learn(&demands, false, &[queue("orders", &application(3))]);
        demands.learn_applications(&key("default"), &state(&json!({})), asked);
        assert_eq!(unreachable(), Some(3));
        demands.learn_applications(&key("default"), &state(&json!({})), Instant::now());
        assert_eq!(unreachable(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn numbers_that_no_broker_has_are_no_end() {
        let demands = Demands::default();
        demands.want(&key("default"));
        let most = u64::MAX;
        let totals = json!({"sent": most, "delivered": most, "acknowledged": most, "retried": most, "released": most,
            "lease_expired": most, "dead_lettered": most, "dropped": most, "expired": most});
        let all = json!({"ready": most, "leased": most, "due_soon": most, "batches": most,
            "oldest_ready_age_ms": most, "totals": totals});
        learn(&demands, true, &[queue("orders", &json!({}))]);
        tokio::time::advance(Duration::from_secs(6)).await;
        learn(&demands, false, &[queue("orders", &all)]);
        let Heard::Seen(numbers) = demands.queue(&key("default"), &key("orders")) else { panic!("not seen") };
        assert_eq!((numbers.demand.total(), numbers.are_failing), (most, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_is_wanted_for_a_while() {
        let demands = Demands::default();
        demands.want(&key("a"));
        tokio::time::advance(WANTED / 2).await;
        demands.want(&key("b"));
        tokio::time::advance(WANTED / 2).await;
        assert_eq!(demands.wanted(), [key("b")]);
        demands.forget(&key("b"));
        assert_eq!(demands.wanted(), []);
    }
}
