//! Pulls that wait: for a first message, and then for a full batch. Oldest first.
//!
//! A pull is answered when its batch is full, `wait` after it first saw a ready message, or empty-handed after `idle`.

use std::collections::{BTreeMap, BTreeSet};

use capstan_core::{Pull, QueueId};
use tokio::sync::oneshot;

use super::Outcome;

/// Most pulls that wait; a further one is answered at once.
const WAITERS_MAX: usize = 20_000;

/// A pull and how long it waits.
pub(super) struct WaitingPull {
    pub(super) pull: Pull,
    /// Milliseconds to gather after the first ready message.
    pub(super) wait: u64,
    /// Milliseconds to wait for the first.
    pub(super) idle: u64,
    pub(super) reply: oneshot::Sender<Outcome>,
}

struct Waiter {
    pull: WaitingPull,
    idle_until: u64,
    gather_until: Option<u64>,
}

impl Waiter {
    fn deadline(&self) -> u64 {
        self.gather_until.unwrap_or(self.idle_until)
    }
}

/// All waiting pulls.
#[derive(Default)]
pub(super) struct Waiters {
    queues: BTreeMap<QueueId, BTreeMap<u64, Waiter>>,
    deadlines: BTreeSet<(u64, QueueId, u64)>,
    next: u64,
}

impl Waiters {
    pub(super) fn add(&mut self, pull: WaitingPull, now: u64) {
        let full = self.deadlines.len() >= WAITERS_MAX;
        let idle_until = if full { now } else { now.saturating_add(pull.idle) };
        let (id, queue) = (self.next, pull.pull.queue);
        self.next += 1;
        self.deadlines.insert((idle_until, queue, id));
        self.queues.entry(queue).or_default().insert(id, Waiter { pull, idle_until, gather_until: None });
    }

    /// When the next one is to be answered, whatever is there.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(at, ..)| *at)
    }

    /// Queues in which someone waits.
    pub(super) fn queues(&self) -> Vec<QueueId> {
        self.queues.keys().copied().collect()
    }

    /// How many wait, those that went away left out.
    pub(super) fn count(&self) -> usize {
        self.queues.values().flat_map(BTreeMap::values).filter(|one| !one.pull.reply.is_closed()).count()
    }

    /// Whether someone waits in a queue.
    pub(super) fn has(&self, queue: QueueId) -> bool {
        self.queues.contains_key(&queue)
    }

    /// Takes the pulls of a queue that are to be answered now, `most` of them, with `ready` messages to share.
    pub(super) fn due(&mut self, queue: QueueId, mut ready: u64, most: usize, now: u64) -> Vec<WaitingPull> {
        let Some(waiting) = self.queues.get_mut(&queue) else {
            return Vec::new();
        };
        let (mut due, mut left) = (Vec::new(), most);
        for (id, waiter) in waiting.iter_mut() {
            if waiter.pull.reply.is_closed() {
                due.push(*id);
                continue;
            }
            if ready == 0 || left == 0 {
                break;
            }
            let wanted = waiter.pull.pull.count as u64;
            if ready >= wanted || waiter.pull.wait == 0 || waiter.gather_until.is_some_and(|at| at <= now) {
                due.push(*id);
            } else if waiter.gather_until.is_none() {
                let until = now.saturating_add(waiter.pull.wait);
                self.deadlines.remove(&(waiter.deadline(), queue, *id));
                self.deadlines.insert((until, queue, *id));
                waiter.gather_until = Some(until);
            }
            ready = ready.saturating_sub(wanted);
            left -= 1;
        }
        self.take(queue, &due)
    }

    /// Takes the pulls whose time is over.
    pub(super) fn expired(&mut self, now: u64) -> Vec<WaitingPull> {
        let over: Vec<_> = self.deadlines.iter().take_while(|(at, ..)| *at <= now).copied().collect();
        over.into_iter().flat_map(|(_, queue, id)| self.take(queue, &[id])).collect()
    }

    /// Takes all pulls of a queue.
    pub(super) fn all(&mut self, queue: QueueId) -> Vec<WaitingPull> {
        let ids: Vec<u64> = self.queues.get(&queue).map(|w| w.keys().copied().collect()).unwrap_or_default();
        self.take(queue, &ids)
    }

    fn take(&mut self, queue: QueueId, ids: &[u64]) -> Vec<WaitingPull> {
        let Some(waiting) = self.queues.get_mut(&queue) else {
            return Vec::new();
        };
        let mut taken = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(waiter) = waiting.remove(id) {
                self.deadlines.remove(&(waiter.deadline(), queue, *id));
                if !waiter.pull.reply.is_closed() {
                    taken.push(waiter.pull);
                }
            }
        }
        if waiting.is_empty() {
            self.queues.remove(&queue);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use capstan_core::Holder;
    use proptest::prelude::*;

    use super::*;

    const QUEUE: QueueId = QueueId(1);
    const MANY: usize = usize::MAX;

    fn pull(count: usize, wait: u64, idle: u64) -> (WaitingPull, oneshot::Receiver<Outcome>) {
        let (reply, answer) = oneshot::channel();
        let pull = Pull { queue: QUEUE, count, bytes: u64::MAX, lease: None, holder: Holder::UNKNOWN };
        (WaitingPull { pull, wait, idle, reply }, answer)
    }

    fn counts(pulls: &[WaitingPull]) -> Vec<usize> {
        pulls.iter().map(|p| p.pull.count).collect()
    }

    #[test]
    fn a_full_batch_is_answered_at_once_and_the_oldest_first() {
        let mut waiters = Waiters::default();
        let answers = [3, 2, 1].map(|count| {
            let (pull, answer) = pull(count, 100, 1000);
            waiters.add(pull, 0);
            answer
        });
        assert_eq!(counts(&waiters.due(QUEUE, 0, MANY, 0)), [0; 0]);
        assert_eq!(counts(&waiters.due(QUEUE, 5, MANY, 0)), [3, 2]);
        assert_eq!(counts(&waiters.due(QUEUE, 1, MANY, 0)), [1]);
        drop(answers);
    }

    #[test]
    fn a_part_of_a_batch_is_answered_after_the_gathering_time() {
        let mut waiters = Waiters::default();
        let (pull, _answer) = pull(10, 100, 1000);
        waiters.add(pull, 0);
        assert_eq!(waiters.next_deadline(), Some(1000));
        assert!(waiters.due(QUEUE, 1, MANY, 500).is_empty());
        assert_eq!(waiters.next_deadline(), Some(600));
        assert!(waiters.expired(599).is_empty());
        assert_eq!(waiters.expired(600).len(), 1);
    }

    #[test]
    fn nothing_in_time_is_an_empty_answer() {
        let mut waiters = Waiters::default();
        let (pull, _answer) = pull(10, 100, 1000);
        waiters.add(pull, 0);
        assert_eq!(waiters.expired(1000).len(), 1);
        assert_eq!(waiters.next_deadline(), None);
    }

    #[test]
    fn an_abandoned_pull_takes_nothing_from_the_next() {
        let mut waiters = Waiters::default();
        let (first, answer) = pull(1, 0, 1000);
        let (second, _kept) = pull(2, 0, 1000);
        waiters.add(first, 0);
        waiters.add(second, 0);
        drop(answer);
        assert_eq!(counts(&waiters.due(QUEUE, 1, MANY, 0)), [2]);
        assert_eq!(waiters.next_deadline(), None);
    }

    /// What happens to waiting pulls.
    #[derive(Debug, Clone)]
    enum Step {
        Add { queue: u32, count: usize, wait: u64, idle: u64 },
        GoAway(usize),
        Due { queue: u32, ready: u64, most: usize },
        Pass(u64),
        All(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3u32, 1..5usize, 0..50u64, 0..100u64).prop_map(|(queue, count, wait, idle)| Step::Add {
                queue,
                count,
                wait,
                idle
            }),
            any::<usize>().prop_map(Step::GoAway),
            (0..3u32, 0..8u64, 0..4usize).prop_map(|(queue, ready, most)| Step::Due { queue, ready, most }),
            (1..60u64).prop_map(Step::Pass),
            (0..3u32).prop_map(Step::All),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Each pull is taken once, the oldest first, in time, and never when its client went away.
        #[test]
        fn every_pull_is_answered_once_and_in_time(steps in prop::collection::vec(step(), 1..80)) {
            let (mut waiters, mut now) = (Waiters::default(), 0);
            // By their own number: the answers that are still awaited, and when they are due at the latest.
            let mut awaited: BTreeMap<u64, (oneshot::Receiver<Outcome>, u64)> = BTreeMap::new();
            let mut next = 0;
            for step in steps {
                let taken = match step {
                    Step::Add { queue, count, wait, idle } => {
                        let (reply, answer) = oneshot::channel();
                        // Its number travels as its limit of bytes.
                        let pull = Pull { queue: QueueId(queue), count, bytes: next, lease: None, holder: Holder::UNKNOWN };
                        waiters.add(WaitingPull { pull, wait, idle, reply }, now);
                        awaited.insert(next, (answer, now + wait + idle));
                        next += 1;
                        Vec::new()
                    }
                    Step::GoAway(pick) => {
                        let numbers: Vec<u64> = awaited.keys().copied().collect();
                        if !numbers.is_empty() {
                            awaited.remove(&numbers[pick % numbers.len()]);
                        }
                        Vec::new()
                    }
                    Step::Due { queue, ready, most } => {
                        let due = waiters.due(QueueId(queue), ready, most, now);
                        prop_assert!(due.len() <= most && (ready > 0 || due.is_empty()));
                        prop_assert!(due.is_sorted_by_key(|one| one.pull.bytes), "the oldest first");
                        due
                    }
                    Step::Pass(millis) => {
                        now += millis;
                        waiters.expired(now)
                    }
                    Step::All(queue) => waiters.all(QueueId(queue)),
                };
                for one in taken {
                    prop_assert!(awaited.remove(&one.pull.bytes).is_some(), "taken twice, or after it went away");
                }
                prop_assert_eq!(waiters.count(), awaited.len());
                prop_assert!(waiters.next_deadline().is_none_or(|at| at >= now));
                prop_assert!(awaited.values().all(|(_, latest)| *latest >= now), "late");
            }
            waiters.expired(u64::MAX);
            prop_assert_eq!(waiters.next_deadline(), None);
            prop_assert!(waiters.queues().is_empty());
        }
    }
}
