//! What is remembered of workloads that are scaled. Lost with the term of an operator: the next one begins cautiously.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capstan_crds::Key;
use capstan_crds::condition::Verdict;
use capstan_scaling::Memory;
use tokio::time::Instant;

use super::Target;
use super::shrink::Retirement;
use crate::world::Workload;

/// A number that the watch has not shown after so long is set again: the watch may be late, and that is nobody's fault.
const SHOWS: Duration = Duration::from_secs(60);

/// Everything that is remembered.
#[derive(Debug)]
pub(crate) struct Scales {
    start: Instant,
    entries: Mutex<HashMap<Target, Arc<tokio::sync::Mutex<Entry>>>>,
    shown: Mutex<HashMap<Key, Shown>>,
}

impl Default for Scales {
    fn default() -> Self {
        Self { start: Instant::now(), entries: Mutex::default(), shown: Mutex::default() }
    }
}

/// What a Consumer's status shows of its scaling.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shown {
    pub(crate) verdict: Verdict,
    pub(crate) target: Option<u32>,
}

impl Scales {
    /// The time by which decisions are made.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn entry(&self, target: &Target) -> Arc<tokio::sync::Mutex<Entry>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(entries.entry(target.clone()).or_default())
    }

    pub(super) fn forget(&self, target: &Target) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(target);
    }

    /// Another operator may have acted meanwhile.
    pub(crate) fn clear(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether something is remembered of a workload.
    pub(crate) fn has(&self, target: &Target) -> bool {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).contains_key(target)
    }

    /// What is shown of a Consumer.
    pub(crate) fn shown(&self, consumer: &Key) -> Option<Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).get(consumer).cloned()
    }

    /// Shows something of a Consumer; what was shown before.
    pub(super) fn show(&self, consumer: Key, shown: Option<Shown>) -> Option<Shown> {
        let mut all = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match shown {
            Some(shown) => all.insert(consumer, shown),
            None => all.remove(&consumer),
        }
    }
}

/// What is remembered of one workload.
#[derive(Debug, Default)]
pub(super) struct Entry {
    uid: String,
    /// The Consumers of which something is shown.
    pub(super) shown: BTreeSet<Key>,
    /// By the UID of the Consumer.
    memories: BTreeMap<String, Memory>,
    set: Option<Set>,
    pub(super) retirement: Option<Retirement>,
    /// Since when a rollout has kept pods from going.
    pub(super) rolls_since: Option<Instant>,
    /// Until when nothing is done for this number of pods, however much news there is.
    rests: Option<(u32, Instant)>,
    /// Why the API server refused that number.
    pub(super) refusal: Option<String>,
}

/// The number of pods that was set last.
#[derive(Debug)]
struct Set {
    replicas: u32,
    at: Instant,
    is_seen: bool,
}

/// What became of the number that was set last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    /// The watch has not shown it yet.
    Stale,
    /// Somebody wrote another one, which is not the one wanted.
    Reset,
    Known,
}

impl Entry {
    /// Forgets what is of another workload of the same name.
    pub(super) fn is_of(&mut self, uid: &str) {
        if self.uid != uid {
            *self = Self { uid: uid.to_owned(), shown: std::mem::take(&mut self.shown), ..Self::default() };
        }
    }

    pub(super) fn memory(&mut self, consumer: &str) -> &mut Memory {
        self.memories.entry(consumer.to_owned()).or_default()
    }

    /// Nothing is remembered of a Consumer any more.
    pub(super) fn forget(&mut self, consumer: &str) {
        self.memories.remove(consumer);
    }

    /// Nothing more is done for `total` pods, for a while.
    pub(super) fn rest(&mut self, total: u32, pause: Duration) {
        self.rests = Some((total, Instant::now() + pause));
    }

    /// How long nothing is to be done for `total` pods.
    pub(super) fn rests(&mut self, total: u32) -> Option<Duration> {
        let now = Instant::now();
        if self.rests.is_some_and(|(of, until)| of != total || until <= now) {
            (self.rests, self.refusal) = (None, None);
        }
        self.rests.map(|(_, until)| until - now)
    }

    /// Keeps what is remembered of these Consumers alone.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.memories.retain(|consumer, _| is_there(consumer));
    }

    /// A number was set.
    pub(super) fn set(&mut self, replicas: u32) {
        self.set = Some(Set { replicas, at: Instant::now(), is_seen: false });
    }

    /// Looks what became of it, with `wanted` pods to be.
    pub(super) fn watch(&mut self, workload: &Workload, wanted: u32) -> Watched {
        let Some(set) = &mut self.set else { return Watched::Known };
        if workload.replicas == set.replicas {
            set.is_seen = true;
            return Watched::Known;
        }
        if !set.is_seen {
            // What is needed beyond it must not wait.
            if wanted <= set.replicas && set.at.elapsed() < SHOWS {
                return Watched::Stale;
            }
            self.set = None;
            return Watched::Known;
        }
        // Whoever writes what is wanted is no rival.
        self.set = None;
        if workload.replicas == wanted { Watched::Known } else { Watched::Reset }
    }
}
