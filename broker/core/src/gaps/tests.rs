//! Gaps beside a set of living messages.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const LEAST: u64 = 3;

/// What happens to one table.
#[derive(Debug, Clone)]
enum Step {
    Put { skipped: u64 },
    Remove(usize),
    Reach(u64),
    Pass,
    Bound(usize),
    Record(usize),
    Look { from: usize, most: usize },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop_oneof![4 => Just(0), 1 => 1..9u64].prop_map(|skipped| Step::Put { skipped }),
        9 => any::<usize>().prop_map(Step::Remove),
        1 => (0..9u64).prop_map(Step::Reach),
        1 => Just(Step::Pass),
        1 => (2..8usize).prop_map(Step::Bound),
        2 => (0..4usize).prop_map(Step::Record),
        2 => (any::<usize>(), 1..5usize).prop_map(|(from, most)| Step::Look { from, most }),
        1 => Just(Step::Reopen),
    ]
}

/// The messages that live, and the gaps beside them.
struct Run {
    gaps: Gaps,
    living: BTreeSet<Seq>,
    low: Seq,
    tail: Seq,
    /// What the last record says, which the store may act upon for ever.
    record: Vec<Gap>,
}

impl Run {
    fn pick(&self, pick: usize) -> Option<Seq> {
        self.living.iter().nth(pick % self.living.len().max(1)).copied()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Put { skipped } => {
                let seq = Seq(self.tail.0 + skipped);
                self.tail = seq.next();
                self.gaps.put(seq, usize::MAX);
                self.living.insert(seq);
            }
            Step::Remove(pick) => {
                if let Some(seq) = self.pick(pick) {
                    self.living.remove(&seq);
                    self.gaps.add(seq..seq.next());
                }
            }
            Step::Reach(by) => {
                self.tail = Seq(self.tail.0 + by);
                self.gaps.reach(self.tail);
            }
            Step::Pass => {
                self.low = self.living.first().copied().unwrap_or(self.tail);
                self.gaps.pass(self.low);
            }
            Step::Bound(most) => {
                self.gaps.bound(most);
                assert!(self.gaps.ranges.len() <= most + self.gaps.recorded.len());
            }
            Step::Record(most) => self.record(most),
            Step::Look { from, most } => self.look(from, most),
            Step::Reopen => {
                self.gaps = Gaps::new(self.record.clone(), self.tail);
                self.gaps.pass(self.low);
            }
        }
        self.check();
    }

    fn record(&mut self, most: usize) {
        let before = self.gaps.recorded.len();
        let changed = self.gaps.record(LEAST, most);
        let recorded = self.gaps.recorded.clone();
        assert!(recorded.len() <= most.max(before), "{recorded:?}");
        assert!(recorded.is_sorted_by(|a, b| a.end < b.start));
        for gap in self.record.iter().filter(|gap| gap.end > self.low) {
            let start = gap.start.max(self.low);
            assert!(recorded.iter().any(|now| now.start <= start && gap.end <= now.end), "{gap:?} is lost");
        }
        assert_eq!(changed, recorded != self.record, "{recorded:?}, was {:?}", self.record);
        self.record = recorded;
    }

    fn look(&mut self, from: usize, most: usize) {
        let from = self.pick(from).unwrap_or(self.low).max(self.low);
        let mut at = from;
        let mut found: Vec<Seq> = Vec::new();
        while found.len() < most
            && let Some(stretch) = self.gaps.stretch(at, LEAST)
        {
            let these: Vec<Seq> =
                self.living.range(stretch.clone()).take(most - found.len()).copied().collect();
            at = stretch.end;
            found.extend(&these);
            self.gaps.learn(stretch, these.into_iter(), found.len() < most, LEAST);
        }
        let expected: Vec<Seq> = self.living.range(from..).take(most).copied().collect();
        assert_eq!(found, expected, "from {from:?}");
    }

    fn check(&self) {
        let ranges: Vec<Gap> = self.gaps.ranges.iter().map(|(from, to)| *from..*to).collect();
        assert!(ranges.iter().all(|gap| gap.start < gap.end));
        assert!(ranges.is_sorted_by(|a, b| a.end < b.start), "apart: {ranges:?}");
        assert!(self.living.iter().all(|seq| !self.gaps.contains(*seq)), "{ranges:?}, {:?}", self.living);
        for gap in &self.record {
            let seqs = (gap.start.max(self.low).0..gap.end.0).map(Seq);
            for seq in seqs {
                assert!(self.gaps.contains(seq), "{seq:?} of a recorded gap may be read");
            }
        }
        let mut at = self.low;
        while let Some(stretch) = self.gaps.stretch(at, LEAST) {
            for gap in &self.record {
                assert!(gap.end <= stretch.start || stretch.end <= gap.start, "{gap:?} in {stretch:?}");
            }
            at = stretch.end;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gaps_hold_nothing_that_lives_and_looks_find_all_of_it(steps in prop::collection::vec(step(), 1..120)) {
        let (gaps, living, record) = (Gaps::new(Vec::new(), Seq(1)), BTreeSet::new(), Vec::new());
        let mut run = Run { gaps, living, low: Seq(1), tail: Seq(1), record };
        for step in steps {
            run.step(&step);
        }
    }

    #[test]
    fn what_two_lists_have_in_common(a in ranges(), b in ranges()) {
        let within = |list: &[Gap], n: u64| list.iter().any(|gap| gap.contains(&Seq(n)));
        let both = common(&a, &b);
        prop_assert!(both.is_sorted_by(|a, b| a.end < b.start));
        for n in 0..80 {
            prop_assert_eq!(within(&both, n), within(&a, n) && within(&b, n), "{}", n);
        }
    }
}

/// In order; some touch each other.
fn ranges() -> impl Strategy<Value = Vec<Gap>> {
    prop::collection::vec((0..5u64, 1..8u64), 0..6).prop_map(|steps| {
        let mut at = 0;
        let next = |(pause, length): (u64, u64)| {
            let start = at + pause;
            at = start + length;
            Seq(start)..Seq(at)
        };
        steps.into_iter().map(next).collect()
    })
}

#[test]
fn a_look_passes_over_no_long_gap() {
    let mut gaps = Gaps::new(Vec::new(), Seq(1));
    (1..=10_000).for_each(|n| gaps.put(Seq(n), usize::MAX));
    (2..9_000).for_each(|n| gaps.add(Seq(n)..Seq(n + 1)));
    assert_eq!(gaps.stretch(Seq(1), 100), Some(Seq(1)..Seq(2)));
    assert_eq!(gaps.stretch(Seq(2), 100), Some(Seq(9_000)..Seq(10_001)));
    assert_eq!(gaps.stretch(Seq(10_001), 100), None);
}

#[test]
fn what_is_recorded_is_bounded_and_the_longest_have_room() {
    let mut gaps = Gaps::new(Vec::new(), Seq(1));
    let most = 300;
    let mut at = Seq(1);
    for n in 0..2_000u64 {
        // A message that lives; behind it a gap, which is short mostly.
        gaps.put(at, usize::MAX);
        at = Seq(at.0 + if n % 100 == 99 { 1_000_000 } else { 20 });
        gaps.record(10, most);
    }
    gaps.reach(at);
    gaps.record(10, most);
    assert!(gaps.recorded().len() <= most);
    let long = gaps.recorded().iter().filter(|gap| gap.end.0 - gap.start.0 > 100_000).count();
    assert_eq!(long, 20, "of {}", gaps.recorded().len());
}

/// Sends with and without a delay in turn make a gap each, and nothing is ever removed.
#[test]
fn gaps_between_messages_that_only_come_are_bounded() {
    let mut gaps = Gaps::new(Vec::new(), Seq(1));
    for n in 0..10_000 {
        gaps.put(Seq(1 + 2 * n), 100);
        assert!(gaps.ranges.len() <= 100, "{}", gaps.ranges.len());
    }
    assert_eq!(gaps.stretch(Seq(1), 1).map(|stretch| stretch.start), Some(Seq(1)));
}
