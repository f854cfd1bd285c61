//! Gaps: ranges of sequence numbers of which a table holds no message, so that nobody passes over what was removed.
//!
//! A message that lives long (a long lease, a long delay) holds its table's low mark; gaps are what the mark cannot say.
//! A sequence number is never used twice, so a gap stays one for ever. The long ones are recorded: what lies in a recorded
//! gap is never read again, as below a mark, and the store may drop it.

use std::collections::BTreeMap;

use crate::id::Seq;
use crate::record::{self, Gap, State};

/// So many short gaps are looked at for a long one before a stretch ends at any of them.
const LOOK_AHEAD: usize = 64;
/// So many recorded gaps double what the next one must be long.
const DOUBLES_AFTER: usize = 64;

/// The gaps of one table of a queue, as far as they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gaps {
    /// From the first to below the second; apart from each other.
    ranges: BTreeMap<Seq, Seq>,
    /// What the last record names, in order. Always part of `ranges`.
    recorded: Vec<Gap>,
    /// Some that the last record names lie below the mark now.
    outdated: bool,
    /// No message of the table is here or behind.
    end: Seq,
}

impl Gaps {
    /// Of a table of which nothing more is known.
    pub(crate) fn new(recorded: Vec<Gap>, end: Seq) -> Self {
        let ranges = recorded.iter().map(|gap| (gap.start, gap.end)).collect();
        Self { ranges, recorded, outdated: false, end }
    }

    /// Whether no message of the table is there.
    pub(crate) fn contains(&self, seq: Seq) -> bool {
        seq >= self.end || self.ranges.range(..=seq).next_back().is_some_and(|(_, to)| seq < *to)
    }

    /// What the last record names, but for what lies below the mark.
    pub(crate) fn recorded(&self) -> &[Gap] {
        &self.recorded
    }

    /// Whether there is a record.
    pub(crate) fn is_recorded(&self) -> bool {
        self.outdated || !self.recorded.is_empty()
    }

    /// The table holds none of these any more, or never did.
    pub(crate) fn add(&mut self, gap: Gap) {
        let Gap { mut start, mut end } = gap;
        if start >= end {
            return;
        }
        // Those that it touches become part of it: at most one begins before it.
        while let Some((from, to)) = self.ranges.range(..=end).next_back().map(|(from, to)| (*from, *to))
            && to >= start
        {
            self.ranges.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        self.ranges.insert(start, end);
    }

    /// A message enters the table, behind all others; those before it went to the other table. About `most` gaps stay.
    pub(crate) fn put(&mut self, seq: Seq, most: usize) {
        self.add(self.end..seq);
        self.end = seq.next();
        self.bound(most);
    }

    /// All that lies before `tail` went to the other table.
    pub(crate) fn reach(&mut self, tail: Seq) {
        self.add(self.end..tail);
        self.end = self.end.max(tail);
    }

    /// Forgets what lies below a mark.
    pub(crate) fn pass(&mut self, low: Seq) {
        while let Some(first) = self.ranges.first_entry()
            && *first.key() < low
        {
            let to = first.remove();
            if to > low {
                self.ranges.insert(low, to);
            }
        }
        let before = self.recorded.len();
        self.recorded.retain(|gap| gap.end > low);
        self.outdated |= self.recorded.len() < before;
    }

    /// The next stretch that may hold messages, from `from` on. It has no recorded gap, and none of at least `least`.
    pub(crate) fn stretch(&self, mut from: Seq, least: u64) -> Option<Gap> {
        if let Some((_, to)) = self.ranges.range(..=from).next_back() {
            from = from.max(*to);
        }
        let ahead = self.ranges.range(from..).take(LOOK_AHEAD + 1).enumerate();
        let mut worth = ahead.filter(|(n, (from, to))| {
            *n == LOOK_AHEAD || to.0 - from.0 >= least || self.holds_recorded(**from..**to)
        });
        let to = worth.next().map_or(self.end, |(_, (from, _))| *from);
        (from < to).then_some(from..to)
    }

    fn holds_recorded(&self, range: Gap) -> bool {
        let at = self.recorded.partition_point(|gap| gap.end <= range.start);
        self.recorded.get(at).is_some_and(|gap| gap.start < range.end)
    }

    /// A look at a stretch found these, in order; all of them, or only the first.
    pub(crate) fn learn(&mut self, stretch: Gap, found: impl Iterator<Item = Seq>, all: bool, least: u64) {
        let Gap { start, end } = stretch;
        let mut from = start;
        for seq in found.chain(all.then_some(end)) {
            // A short one is only of use beside others, which may be where the stretch begins and ends.
            if seq.0 - from.0 >= least || from == start || seq == end {
                self.add(from..seq);
            }
            from = seq.next();
        }
    }

    /// Forgets the shortest when there are more than `most`; never a recorded one.
    pub(crate) fn bound(&mut self, most: usize) {
        if self.ranges.len() <= most.saturating_add(self.recorded.len()) {
            return;
        }
        let mut least = 2;
        while self.ranges.len() > most / 2 {
            self.ranges.retain(|from, to| to.0 - from.0 >= least);
            least = least.saturating_mul(2);
        }
        for gap in self.recorded.clone() {
            self.add(gap);
        }
    }

    /// Takes what is worth it into the record: gaps of at least `least`, at most `most` of them. A recorded one stays, and
    /// grows. Says whether the record is another now.
    pub(crate) fn record(&mut self, least: u64, most: usize) -> bool {
        let mut room = most.saturating_sub(self.recorded.len());
        let mut before = self.recorded.iter().peekable();
        let mut now: Vec<Gap> = Vec::with_capacity(self.recorded.len());
        for (from, to) in &self.ranges {
            let mut known = false;
            while before.next_if(|gap| gap.start < *to).is_some() {
                known = true;
            }
            let least = least.saturating_mul(1 << (now.len() / DOUBLES_AFTER).min(32));
            if !known && (room == 0 || to.0 - from.0 < least) {
                continue;
            }
            room -= usize::from(!known);
            now.push(*from..*to);
        }
        let changed = std::mem::take(&mut self.outdated) || now != self.recorded;
        self.recorded = now;
        changed
    }

    /// The gaps that two tables have in common, `low` being their marks: no delivery is there either.
    pub(crate) fn common([a, b]: [&Self; 2], low: [Seq; 2], least: u64) -> Self {
        let below = |gaps: &Self, low: Seq| {
            let mut ranges = vec![Seq(0)..low];
            ranges.extend(gaps.ranges.iter().map(|(from, to)| *from..*to));
            ranges.push(gaps.end..Seq(u64::MAX));
            ranges
        };
        let (a, b, end) = (below(a, low[0]), below(b, low[1]), a.end.max(b.end));
        let ranges = common(&a, &b).into_iter().filter(|gap| gap.end.0 - gap.start.0 >= least);
        let ranges = ranges.map(|gap| (gap.start, gap.end)).collect();
        Self { ranges, recorded: Vec::new(), outdated: false, end }
    }
}

impl record::Gaps {
    /// Where nothing is read any more, with what lies below the marks of `state`: of the keys of fresh messages, of parked
    /// ones, and of deliveries. In order, and apart.
    #[must_use]
    pub fn dead(&self, state: &State) -> [Vec<Gap>; 3] {
        let all = |low: Seq, gaps: &[Gap]| {
            let mut ranges = vec![Seq(0)..low];
            // One that was recorded before the mark came there.
            ranges
                .extend(gaps.iter().map(|gap| gap.start.max(low)..gap.end).filter(|gap| gap.start < gap.end));
            join(ranges)
        };
        let (fresh, parked) = (all(state.fresh_low, &self.fresh), all(state.parked_low, &self.parked));
        let deliveries = common(&fresh, &parked);
        [fresh, parked, deliveries]
    }
}

/// Ranges in order, those that touch made one.
fn join(ranges: Vec<Gap>) -> Vec<Gap> {
    let mut joined: Vec<Gap> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

/// What is in both of two lists of ranges, each in order.
fn common(a: &[Gap], b: &[Gap]) -> Vec<Gap> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut both = Vec::new();
    while let (Some(left), Some(right)) = (a.peek(), b.peek()) {
        let (start, end) = (left.start.max(right.start), left.end.min(right.end));
        if start < end {
            both.push(start..end);
        }
        let shorter = if left.end <= right.end { &mut a } else { &mut b };
        shorter.next();
    }
    join(both)
}

#[cfg(test)]
mod tests;
