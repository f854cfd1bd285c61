//! What is remembered of workloads that are scaled. Lost with the term of an operator: the next one begins cautiously.

use std::borrow::Cow;
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

/// How long a number that was set counts although the watch does not show it: an API server that was put back to an earlier state
/// never will.
const COUNTS: Duration = Duration::from_secs(300);
/// How long a broker may not say who is at work before that is said.
const UNSAID: Duration = Duration::from_secs(20);

/// Everything that is remembered.
#[derive(Debug)]
pub(crate) struct Scales {
    start: Instant,
    entries: Mutex<HashMap<Target, Arc<tokio::sync::Mutex<Entry>>>>,
    /// By Consumer; of which workload it is shown.
    shown: Mutex<HashMap<Key, (Target, Shown)>>,
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

    /// What is shown of a Consumer of a workload.
    pub(crate) fn shown(&self, consumer: &Key, target: &Target) -> Option<Shown> {
        let all = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(consumer).filter(|(of, _)| of == target).map(|(_, shown)| shown.clone())
    }

    /// Shows something of a Consumer of a workload, or nothing more; what was shown before. What is shown of the workload that the
    /// Consumer names by now stays.
    pub(super) fn show(&self, consumer: Key, target: &Target, shown: Option<Shown>) -> Option<Shown> {
        let mut all = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match shown {
            Some(shown) => all.insert(consumer, (target.clone(), shown)),
            None if all.get(&consumer).is_some_and(|(of, _)| of == target) => all.remove(&consumer),
            None => None,
        };
        before.filter(|(of, _)| of == target).map(|(_, shown)| shown)
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
    /// Since when a Consumer's Queue is gone, by the UID of the Consumer.
    gone: BTreeMap<String, Duration>,
    set: Option<Set>,
    /// Its pods were looked through for marks of an operator before this one.
    pub(super) is_looked_through: bool,
    /// Since when the broker does not say who is at work, and why.
    unsaid: Option<(Instant, String)>,
    pub(super) retirement: Option<Retirement>,
    /// Since when a rollout has kept pods from going.
    pub(super) rolls_since: Option<Instant>,
    /// Until when nothing is done for this number of pods, however much news there is.
    rests: Option<(u32, Instant)>,
    /// Why the API server refused that number.
    pub(super) refusal: Option<String>,
}

/// The number of pods that was set last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Set {
    replicas: u32,
    /// The version of the workload that has it. None while there is no answer, and when that was lost.
    version: Option<u64>,
    at: Instant,
}

impl Entry {
    /// Forgets what is of another workload of the same name; whether this one is looked at for the first time.
    pub(super) fn begin(&mut self, workload: &Workload) -> bool {
        let is_new = self.uid != workload.uid;
        if is_new {
            let (uid, shown) = (workload.uid.clone(), std::mem::take(&mut self.shown));
            *self = Self { uid, shown, ..Self::default() };
            // Whoever sets back what an operator before this one set does so to this one.
            if workload.owns_replicas {
                self.set(workload.replicas, workload.version);
            }
        }
        is_new
    }

    pub(super) fn memory(&mut self, consumer: &str) -> &mut Memory {
        self.memories.entry(consumer.to_owned()).or_default()
    }

    /// Nothing is remembered of a Consumer any more.
    pub(super) fn forget(&mut self, consumer: &str) {
        self.memories.remove(consumer);
    }

    /// A Consumer's Queue is gone, or there; how long it has been gone.
    pub(super) fn gone(&mut self, consumer: &str, is_gone: bool, now: Duration) -> Duration {
        if !is_gone {
            self.gone.remove(consumer);
            return Duration::ZERO;
        }
        now.saturating_sub(*self.gone.entry(consumer.to_owned()).or_insert(now))
    }

    /// Nothing more is done for `total` pods, for a while.
    pub(super) fn rest(&mut self, total: u32, pause: Duration) {
        self.rests = Some((total, Instant::now() + pause));
    }

    /// How long nothing is to be done for `total` pods, of which there are `current`.
    pub(super) fn rests(&mut self, total: u32, current: u32) -> Option<Duration> {
        let (of, until) = self.rests?;
        // What refused one number is asked no sooner for another one in the same direction.
        // Nor is it forgotten because the demand falls for a moment to what there is.
        let is_alike = self.refusal.is_some() && (total == current || (total > current) == (of > current));
        if of != total && !is_alike {
            self.refusal = None;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || (of != total && !is_alike) {
            self.rests = None;
            return None;
        }
        Some(left)
    }

    /// Keeps what is remembered of these Consumers alone.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.memories.retain(|consumer, _| is_there(consumer));
        self.gone.retain(|consumer, _| is_there(consumer));
    }

    /// A number is set, or was, in this version of the workload.
    pub(super) fn set(&mut self, replicas: u32, version: Option<u64>) {
        self.set = Some(Set { replicas, version, at: Instant::now() });
    }

    /// The number that was set last.
    pub(super) fn number(&self) -> Option<u32> {
        self.set.map(|set| set.replicas)
    }

    /// The API server did not take the number, or somebody else sets it.
    pub(super) fn unset(&mut self) {
        self.set = None;
    }

    /// The workload as it is known to be: what was set counts before the watch shows it.
    pub(super) fn known<'a>(&self, workload: &'a Workload) -> Cow<'a, Workload> {
        match self.set {
            Some(set) if workload.version < set.version && set.at.elapsed() < COUNTS => {
                Cow::Owned(Workload {
                    replicas: set.replicas,
                    version: set.version,
                    owns_replicas: true,
                    is_observed: false,
                    ..workload.clone()
                })
            }
            _ => Cow::Borrowed(workload),
        }
    }

    /// Whether somebody set the number of a known workload back since it was set here, to what is not `wanted` either. Told once.
    pub(super) fn was_reset(&mut self, workload: &Workload, wanted: u32) -> bool {
        let Some(set) = self.set.take_if(|set| set.replicas != workload.replicas) else { return false };
        // Of a number whose answer was lost it is not known whether it was taken, nor when.
        set.version.is_some() && !workload.owns_replicas && workload.replicas != wanted
    }

    /// The broker said who is at work, or why it did not.
    pub(super) fn said(&mut self, why_not: Option<String>) {
        self.unsaid = why_not.map(|text| {
            let since = self.unsaid.as_ref().map_or_else(Instant::now, |(since, _)| *since);
            (since, text)
        });
    }

    /// Why the broker has not said for long who is at work.
    pub(super) fn unsaid(&self) -> Option<&str> {
        let (since, text) = self.unsaid.as_ref()?;
        (since.elapsed() >= UNSAID).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_that_a_consumer_has_left_takes_nothing_along() {
        let (scales, consumer) = (Scales::default(), Key::new("shop", "a"));
        let target = |name: &str| ("shop".to_owned(), format!("Deployment/{name}").parse().unwrap());
        let shown = |target| {
            let verdict = Verdict::no(capstan_crds::condition::reason::CALLS_FAILING, "");
            Some(Shown { verdict, target: Some(target) })
        };
        scales.show(consumer.clone(), &target("old"), shown(1));
        assert_eq!(scales.shown(&consumer, &target("new")), None);
        assert_eq!(scales.show(consumer.clone(), &target("new"), shown(2)), None, "all of it is news");
        assert_eq!(scales.show(consumer.clone(), &target("old"), None), None);
        assert_eq!(scales.shown(&consumer, &target("new")), shown(2));
        scales.show(consumer.clone(), &target("new"), None);
        assert_eq!(scales.shown(&consumer, &target("new")), None);
    }

    fn workload(replicas: u32, version: u64, owns_replicas: bool) -> Workload {
        Workload { replicas, version: Some(version), owns_replicas, is_observed: true, ..Workload::default() }
    }

    #[test]
    fn what_was_set_counts_before_the_watch_shows_it() {
        let mut entry = Entry::default();
        entry.set(0, Some(10));
        let late = workload(3, 9, true);
        let known = entry.known(&late);
        assert_eq!((known.replicas, known.is_observed), (0, false));
        assert!(!entry.was_reset(&known, 1), "the watch is late");
        let shown = workload(0, 10, true);
        assert_eq!(*entry.known(&shown), shown);
    }

    #[test]
    fn a_number_that_somebody_else_wrote_since_is_a_reset_once() {
        let mut entry = Entry::default();
        entry.set(4, Some(10));
        assert!(!entry.was_reset(&workload(4, 12, false), 5), "the same number is none");
        assert!(entry.was_reset(&workload(1, 12, false), 4), "whether the watch showed ours before or not");
        assert!(!entry.was_reset(&workload(1, 12, false), 4), "told once");
        entry.set(4, Some(20));
        assert!(!entry.was_reset(&workload(5, 21, false), 5), "whoever writes what is wanted is no rival");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_is_tried_each_minute_however_much_more_is_needed() {
        let mut entry = Entry::default();
        entry.rest(5, Duration::from_secs(60));
        entry.refusal = Some("no".to_owned());
        assert!(entry.rests(5, 2).is_some() && entry.rests(9, 2).is_some());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((entry.rests(9, 2), entry.refusal.is_some()), (None, true), "said until it is taken");
        entry.rest(9, Duration::from_secs(60));
        assert_eq!((entry.rests(1, 2), entry.refusal.is_some()), (None, false), "another matter");
        entry.rest(5, Duration::from_secs(60));
        assert_eq!(entry.rests(6, 2), None, "what rests for other reasons is of one number");
    }

    #[test]
    fn a_number_of_an_operator_before_is_known() {
        let mut entry = Entry::default();
        assert!(entry.begin(&Workload { uid: "a".to_owned(), ..workload(4, 10, true) }));
        assert!(entry.was_reset(&workload(1, 12, false), 4));
        let mut entry = Entry::default();
        entry.begin(&Workload { uid: "a".to_owned(), ..workload(4, 10, false) });
        assert!(!entry.was_reset(&workload(1, 12, false), 4), "that was nobody's of us");
    }

    #[test]
    fn a_number_whose_answer_was_lost_is_nobody_elses() {
        let mut entry = Entry::default();
        entry.set(4, None);
        assert!(!entry.was_reset(&workload(1, 9, false), 4), "perhaps it was not taken");
        entry.set(5, Some(30));
        assert!(!entry.was_reset(&workload(4, 31, true), 5), "it was taken late");
    }
}
