//! Which Brokers are listened to.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use capstan_api::control::Changes;
use capstan_api::{ClientError, ControlClient};
use capstan_crds::Key;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::known::{Known, Sight};
use super::listen::{Listener, listen};
use crate::world::World;

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
    /// There are more Brokers than can be listened to, and that was said.
    is_full: AtomicBool,
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
            is_full: AtomicBool::new(false),
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
            let push = state.consumers.within(Some(namespace)).filter(|one| one.spec.target_ref.is_some());
            let resolved = push.filter_map(|one| resolution.consumers.get(&Key::of(&one.metadata)));
            wanted.extend(resolved.filter_map(|one| one.broker.clone()));
        }
        wanted.retain(|broker| state.brokers.get(broker).is_some());
        drop(state);
        if wanted.len() > BROKERS_MAX {
            if !self.is_full.swap(true, Ordering::Relaxed) {
                warn!(brokers = wanted.len(), most = BROKERS_MAX, "not all Brokers can be listened to");
            }
            wanted = wanted.into_iter().take(BROKERS_MAX).collect();
        } else {
            self.is_full.store(false, Ordering::Relaxed);
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

#[cfg(test)]
#[path = "tests.rs"]
pub(crate) mod tests;
