//! Which keys are dead: those below every queue's low marks and in its recorded gaps, as a committed snapshot says.
//!
//! They are all removed already. Their tables still hold them, and may give them back when a table with their removals
//! is dropped; so nothing reads below a low mark or in a gap, and only marks and gaps that are on disk count here.

use std::collections::BTreeMap;
use std::ops::Range;

use capstan_core::{Clock, Gap, GapsRecord, Key, Order, QueueId, Record, RememberedMarks, Seq, State};

use super::{StoreError, codec, key};

/// The marks of all queues.
#[derive(Debug)]
pub(super) struct Marks {
    queues: BTreeMap<QueueId, (State, GapsRecord)>,
    /// Of queues that have forgotten sends.
    sends: BTreeMap<QueueId, RememberedMarks>,
    /// Queues below this that are not there were forgotten, and their ids are never used again.
    next_queue: QueueId,
    clock: Clock,
}

/// Keys from the first to below the second.
pub(super) type Keys = Range<Vec<u8>>;

impl Marks {
    /// Reads them.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub(super) fn read(
        snapshot: &fjall::Snapshot,
        keyspace: &fjall::Keyspace,
    ) -> Result<Option<Self>, StoreError> {
        use fjall::Readable;
        let get = |key: Key| -> Result<Option<Record>, StoreError> {
            let found = snapshot.get(keyspace, key::encode(key))?;
            found.map(|bytes| read(key, &bytes)).transpose()
        };
        let (Some(Record::Meta(meta)), Some(Record::Clock(clock))) = (get(Key::Meta)?, get(Key::Clock)?)
        else {
            return Ok(None);
        };
        let each = |first: Key, last: Key| snapshot.range(keyspace, key::encode(first)..key::encode(last));
        let (mut queues, mut gaps, mut sends) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for item in each(Key::Gaps(QueueId(0)), Key::Gaps(QueueId(u32::MAX))) {
            let (stored, value) = item.into_inner()?;
            if let Some(key @ Key::Gaps(id)) = key::decode(&stored)
                && let Record::Gaps(found) = read(key, &value)?
            {
                gaps.insert(id, found);
            }
        }
        for item in each(Key::Remembered(QueueId(0)), Key::Remembered(QueueId(u32::MAX))) {
            let (stored, value) = item.into_inner()?;
            if let Some(key @ Key::Remembered(id)) = key::decode(&stored)
                && let Record::Remembered(found) = read(key, &value)?
            {
                sends.insert(id, found);
            }
        }
        for item in each(Key::State(QueueId(0)), Key::State(QueueId(u32::MAX))) {
            let (stored, value) = item.into_inner()?;
            if let Some(key @ Key::State(id)) = key::decode(&stored)
                && let Record::State(state) = read(key, &value)?
            {
                queues.insert(id, (state, gaps.remove(&id).unwrap_or_default()));
            }
        }
        Ok(Some(Self { queues, sends, next_queue: meta.next_queue, clock }))
    }

    /// Bytes of bodies and attributes of all messages.
    pub(super) fn live_bytes(&self) -> u64 {
        self.queues.values().map(|(state, _)| state.bytes).sum()
    }

    /// The ranges of dead keys, in order.
    pub(super) fn dead(&self) -> Vec<Keys> {
        type Dead = (fn(QueueId, u64) -> Key, fn(&State, &GapsRecord) -> Vec<(u64, u64)>);
        let kinds: [Dead; 5] = [
            (|id, n| Key::Fresh(id, Seq(n)), |state, gaps| numbers(&gaps.dead(state)[0])),
            (|id, n| Key::Parked(id, Seq(n)), |state, gaps| numbers(&gaps.dead(state)[1])),
            (|id, n| Key::Delivery(id, Seq(n)), |state, gaps| numbers(&gaps.dead(state)[2])),
            (|id, n| Key::Returned(id, Order(n)), |state, _| vec![(0, state.returned_head.0)]),
            (|id, n| Key::Dead(id, Order(n)), |state, _| vec![(0, state.dead_head.0)]),
        ];
        let mut ranges: Vec<Keys> = Vec::new();
        for (at, dead) in kinds {
            self.of_queues(at, |_, state, gaps| dead(state, gaps), &mut ranges);
        }
        let (due, queue, seq) = self.clock.timer_head;
        put(Key::Timer(0, QueueId(0), Seq(0)), Key::Timer(due, queue, seq), &mut ranges);
        let sends = |id| self.sends.get(&id).map_or(0, |sends| sends.low.0);
        self.of_queues(|id, n| Key::Sent(id, Seq(n)), |id, _, _| vec![(0, sends(id))], &mut ranges);
        ranges
    }

    /// The dead keys of one kind: those of each queue, with all of forgotten queues before it.
    fn of_queues(
        &self,
        at: impl Fn(QueueId, u64) -> Key,
        dead: impl Fn(QueueId, &State, &GapsRecord) -> Vec<(u64, u64)>,
        ranges: &mut Vec<Keys>,
    ) {
        let mut from = QueueId(0);
        for (id, (state, gaps)) in &self.queues {
            let mut first = Some(at(from, 0));
            for (start, end) in dead(*id, state, gaps) {
                put(first.take().unwrap_or(at(*id, start)), at(*id, end), ranges);
            }
            from = QueueId(id.0.saturating_add(1));
        }
        put(at(from, 0), at(self.next_queue, 0), ranges);
    }
}

fn put(from: Key, to: Key, ranges: &mut Vec<Keys>) {
    if from < to {
        ranges.push(key::encode(from)..key::encode(to));
    }
}

fn numbers(gaps: &[Gap]) -> Vec<(u64, u64)> {
    gaps.iter().map(|gap| (gap.start.0, gap.end.0)).collect()
}

fn read(key: Key, bytes: &[u8]) -> Result<Record, StoreError> {
    codec::decode(key, bytes)
        .map_err(|_| StoreError::Record { key: format!("{key:?}"), reason: "its bytes are no such record" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(low: u64) -> State {
        State {
            tail: Seq(100),
            cursor: Seq(50),
            fresh_low: Seq(low),
            parked_low: Seq(low + 5),
            returned_head: Order(low + 1),
            dead_head: Order(low + 2),
            next_order: Order(90),
            bytes: 7,
            ..State::EMPTY
        }
    }

    #[test]
    fn dead_is_what_lies_below_the_marks_and_what_belonged_to_forgotten_queues() {
        let clock = Clock { committed: 0, outage: 0, timer_head: (9, QueueId(4), Seq(3)) };
        let queues = [(2, state(10)), (5, state(20))];
        let queues = queues.map(|(id, state)| (QueueId(id), (state, GapsRecord::default()))).into();
        let sends = [(QueueId(5), RememberedMarks { low: Seq(30), down: 0 })].into();
        let marks = Marks { queues, sends, next_queue: QueueId(8), clock };
        assert_eq!(marks.live_bytes(), 14);
        let dead = marks.dead();
        assert!(dead.is_sorted_by(|a, b| a.end < b.start), "in order, and apart");
        let is_dead = |key: Key| dead.iter().any(|range| range.contains(&key::encode(key)));
        let seqs = |make: fn(QueueId, Seq) -> Key, id: u32| {
            (0..200).filter(|n| is_dead(make(QueueId(id), Seq(*n)))).count()
        };
        assert_eq!([1, 2, 3, 5, 6, 8].map(|id| seqs(Key::Fresh, id)), [200, 10, 200, 20, 200, 0]);
        assert_eq!([2, 5].map(|id| seqs(Key::Parked, id)), [15, 25]);
        assert_eq!([2, 5].map(|id| seqs(Key::Delivery, id)), [10, 20], "while either table has it");
        assert_eq!([1, 2, 3, 5, 6, 8].map(|id| seqs(Key::Sent, id)), [200, 0, 200, 30, 200, 0]);
        let orders = |make: fn(QueueId, Order) -> Key, id: u32| {
            (0..200).filter(|n| is_dead(make(QueueId(id), Order(*n)))).count()
        };
        assert_eq!((orders(Key::Returned, 2), orders(Key::Dead, 2)), (11, 12));
        assert!(is_dead(Key::Timer(9, QueueId(4), Seq(2))) && !is_dead(Key::Timer(9, QueueId(4), Seq(3))));
        for key in [Key::Meta, Key::Clock, Key::Queue(QueueId(1)), Key::State(QueueId(1))] {
            assert!(!is_dead(key), "{key:?}");
        }
    }

    #[test]
    fn dead_is_what_lies_in_recorded_gaps_and_a_delivery_that_lies_in_both_tables_gaps() {
        let clock = Clock { committed: 0, outage: 0, timer_head: (0, QueueId(0), Seq(0)) };
        // Low marks are 10 and 15; one gap was recorded before the mark came there.
        let fresh = vec![Seq(3)..Seq(12), Seq(20)..Seq(40), Seq(50)..Seq(60)];
        let parked = vec![Seq(30)..Seq(55)];
        let queues = BTreeMap::from([(QueueId(2), (state(10), GapsRecord { fresh, parked }))]);
        let dead = Marks { queues, sends: BTreeMap::new(), next_queue: QueueId(3), clock }.dead();
        assert!(dead.is_sorted_by(|a, b| a.end < b.start), "in order, and apart");
        let seqs = |make: fn(QueueId, Seq) -> Key| {
            let is_dead = |n: &u64| dead.iter().any(|r| r.contains(&key::encode(make(QueueId(2), Seq(*n)))));
            (0..100).filter(is_dead).collect::<Vec<u64>>()
        };
        let all = |ranges: &[Range<u64>]| ranges.iter().cloned().flatten().collect::<Vec<u64>>();
        assert_eq!(seqs(Key::Fresh), all(&[0..12, 20..40, 50..60]));
        assert_eq!(seqs(Key::Parked), all(&[0..15, 30..55]));
        assert_eq!(seqs(Key::Delivery), all(&[0..12, 30..40, 50..55]));
    }
}
