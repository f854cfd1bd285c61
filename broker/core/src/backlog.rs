//! The oldest message of a queue.

use crate::core::Core;
use crate::fault::Fault;
use crate::id::{Millis, QueueId, Seq};
use crate::queue::Oldest;
use crate::record::Table;
use crate::store::{Store, Typed};

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
        let Some(queue) = self.queues.get_mut(&id) else {
            return Ok(None);
        };
        let none = table == Table::Parked && queue.no_parked;
        let first = if none { None } else { store.messages(table, id, queue.low(table), 1)?.pop() };
        if table == Table::Parked {
            queue.no_parked = first.is_none();
        }
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
}

impl crate::queue::Queue {
    pub(crate) const fn low(&self, table: Table) -> Seq {
        match table {
            Table::Fresh => self.state.fresh_low,
            Table::Parked => self.state.parked_low,
        }
    }

    /// No message lives below this, and its delivery neither. Nothing below it may be read: the store is free to forget
    /// that it was removed, once the mark is committed.
    pub(crate) fn lowest(&self) -> Seq {
        self.state.fresh_low.min(self.state.parked_low)
    }

    /// Moves the marks of an empty queue to its end; says whether they moved.
    fn pass_all(&mut self) -> bool {
        let state = &mut self.state;
        let before = (state.fresh_low, state.parked_low, state.returned_head, state.dead_head);
        (state.fresh_low, state.parked_low) = (state.tail, state.tail);
        (state.returned_head, state.dead_head) = (state.next_order, state.next_order);
        before != (state.fresh_low, state.parked_low, state.returned_head, state.dead_head)
    }

    pub(crate) const fn set_low(&mut self, table: Table, low: Seq) {
        match table {
            Table::Fresh => self.state.fresh_low = low,
            Table::Parked => self.state.parked_low = low,
        }
    }
}
