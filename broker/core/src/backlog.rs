//! The oldest messages of a queue, and what is known of where none are.

use crate::core::Core;
use crate::fault::Fault;
use crate::gaps::Gaps;
use crate::id::{Millis, QueueId, Seq};
use crate::key::Key;
use crate::limits;
use crate::queue::{Oldest, Queue};
use crate::record::{self, Record, Table};
use crate::store::{Limit, Messages, Read, Store, Typed};

impl Core {
    /// When the oldest message of a queue was sent; `None` when it is empty or unknown.
    ///
    /// Remembered until that message goes; a look moves the queue's low marks, so that nothing is passed twice. What lies
    /// below them is never read again, so a store may drop it when they are committed.
    ///
    /// # Errors
    /// [`Fault`] when the store cannot be read.
    pub fn oldest_sent_at<S: Store>(
        &mut self,
        id: QueueId,
        store: &S,
    ) -> Result<Option<Millis>, Fault<S::Error>> {
        let Some(queue) = self.queues.get_mut(&id) else {
            return Ok(None);
        };
        if queue.state.count() == 0 {
            if queue.pass_all() {
                self.touched.insert(id);
            }
            return Ok(None);
        }
        // Each by itself: one that stays must not hold back the other table's mark.
        for table in [Table::Fresh, Table::Parked] {
            if self.queues.get(&id).is_some_and(|queue| queue.oldest[table as usize].is_none()) {
                let first = self.first(id, table, store)?;
                if let Some(queue) = self.queues.get_mut(&id) {
                    queue.oldest[table as usize] = first;
                }
            }
        }
        let oldest = self.queues.get(&id).map(|queue| queue.oldest).unwrap_or_default();
        Ok(oldest.into_iter().flatten().min_by_key(|oldest| oldest.seq).map(|oldest| oldest.sent_at))
    }

    /// The first message of a table; the table's low mark moves up to it.
    fn first<S: Store>(
        &mut self,
        id: QueueId,
        table: Table,
        store: &S,
    ) -> Result<Option<Oldest>, Fault<S::Error>> {
        let Some(low) = self.queues.get(&id).map(|queue| queue.low(table)) else {
            return Ok(None);
        };
        let first = self.living(id, table, low, Limit::records(1), store)?.pop();
        let Some(queue) = self.queues.get_mut(&id) else {
            return Ok(None);
        };
        let (low, oldest) = match first {
            Some((seq, message)) => (seq, Some(Oldest { table, seq, sent_at: message.sent_at })),
            None => (queue.state.tail, None),
        };
        if queue.low(table) != low {
            queue.set_low(table, low);
            self.touched.insert(id);
        }
        Ok(oldest)
    }

    /// The first messages of a table from `from` on. What was removed between them is not passed over, but for gaps that
    /// are short or that nobody knows; those are known then.
    pub(crate) fn living<S: Store>(
        &mut self,
        id: QueueId,
        table: Table,
        mut from: Seq,
        mut limit: Limit,
        store: &S,
    ) -> Read<Messages, S> {
        let (least, most, mut living) = (self.bounds.gap_least, self.gaps_share(), Vec::new());
        let Some(queue) = self.queues.get_mut(&id) else {
            return Ok(living);
        };
        let gaps = &mut queue.gaps[table as usize];
        while !limit.is_reached()
            && let Some(stretch) = gaps.stretch(from, least)
        {
            let found = store.messages(table, id, &stretch, limit)?;
            for (_, message) in &found {
                limit.count(message.bytes());
            }
            from = stretch.end;
            gaps.learn(stretch, found.iter().map(|(seq, _)| *seq), !limit.is_reached(), least);
            living.extend(found);
        }
        gaps.bound(most);
        Ok(living)
    }

    /// Moves the low marks of all queues that changed, and records long gaps: when both are committed, a store may drop what lies below
    /// and in them, as nobody reads there. To be called now and then.
    ///
    /// # Errors
    /// [`Fault`] when the store cannot be read.
    pub fn move_marks<S: Store>(&mut self, store: &mut S) -> Result<(), Fault<S::Error>> {
        let (least, most) = (self.bounds.gap_least, limits::GAPS_RECORDED_MAX.min(self.gaps_share() / 2));
        for id in std::mem::take(&mut self.unmarked) {
            self.oldest_sent_at(id, store)?;
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            if !queue.record_gaps(least, most) {
                continue;
            }
            let [fresh, parked] =
                [Table::Fresh, Table::Parked].map(|t| queue.gaps[t as usize].recorded().to_vec());
            if fresh.is_empty() && parked.is_empty() {
                store.remove(Key::Gaps(id));
            } else {
                store.put(Key::Gaps(id), Record::Gaps(record::Gaps { fresh, parked }));
            }
        }
        Ok(())
    }

    /// How many gaps of one table are remembered.
    pub(crate) fn gaps_share(&self) -> usize {
        (self.bounds.gaps / self.queues.len().max(1) / 2).max(64)
    }

    /// A message is gone from a table.
    pub(crate) fn note_gone(&mut self, id: QueueId, table: Table, seq: Seq) {
        let most = self.gaps_share();
        if let Some(queue) = self.queues.get_mut(&id) {
            let gaps = &mut queue.gaps[table as usize];
            gaps.add(seq..seq.next());
            gaps.bound(most);
        }
    }
}

impl Queue {
    pub(crate) const fn low(&self, table: Table) -> Seq {
        match table {
            Table::Fresh => self.state.fresh_low,
            Table::Parked => self.state.parked_low,
        }
    }

    /// What the last record says.
    pub(crate) fn know_gaps(&mut self, gaps: record::Gaps) {
        let record::Gaps { fresh, parked } = gaps;
        for (table, recorded) in [(Table::Fresh, fresh), (Table::Parked, parked)] {
            self.gaps[table as usize] = Gaps::new(recorded, self.state.tail);
            self.gaps[table as usize].pass(self.low(table));
        }
    }

    /// No fresh message lives there.
    pub(crate) fn know_gap(&mut self, gap: record::Gap, least: u64) {
        if gap.end.0.saturating_sub(gap.start.0) >= least {
            self.gaps[Table::Fresh as usize].add(gap);
        }
    }

    /// Chooses the gaps that are to be recorded; says whether they are others than before.
    fn record_gaps(&mut self, least: u64, most: usize) -> bool {
        let mut changed = false;
        for (gaps, low) in self.gaps.iter_mut().zip([self.state.fresh_low, self.state.parked_low]) {
            gaps.reach(self.state.tail);
            gaps.pass(low);
            changed |= gaps.record(least, most);
        }
        changed
    }

    /// Keeps what is known of the messages that a purge removes, for those that remove their records.
    pub(crate) fn sweep_gaps(&mut self, least: u64) {
        let ([fresh, parked], deliveries) = (&self.gaps, self.gaps_of_deliveries(least));
        // What an earlier purge has left lies below the marks: gaps do not tell of it.
        let known = self.purge.is_none();
        self.swept = known.then(|| Box::new([fresh.clone(), parked.clone(), deliveries]));
    }

    /// Where neither table has a message, and so no delivery may be read.
    pub(crate) fn gaps_of_deliveries(&self, least: u64) -> Gaps {
        let [fresh, parked] = &self.gaps;
        Gaps::common([fresh, parked], [self.state.fresh_low, self.state.parked_low], least)
    }

    /// Moves the marks of an empty queue to its end; says whether they moved.
    fn pass_all(&mut self) -> bool {
        let state = &mut self.state;
        let before = (state.fresh_low, state.parked_low, state.returned_head, state.dead_head);
        (state.fresh_low, state.parked_low) = (state.tail, state.tail);
        (state.returned_head, state.dead_head) = (state.next_order, state.next_order);
        self.gaps.iter_mut().for_each(|gaps| gaps.pass(state.tail));
        before != (state.fresh_low, state.parked_low, state.returned_head, state.dead_head)
    }

    pub(crate) fn set_low(&mut self, table: Table, low: Seq) {
        match table {
            Table::Fresh => self.state.fresh_low = low,
            Table::Parked => self.state.parked_low = low,
        }
        self.gaps[table as usize].pass(low);
    }
}
