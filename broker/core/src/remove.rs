//! How a message leaves: every trace of it goes, whatever its state.

use crate::core::Core;
use crate::fault::Fault;
use crate::id::{QueueId, Seq};
use crate::key::Key;
use crate::limits;
use crate::record::{Delivery, Message, Place, Table};
use crate::store::Store;

impl Core {
    /// Removes a message that was leased at least once, or came back.
    pub(crate) fn remove_delivered<S: Store>(
        &mut self,
        id: QueueId,
        seq: Seq,
        delivery: &Delivery,
        store: &mut S,
    ) {
        self.leave(id, seq, delivery, store);
        store.remove(Key::Delivery(id, seq));
        self.remove_stored(id, seq, delivery.table, delivery.bytes, store);
    }

    /// Removes a message in any state.
    pub(crate) fn remove<S: Store>(
        &mut self,
        id: QueueId,
        seq: Seq,
        (table, message): (Table, &Message),
        store: &mut S,
    ) -> Result<(), Fault<S::Error>> {
        match self.delivery(id, seq, store)? {
            Some(delivery) => self.remove_delivered(id, seq, &delivery, store),
            None => self.remove_undelivered(id, seq, (table, message), store),
        }
        Ok(())
    }

    /// Removes a message that is in its first state.
    pub(crate) fn remove_undelivered<S: Store>(
        &mut self,
        id: QueueId,
        seq: Seq,
        (table, message): (Table, &Message),
        store: &mut S,
    ) {
        if let Some(queue) = self.queues.get_mut(&id) {
            match table {
                Table::Fresh => queue.state.ready -= 1,
                Table::Parked => queue.state.delayed -= 1,
            }
        }
        if table == Table::Parked {
            self.remove_timer(message.due, id, seq, store);
        }
        self.remove_stored(id, seq, table, message.bytes(), store);
    }

    /// Takes a message out of the state that its delivery names, and of that state's count and index.
    pub(crate) fn leave<S: Store>(&mut self, id: QueueId, seq: Seq, delivery: &Delivery, store: &mut S) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        match delivery.place {
            Place::Leased { until, batch, .. } => {
                queue.state.leased -= 1;
                queue.leased.remove(&seq);
                // A pull that waited for its turn, or for room, may have it.
                let room = queue.state.leased + 1 == limits::LEASED_MAX;
                if (queue.leave_batch(batch) || room) && queue.state.ready > 0 {
                    self.woken.insert(id);
                }
                self.leases.remove(&(until, id, seq));
            }
            Place::Returned { order } => {
                queue.state.ready -= 1;
                store.remove(Key::Returned(id, order));
            }
            Place::Waiting { due } => {
                queue.state.delayed -= 1;
                self.remove_timer(due, id, seq, store);
            }
            Place::Dead { order } => {
                queue.state.dead -= 1;
                store.remove(Key::Dead(id, order));
            }
        }
        self.touched.insert(id);
    }

    fn remove_stored<S: Store>(&mut self, id: QueueId, seq: Seq, table: Table, bytes: u64, store: &mut S) {
        store.remove(Key::message(table, id, seq));
        self.touched.insert(id);
        self.note_gone(id, table, seq);
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        queue.state.bytes -= bytes;
        let oldest = &mut queue.oldest[table as usize];
        if oldest.is_some_and(|oldest| oldest.seq == seq) {
            *oldest = None;
        }
        if queue.retained && queue.state.count() == 0 {
            // It is forgotten at the next look.
            self.look_at(id, Some(0));
        }
    }
}
