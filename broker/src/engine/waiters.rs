//! Pulls that wait: for a first message, and then for a full batch. Oldest first.
//!
//! A pull is answered when its batch is full, `wait` after it first saw a ready message, or empty-handed after `idle`.

use std::collections::{BTreeMap, BTreeSet};

use capstan_core::{Holder, Pull, QueueId};
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

    /// Those that wait, also such as went away.
    pub(super) fn pulls(&self) -> impl Iterator<Item = &WaitingPull> {
        self.queues.values().flat_map(BTreeMap::values).map(|waiter| &waiter.pull)
    }

    /// How many wait, those that went away left out.
    pub(super) fn count(&self) -> usize {
        self.pulls().filter(|pull| !pull.reply.is_closed()).count()
    }

    /// Whether someone waits in a queue.
    pub(super) fn has(&self, queue: QueueId) -> bool {
        self.queues.contains_key(&queue)
    }

    /// Takes the pulls of a queue that are to be answered now, `most` of them, with `ready` messages to share. Those of
    /// holders that retire wait on, as if they were not there.
    pub(super) fn due(
        &mut self,
        queue: QueueId,
        mut ready: u64,
        most: usize,
        now: u64,
        is_retiring: impl Fn(Holder) -> bool,
    ) -> Vec<WaitingPull> {
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
            if is_retiring(waiter.pull.pull.holder) {
                continue;
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

    const fn nobody(_: Holder) -> bool {
        false
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
        assert_eq!(counts(&waiters.due(QUEUE, 0, MANY, 0, nobody)), [0; 0]);
        assert_eq!(counts(&waiters.due(QUEUE, 5, MANY, 0, nobody)), [3, 2]);
        assert_eq!(counts(&waiters.due(QUEUE, 1, MANY, 0, nobody)), [1]);
        drop(answers);
    }

    #[test]
    fn a_part_of_a_batch_is_answered_after_the_gathering_time() {
        let mut waiters = Waiters::default();
        let (pull, _answer) = pull(10, 100, 1000);
        waiters.add(pull, 0);
        assert_eq!(waiters.next_deadline(), Some(1000));
        assert!(waiters.due(QUEUE, 1, MANY, 500, nobody).is_empty());
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
        assert_eq!(counts(&waiters.due(QUEUE, 1, MANY, 0, nobody)), [2]);
        assert_eq!(waiters.next_deadline(), None);
    }

    #[test]
    fn a_pull_of_one_that_retires_waits_on_and_keeps_nothing_from_others() {
        let mut waiters = Waiters::default();
        let [(first, _first), (second, _second), (third, _third)] =
            [3, 2, 1].map(|count| pull(count, 0, 1000));
        for (number, mut pull) in [first, second, third].into_iter().enumerate() {
            pull.pull.holder = Holder(number as u64);
            waiters.add(pull, 0);
        }
        let first_retires = |holder| holder == Holder(0);
        assert_eq!(counts(&waiters.due(QUEUE, 3, 1, 0, first_retires)), [2], "one may be answered");
        assert_eq!(counts(&waiters.due(QUEUE, 3, MANY, 0, first_retires)), [1]);
        assert!(waiters.due(QUEUE, 3, MANY, 0, first_retires).is_empty());
        assert_eq!((waiters.count(), waiters.next_deadline()), (1, Some(1000)));
        assert_eq!(counts(&waiters.due(QUEUE, 3, MANY, 0, nobody)), [3], "it retires no more");
    }

    /// What happens to waiting pulls.
    #[derive(Debug, Clone)]
    enum Step {
        Add {
            queue: u32,
            count: usize,
            wait: u64,
            idle: u64,
            pod: u64,
        },
        GoAway(usize),
        Due {
            queue: u32,
            ready: u64,
            most: usize,
        },
        Pass(u64),
        All(u32),
        /// The pods of these bits retire.
        Retire(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..3u32, 1..5usize, 0..50u64, 0..100u64, 0..4u64)
                .prop_map(|(queue, count, wait, idle, pod)| Step::Add { queue, count, wait, idle, pod }),
            1 => any::<usize>().prop_map(Step::GoAway),
            2 => (0..3u32, 0..8u64, 0..4usize).prop_map(|(queue, ready, most)| Step::Due { queue, ready, most }),
            1 => (1..60u64).prop_map(Step::Pass),
            1 => (0..3u32).prop_map(Step::All),
            1 => (0..16u64).prop_map(Step::Retire),
        ]
    }

    fn is_in(pods: u64) -> impl Fn(Holder) -> bool {
        move |holder| pods & (1 << holder.0) != 0
    }

    impl Waiters {
        /// Adds a pull whose own number travels as its limit of bytes; `None` for other steps.
        fn step_add(&mut self, step: &Step, number: u64, now: u64) -> Option<oneshot::Receiver<Outcome>> {
            let Step::Add { queue, count, wait, idle, pod } = *step else { return None };
            let (reply, answer) = oneshot::channel();
            let (queue, holder) = (QueueId(queue), Holder(pod));
            let pull = Pull { queue, count, bytes: number, lease: None, holder };
            self.add(WaitingPull { pull, wait, idle, reply }, now);
            Some(answer)
        }

        /// What a step takes.
        fn step_take(&mut self, step: &Step, now: u64, retiring: u64) -> Vec<WaitingPull> {
            match *step {
                Step::Due { queue, ready, most } => {
                    self.due(QueueId(queue), ready, most, now, is_in(retiring))
                }
                Step::Pass(_) => self.expired(now),
                Step::All(queue) => self.all(QueueId(queue)),
                Step::Add { .. } | Step::GoAway(_) | Step::Retire(_) => Vec::new(),
            }
        }
    }

    /// By their own number: the answers that are still awaited, and when they are due at the latest.
    type Awaited = BTreeMap<u64, (Vec<oneshot::Receiver<Outcome>>, u64)>;

    fn go_away(awaited: &mut Awaited, step: &Step) {
        if let Step::GoAway(pick) = step
            && let Some(number) = awaited.keys().nth(pick % awaited.len().max(1)).copied()
        {
            awaited.remove(&number);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Each pull is taken once, the oldest first, in time, and never when its client went away; while its pod retires,
        /// only when its time is over.
        #[test]
        fn every_pull_is_answered_once_and_in_time(steps in prop::collection::vec(step(), 1..80)) {
            let (mut waiters, mut now, mut retiring) = (Waiters::default(), 0, 0);
            let mut awaited = Awaited::new();
            for (number, step) in (0..).zip(steps) {
                match step {
                    Step::Pass(millis) => now += millis,
                    Step::Retire(pods) => retiring = pods,
                    _ => {}
                }
                if let (Step::Add { wait, idle, .. }, Some(answer)) = (&step, waiters.step_add(&step, number, now)) {
                    awaited.insert(number, (vec![answer], now + wait + idle));
                }
                go_away(&mut awaited, &step);
                let taken = waiters.step_take(&step, now, retiring);
                if let Step::Due { ready, most, .. } = step {
                    prop_assert!(taken.len() <= most && (ready > 0 || taken.is_empty()));
                    prop_assert!(taken.is_sorted_by_key(|one| one.pull.bytes), "the oldest first");
                    prop_assert!(!taken.iter().any(|one| is_in(retiring)(one.pull.holder)), "it retires");
                }
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

        /// Everybody else gets exactly what they would if those that retire were not there.
        #[test]
        fn those_that_retire_change_nothing_for_others(
            steps in prop::collection::vec(step(), 1..80),
            retiring in 1..16u64,
        ) {
            let (mut all, mut others, mut now) = (Waiters::default(), Waiters::default(), 0);
            let mut awaited = Awaited::new();
            for (number, step) in (0..).zip(steps) {
                if let Step::Pass(millis) = step {
                    now += millis;
                }
                let is_other = !matches!(step, Step::Add { pod, .. } if is_in(retiring)(Holder(pod)));
                let mut answers: Vec<_> = all.step_add(&step, number, now).into_iter().collect();
                answers.extend(is_other.then(|| others.step_add(&step, number, now)).flatten());
                if !answers.is_empty() {
                    awaited.insert(number, (answers, 0));
                }
                go_away(&mut awaited, &step);
                let numbers = |taken: Vec<WaitingPull>| {
                    let kept = taken.into_iter().filter(|one| !is_in(retiring)(one.pull.holder));
                    kept.map(|one| one.pull.bytes).collect::<Vec<_>>()
                };
                let (taken, without) = (all.step_take(&step, now, retiring), others.step_take(&step, now, 0));
                for one in &taken {
                    awaited.remove(&one.pull.bytes);
                }
                prop_assert_eq!(numbers(taken), numbers(without));
            }
        }
    }
}
