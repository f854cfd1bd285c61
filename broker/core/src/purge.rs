//! Purge: all messages of a queue go at once, and their records in steps; or some of them, by name.

use crate::command::{Purge, Refusal, Remove, Reply};
use crate::core::Core;
use crate::fault::Fault;
use crate::id::{Order, QueueId, Seq};
use crate::key::Key;
use crate::limits;
use crate::record::{Place, Purge as Rest, Record, State, Table};
use crate::store::{Store, Typed};

impl Core {
    /// Counts become zero and every position moves to its end. Leases of what is gone settle nothing any more.
    pub(crate) fn purge<S: Store>(&mut self, purge: Purge, store: &mut S) -> Reply {
        let (id, now) = (purge.queue, self.now());
        let queue = match self.touch(id) {
            Ok(queue) => queue,
            Err(refusal) => return refusal.into(),
        };
        let State { tail, fresh_low, parked_low, returned_head, dead_head, next_order, .. } = queue.state;
        let (count, leases_made) = (queue.state.count(), queue.state.leases_made);
        let rest = Rest {
            fresh: fresh_low,
            parked: parked_low,
            delivery: fresh_low.min(parked_low),
            returned: returned_head,
            dead: dead_head,
            end: tail,
            order_end: next_order,
        };
        // An earlier purge that is not done has begun further back.
        let rest = queue.purge.map_or(rest, |earlier| Rest { end: tail, order_end: next_order, ..earlier });
        queue.state = State {
            tail,
            cursor: tail,
            fresh_low: tail,
            parked_low: tail,
            returned_head: next_order,
            dead_head: next_order,
            next_order,
            leases_made,
            purged_at: now,
            ..State::EMPTY
        };
        queue.totals.purged += count;
        queue.batches.clear();
        queue.oldest = [None; 2];
        queue.purge = Some(rest);
        let leased = std::mem::take(&mut queue.leased);
        for (seq, delivery) in leased {
            if let Place::Leased { until, .. } = delivery.place {
                self.leases.remove(&(until, id, seq));
            }
        }
        store.put(Key::Purge(id), Record::Purge(rest));
        self.sweeping.insert(id);
        self.look_at(id, None);
        Reply::Purged(count)
    }

    /// Removes a step of what purges have left. Says whether there is more.
    pub(crate) fn sweep<S: Store>(&mut self, store: &mut S) -> Result<bool, Fault<S::Error>> {
        let Some(id) = self.sweeping.first().copied() else {
            return Ok(false);
        };
        let rest = self.queues.get(&id).and_then(|queue| queue.purge);
        let rest = match rest {
            Some(rest) => self.sweep_step(id, rest, store)?,
            None => None,
        };
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.purge = rest;
        }
        if let Some(rest) = rest {
            store.put(Key::Purge(id), Record::Purge(rest));
        } else {
            store.remove(Key::Purge(id));
            self.sweeping.remove(&id);
            self.forget_if_over(id, store);
        }
        Ok(!self.sweeping.is_empty())
    }

    /// Removes a step of one queue, one kind of record after the other; answers what is left then.
    fn sweep_step<S: Store>(
        &mut self,
        id: QueueId,
        mut rest: Rest,
        store: &mut S,
    ) -> Result<Option<Rest>, Fault<S::Error>> {
        let Rest { end, order_end, .. } = rest;
        let mut room = limits::TICK_STEP;
        // Deliveries first: they know of leases and timers.
        for (key, record) in store.scan(Key::Delivery(id, rest.delivery), Key::Delivery(id, end), room)? {
            let (Key::Delivery(_, seq), Record::Delivery(delivery)) = (key, record) else {
                return Err(Fault::Corrupt(key));
            };
            match delivery.place {
                Place::Leased { until, .. } => {
                    self.leases.remove(&(until, id, seq));
                }
                Place::Waiting { due } => store.remove(Key::Timer(due, id, seq)),
                Place::Returned { .. } | Place::Dead { .. } => {}
            }
            store.remove(key);
            (rest.delivery, room) = (seq.next(), room - 1);
        }
        rest.fresh = self.sweep_table(id, Table::Fresh, (rest.fresh, end), &mut room, store)?;
        rest.parked = self.sweep_table(id, Table::Parked, (rest.parked, end), &mut room, store)?;
        for (head, key) in [
            (&mut rest.returned, Key::Returned as fn(QueueId, Order) -> Key),
            (&mut rest.dead, Key::Dead as fn(QueueId, Order) -> Key),
        ] {
            for (order, _) in store.entries(key(id, *head), key(id, order_end), room)? {
                store.remove(key(id, order));
                (*head, room) = (order.next(), room - 1);
            }
        }
        Ok((room == 0).then_some(rest))
    }

    /// Removes what a table has from one place to the other, while there is room; answers where it came to.
    fn sweep_table<S: Store>(
        &self,
        id: QueueId,
        table: Table,
        (mut from, to): (Seq, Seq),
        room: &mut usize,
        store: &mut S,
    ) -> Result<Seq, Fault<S::Error>> {
        loop {
            let (step, key) = (limits::BODIES_STEP.min(*room), |seq| Key::message(table, id, seq));
            let found = store.scan(key(from), key(to), step)?;
            let over = found.len() < step || step == 0;
            for (key, record) in found {
                let (Key::Fresh(_, seq) | Key::Parked(_, seq), Record::Message(message)) = (key, record)
                else {
                    return Err(Fault::Corrupt(key));
                };
                if table == Table::Parked && message.due >= self.clock.timer_head.0 {
                    store.remove(Key::Timer(message.due, id, seq));
                }
                store.remove(key);
                (from, *room) = (seq.next(), *room - 1);
            }
            if over {
                return Ok(from);
            }
        }
    }

    /// Removes the messages that a client names, whatever their state. It counts as no delivery.
    pub(crate) fn remove_some<S: Store>(
        &mut self,
        remove: &Remove,
        store: &mut S,
    ) -> Result<Reply, Fault<S::Error>> {
        let id = remove.queue;
        if !self.queues.contains_key(&id) {
            return Ok(Refusal::QueueUnknown.into());
        }
        let (mut count, mut gone) = (0, Vec::new());
        for seq in &remove.messages {
            let Some(table) = self.table_of(id, *seq, store)? else {
                gone.push(*seq);
                continue;
            };
            self.remove(id, *seq, table, store)?;
            self.total(id, |totals| totals.purged += 1);
            count += 1;
        }
        Ok(Reply::Removed(count, gone))
    }

    /// Where a living message is kept; `None` when it is gone.
    fn table_of<S: Store>(&self, id: QueueId, seq: Seq, store: &S) -> Result<Option<Table>, Fault<S::Error>> {
        if self.queues.get(&id).is_none_or(|queue| queue.is_gone(seq)) {
            return Ok(None);
        }
        if let Some(delivery) = self.delivery(id, seq, store)? {
            return Ok(Some(delivery.table));
        }
        let low = |table| self.queues.get(&id).map_or(seq, |queue| queue.low(table));
        for table in [Table::Fresh, Table::Parked] {
            // Below a table's own mark the store may bring back what was removed.
            if seq >= low(table) && store.get(Key::message(table, id, seq))?.is_some() {
                return Ok(Some(table));
            }
        }
        Ok(None)
    }
}
