//! Which Brokers are listened to, and what is known of the Consumers whose Queues they store.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use capstan_api::control::Changes;
use capstan_api::{ClientError, ControlClient};
use capstan_crds::{ConsumerFinding, Key, ResolvedQueue};
use capstan_scaling::Demand;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::known::{Known, Sight};
use super::listen::{Listener, listen};
use crate::world::{State, World};

/// A Broker that was asked about is listened to for so long.
const ASKED_FOR: Duration = Duration::from_secs(600);
/// Brokers that are listened to at once. Each holds a connection, and a task of a few kilobytes.
const BROKERS_MAX: usize = 1000;
/// Which Brokers these are is looked at no more often, however often the cluster changes.
const LOOKS_APART: Duration = Duration::from_millis(500);
/// And no less often, so that a Broker nobody asks about any more is left alone.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Who is told which queues of a Broker have other numbers than before, or are not known any more. Must not block.
pub(crate) type Nudge = dyn Fn(&Key, &[Key]) + Send + Sync;

/// How the control API of a Broker is reached.
pub(crate) type Reach = dyn Fn(&Key) -> Result<ControlClient, ClientError> + Send + Sync;

/// Why nothing is known of what a Consumer has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unseen {
    /// There is no such Consumer where this operator looks.
    NoConsumer,
    /// It has no queue, because of this.
    NotAccepted(String),
    /// The Broker was not told of its queue yet.
    Undeclared { broker: Key },
    /// The Broker has not answered for so long.
    Unheard { broker: Key, since: Duration },
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConsumer => {
                f.write_str("there is no such Consumer, or the operator does not work in its namespace")
            }
            Self::NotAccepted(reason) => f.write_str(reason),
            Self::Undeclared { broker } => {
                write!(f, "the Broker {broker} does not have the Consumer's queue yet")
            }
            Self::Unheard { broker, since } => {
                write!(f, "the Broker {broker} has not answered for {} s", since.as_secs())
            }
        }
    }
}

/// The event streams of all Brokers.
pub(crate) struct Streams {
    world: Arc<World>,
    nudge: Box<Nudge>,
    known: Mutex<Known>,
    /// When somebody asked about a Broker last.
    asked: Mutex<HashMap<Key, Instant>>,
    /// Somebody asked about a Broker that was not asked about before.
    is_asked: Notify,
    changed: watch::Sender<u64>,
}

/// A Broker's events go to all.
struct One<'a> {
    streams: &'a Streams,
    broker: &'a Key,
}

impl Listener for One<'_> {
    fn learn(&self, changes: &Changes) {
        let news = self.streams.known().learn(self.broker, changes, now());
        self.streams.tell(self.broker, &news);
    }

    fn failed(&self, problem: &str) {
        debug!(broker = %self.broker, problem, "its event stream broke");
        let silent = self.streams.known().silence(self.broker, now());
        if !silent.is_empty() {
            info!(broker = %self.broker, problem, "not heard any more");
        }
        self.streams.tell(self.broker, &silent);
    }
}

/// By tokio's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Streams {
    /// No stream yet: [`Self::run`] opens them. `nudge` is told of queues, as they change.
    pub(crate) fn new(world: Arc<World>, nudge: Box<Nudge>) -> Self {
        Self {
            world,
            nudge,
            known: Mutex::default(),
            asked: Mutex::default(),
            is_asked: Notify::new(),
            changed: watch::Sender::new(0),
        }
    }

    /// Keeps a stream open to each Broker that needs one, until it is dropped.
    pub(crate) async fn run(self: Arc<Self>, reach: Arc<Reach>) -> Infallible {
        let mut world = self.world.changed();
        let mut streams: HashMap<Key, AbortOnDropHandle<()>> = HashMap::new();
        loop {
            world.mark_unchanged();
            self.look(&mut streams, &reach);
            sleep(LOOKS_APART).await;
            tokio::select! {
                // The world lives as long as this.
                _ = world.changed() => {}
                () = self.is_asked.notified() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Opens the streams that are missing and closes those that nobody needs.
    fn look(self: &Arc<Self>, streams: &mut HashMap<Key, AbortOnDropHandle<()>>, reach: &Arc<Reach>) {
        let wanted = self.wanted(now());
        streams.retain(|broker, _| {
            let is_wanted = wanted.contains(broker);
            if !is_wanted {
                self.known().forget(broker);
            }
            is_wanted
        });
        for broker in wanted {
            let Entry::Vacant(entry) = streams.entry(broker) else { continue };
            self.known().begin(entry.key(), now());
            let stream = Arc::clone(self).stream(entry.key().clone(), Arc::clone(reach));
            entry.insert(AbortOnDropHandle::new(tokio::spawn(stream)));
        }
    }

    async fn stream(self: Arc<Self>, broker: Key, reach: Arc<Reach>) {
        match reach(&broker) {
            Ok(client) => match listen(&client, &One { streams: &self, broker: &broker }).await {},
            // Only of an address that no client takes, which no time mends.
            Err(error) => warn!(%broker, %error, "its event stream cannot be opened"),
        }
    }

    /// The Brokers to listen to: that store the queue of a push Consumer, or were asked about lately.
    fn wanted(&self, now: Instant) -> BTreeSet<Key> {
        let state = self.world.read();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, at| now.saturating_duration_since(*at) < ASKED_FOR);
        let mut wanted: BTreeSet<Key> = asked.keys().cloned().collect();
        drop(asked);
        for namespace in state.consumers.namespaces() {
            let resolution = state.resolve(namespace);
            let broker =
                |key: &Key| resolution.consumers.get(key).and_then(|consumer| consumer.broker.clone());
            wanted.extend(push_consumers(&state, Some(namespace)).filter_map(|key| broker(&key)));
        }
        wanted.retain(|broker| state.brokers.get(broker).is_some());
        drop(state);
        if wanted.len() > BROKERS_MAX {
            warn!(brokers = wanted.len(), most = BROKERS_MAX, "not all Brokers can be listened to");
            wanted = wanted.into_iter().take(BROKERS_MAX).collect();
        }
        wanted
    }

    /// What a Broker said of one of its queues. Who asks has it listened to for ten minutes.
    pub(crate) fn queue(&self, broker: &Key, queue: &Key) -> Sight {
        let now = now();
        let before = self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(broker.clone(), now);
        if before.is_none() {
            self.is_asked.notify_one();
        }
        self.known().queue(broker, queue, now)
    }

    /// What there is to do for a Consumer, push or pull. While its delivery is paused, only what pods have already.
    ///
    /// # Errors
    /// Nothing is known: why.
    pub(crate) fn of(&self, consumer: &Key) -> Result<Demand, Unseen> {
        let place = place(&self.world.read(), consumer)?;
        let broker = place.broker;
        match self.queue(&broker, &place.queue) {
            Sight::Seen { backlog, .. } => Ok(backlog.demand(now(), place.is_paused)),
            Sight::Missing => Err(Unseen::Undeclared { broker }),
            Sight::Unheard { since } => {
                Err(Unseen::Unheard { broker, since: now().saturating_duration_since(since) })
            }
        }
    }

    /// What there is to do for each push Consumer of which something is known, by namespace and name.
    pub(crate) fn all(&self) -> Vec<(Key, Demand)> {
        let consumers: Vec<Key> = push_consumers(&self.world.read(), None).collect();
        let seen = |key: Key| self.of(&key).ok().map(|demand| (key, demand));
        consumers.into_iter().filter_map(seen).collect()
    }

    /// Another value whenever anything that is known may have changed.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn tell(&self, broker: &Key, queues: &[Key]) {
        if queues.is_empty() {
            return;
        }
        self.changed.send_modify(|number| *number = number.wrapping_add(1));
        (self.nudge)(broker, queues);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a Consumer's messages are.
struct Place {
    broker: Key,
    queue: Key,
    is_paused: bool,
}

fn place(state: &State, consumer: &Key) -> Result<Place, Unseen> {
    let resolution = state.resolve(&consumer.namespace);
    let resolved = resolution.consumers.get(consumer).ok_or(Unseen::NoConsumer)?;
    let queue = &resolved.queue;
    let reason = match &resolved.finding {
        ConsumerFinding::Accepted => None,
        ConsumerFinding::InvalidName => Some("its name is not one that Capstan takes".to_owned()),
        ConsumerFinding::QueueNotFound => Some(format!("there is no Queue {queue}")),
        ConsumerFinding::QueueAlreadyConsumed { by } => {
            Some(format!("the Queue {queue} is consumed by the Consumer {by}"))
        }
        ConsumerFinding::DeadLetterQueueElsewhere { broker, .. } => {
            Some(format!("its dead-letter queue is on another Broker, {broker}"))
        }
    };
    if let Some(reason) = reason {
        return Err(Unseen::NotAccepted(reason));
    }
    let broker = resolved.broker.clone().ok_or(Unseen::NoConsumer)?;
    let is_paused = resolution.queues.get(queue).is_some_and(is_paused);
    Ok(Place { broker, queue: queue.clone(), is_paused })
}

/// Whether nothing of a queue is delivered, or not to its Consumer.
fn is_paused(queue: &ResolvedQueue) -> bool {
    let policy = queue.policy.as_ref();
    policy.is_some_and(|policy| {
        policy.delivery_paused || policy.consumer.as_ref().is_some_and(|consumer| consumer.paused)
    })
}

/// The Consumers that have a workload, everywhere or in one namespace.
fn push_consumers<'a>(state: &'a State, namespace: Option<&'a str>) -> impl Iterator<Item = Key> + 'a {
    let push = state.consumers.within(namespace).filter(|consumer| consumer.spec.target_ref.is_some());
    push.map(|consumer| Key::of(&consumer.metadata))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
