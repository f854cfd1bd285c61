//! The work queue: which unit is reconciled when, each by one worker at a time, again after failures.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Events that come this close together are one piece of work.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// The first pause after a failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// The longest pause after a failure.
const BACKOFF_LAST: Duration = Duration::from_secs(60);

/// How a reconciliation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do before the next event.
    Done,
    /// Look again after about this long.
    Again(Duration),
    /// Try again, later with every failure.
    Failed,
}

/// How many units are in which state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    /// For their time.
    pub waiting: usize,
    /// For a worker, or for the one that works on them.
    pub due: usize,
    pub running: usize,
    /// Failed at the last try.
    pub failing: usize,
    /// How long the first of those that are due has waited.
    pub oldest_due: Duration,
}

/// Units waiting for a worker. The order of `U` decides between those that are due at once.
#[derive(Debug)]
pub struct WorkQueue<U> {
    state: Mutex<State<U>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<U> {
    due: BTreeSet<(Instant, U)>,
    at: HashMap<U, Instant>,
    running: HashSet<U>,
    failures: HashMap<U, u32>,
}

impl<U: Clone + Ord + Hash> Default for WorkQueue<U> {
    fn default() -> Self {
        Self::new()
    }
}

impl<U: Clone + Ord + Hash> WorkQueue<U> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            due: BTreeSet::new(),
            at: HashMap::new(),
            running: HashSet::new(),
            failures: HashMap::new(),
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Something happened to a unit.
    pub fn add(&self, unit: U) {
        self.state().schedule(unit, Instant::now() + DEBOUNCE);
        self.changed.notify_one();
    }

    /// Something is to be looked at so much later, at the latest.
    pub fn add_after(&self, unit: U, pause: Duration) {
        self.state().schedule(unit, Instant::now() + pause);
        self.changed.notify_one();
    }

    /// Whether something is to be looked at within so long anyway.
    #[must_use]
    pub fn comes_within(&self, unit: &U, pause: Duration) -> bool {
        self.state().at.get(unit).is_some_and(|at| *at <= Instant::now() + pause)
    }

    /// Lets everything that is due come in the order of the units, in whichever order it was added: for the start, when
    /// everything is added, and what others wait for should come first.
    pub fn sort(&self) {
        let (now, mut state) = (Instant::now(), self.state());
        for (_, unit) in std::mem::take(&mut state.due) {
            let at = state.at.entry(unit.clone()).or_insert(now);
            *at = (*at).max(now);
            let due = (*at, unit);
            state.due.insert(due);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The next unit that is due and that nobody works on. The caller ends with [`WorkQueue::finish`].
    pub async fn next(&self) -> U {
        loop {
            let changed = self.changed.notified();
            let wake = match self.state().take(Instant::now()) {
                Ok(unit) => {
                    // One notice may stand for several units: let the next worker look at the rest.
                    self.changed.notify_one();
                    return unit;
                }
                Err(wake) => wake,
            };
            match wake {
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Ends the work on a unit. `jitter` between 0 and 1 spreads what would come at once.
    pub fn finish(&self, unit: U, outcome: Outcome, jitter: f64) {
        let mut state = self.state();
        state.running.remove(&unit);
        let pause = match outcome {
            Outcome::Failed => Some(state.backoff(&unit)),
            Outcome::Again(pause) => Some(pause),
            Outcome::Done => None,
        };
        if outcome != Outcome::Failed {
            state.failures.remove(&unit);
        }
        if let Some(pause) = pause {
            state.schedule(unit, Instant::now() + pause.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0)));
        }
        drop(state);
        self.changed.notify_one();
    }

    /// How much there is.
    pub fn load(&self) -> Load {
        let (state, now) = (self.state(), Instant::now());
        let due = state.due.iter().take_while(|(at, _)| *at <= now).count();
        Load {
            waiting: state.due.len() - due,
            due,
            running: state.running.len(),
            failing: state.failures.len(),
            oldest_due: state
                .due
                .first()
                .map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at)),
        }
    }

    /// Whoever worked was cut off: what they had is due again.
    pub fn abandon(&self) {
        let mut state = self.state();
        for unit in std::mem::take(&mut state.running) {
            state.schedule(unit, Instant::now());
        }
        drop(state);
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State<U>> {
        // A panic ends the process, so no other thread can have left the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<U: Clone + Ord + Hash> State<U> {
    /// The earlier of the times wins.
    fn schedule(&mut self, unit: U, at: Instant) {
        if let Some(old) = self.at.get(&unit).copied() {
            if old <= at {
                return;
            }
            self.due.remove(&(old, unit.clone()));
        }
        self.at.insert(unit.clone(), at);
        self.due.insert((at, unit));
    }

    /// A unit to work on, or when to look again. Units somebody works on wait until that ends.
    fn take(&mut self, now: Instant) -> Result<U, Option<Instant>> {
        let idle = self.due.iter().find(|(_, unit)| !self.running.contains(unit));
        match idle.cloned() {
            Some((at, unit)) if at <= now => {
                self.due.remove(&(at, unit.clone()));
                self.at.remove(&unit);
                self.running.insert(unit.clone());
                Ok(unit)
            }
            Some((at, _)) => Err(Some(at)),
            None => Err(None),
        }
    }

    fn backoff(&mut self, unit: &U) -> Duration {
        let failures = self.failures.entry(unit.clone()).or_insert(0);
        let pause = BACKOFF_FIRST.saturating_mul(1 << (*failures).min(10));
        *failures += 1;
        pause.min(BACKOFF_LAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_idle(queue: &WorkQueue<u32>, time: Duration) -> bool {
        tokio::time::timeout(time, queue.next()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn events_close_together_are_one_piece_of_work() {
        let queue = WorkQueue::new();
        queue.add(1);
        queue.add(1);
        queue.add(2);
        assert_eq!((queue.next().await, queue.next().await), (1, 2));
        assert!(is_idle(&queue, Duration::from_secs(3600)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_added_before_the_start_comes_in_the_order_of_the_units() {
        let queue = WorkQueue::new();
        for unit in [3, 1, 2] {
            queue.add(unit);
            tokio::time::advance(DEBOUNCE * 2).await;
        }
        queue.sort();
        assert_eq!((queue.next().await, queue.next().await, queue.next().await), (1, 2, 3));
        assert!(is_idle(&queue, Duration::from_secs(3600)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_unit_is_worked_on_by_one_at_a_time() {
        let queue = WorkQueue::new();
        queue.add(1);
        assert_eq!(queue.next().await, 1);
        queue.add(1);
        assert!(is_idle(&queue, Duration::from_secs(3600)).await);
        queue.finish(1, Outcome::Done, 0.5);
        assert_eq!(queue.next().await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_come_back_ever_later_but_an_event_at_once() {
        let queue = WorkQueue::new();
        queue.add(1);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            queue.next().await;
            let start = Instant::now();
            queue.finish(1, Outcome::Failed, 0.5);
            queue.next().await;
            pauses.push(start.elapsed().as_millis());
            queue.finish(1, Outcome::Failed, 0.5);
        }
        assert_eq!((pauses[0], pauses[1], pauses[9]), (500, 2000, 60_000));
        queue.add(1);
        let start = Instant::now();
        queue.next().await;
        assert_eq!(start.elapsed().as_millis(), 20);
        queue.finish(1, Outcome::Done, 0.5);
        assert!(is_idle(&queue, Duration::from_secs(3600)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_unit_that_always_fails_delays_no_other() {
        let queue = WorkQueue::new();
        queue.add(0);
        let start = Instant::now();
        let (mut tries, mut latest) = (0, Duration::ZERO);
        // A worker for a minute, while another unit has an event each second.
        for second in 0..60 {
            queue.add(1 + second);
            let added = Instant::now();
            let next_second = start + Duration::from_secs(second + 1);
            while let Ok(unit) = tokio::time::timeout_at(next_second, queue.next()).await {
                if unit == 0 {
                    tries += 1;
                    queue.finish(unit, Outcome::Failed, 0.5);
                } else {
                    latest = latest.max(added.elapsed());
                    queue.finish(unit, Outcome::Done, 0.5);
                }
            }
        }
        assert!((5..=8).contains(&tries), "0.5 + 1 + 2 + 4 + 8 + 16 + 32 s: {tries}");
        assert_eq!(latest, DEBOUNCE);
        assert_eq!(queue.load().failing, 1);
    }

    #[test]
    fn pauses_after_failures_differ_from_unit_to_unit() {
        let at = |jitter| {
            let queue = WorkQueue::new();
            queue.state().running.insert(1);
            queue.finish(1, Outcome::Failed, jitter);
            queue.state().at[&1].duration_since(Instant::now()).as_millis()
        };
        assert!((390..=400).contains(&at(0.0)) && (590..=600).contains(&at(1.0)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_cut_off_is_due_again_and_counted() {
        let queue = WorkQueue::new();
        (0..3).for_each(|unit| queue.add(unit));
        assert_eq!(queue.load(), Load { waiting: 3, ..Load::default() });
        assert_eq!(queue.next().await, 0);
        let oldest_due = Duration::from_secs(2);
        tokio::time::advance(oldest_due).await;
        assert_eq!(queue.load(), Load { due: 2, running: 1, oldest_due, ..Load::default() });
        queue.abandon();
        let mut units = [queue.next().await, queue.next().await, queue.next().await];
        units.sort_unstable();
        assert_eq!(units, [0, 1, 2]);
    }
}
