//! Purge: all messages of a queue go at once, and their records in steps; or some of them, by name.

use crate::command::{Purge, Refusal, Remove, Reply};
use crate::core::Core;
use crate::fault::Fault;
use crate::gaps::Gaps;
use crate::id::{Order, QueueId, Seq};
use crate::key::Key;
use crate::limits;
use crate::record::{Delivery, Gap, Message, Place, Purge as Rest, Record, State, Table};
use crate::store::{Limit, Store, Typed};

/// Where a living message is found.
enum Found {
    Delivered(Delivery),
    /// In its first state.
    Stored(Table, Box<Message>),
}

impl Core {
    /// Counts become zero and every position moves to its end. Leases of what is gone settle nothing any more.
    pub(crate) fn purge<S: Store>(&mut self, purge: Purge, store: &mut S) -> Reply {
        let (id, now, least) = (purge.queue, self.now(), self.bounds.gap_least);
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
        if queue.gaps.iter().any(Gaps::is_recorded) {
            // All of it is below the marks.
            store.remove(Key::Gaps(id));
        }
        queue.sweep_gaps(least);
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
        queue.gaps = [Table::Fresh, Table::Parked].map(|_| Gaps::new(Vec::new(), tail));
        queue.purge = Some(rest);
        let leased = std::mem::take(&mut queue.leased);
        for (seq, one) in leased {
            if let Place::Leased { until, .. } = one.delivery.place {
                self.leases.remove(&(until, id, seq));
            }
        }
        store.put(Key::Purge(id), Record::Purge(rest));
        self.sweeping.insert(id);
        self.forget_timers(id);
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
            if rest.is_none() {
                queue.swept = None;
            }
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
        let mut room = Limit { records: limits::TICK_STEP, bytes: limits::BODIES_BYTES };
        let delivery = |seq| Key::Delivery(id, seq);
        // Deliveries first: they know of leases and timers.
        rest.delivery = self.sweep_range(id, delivery, (rest.delivery, end), &mut room, store)?;
        rest.fresh = self.sweep_range(id, |seq| Key::Fresh(id, seq), (rest.fresh, end), &mut room, store)?;
        rest.parked =
            self.sweep_range(id, |seq| Key::Parked(id, seq), (rest.parked, end), &mut room, store)?;
        let mut room = room.records;
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

    /// Removes the records of one kind from one place to the other, while there is room; answers where it came to.
    fn sweep_range<S: Store>(
        &mut self,
        id: QueueId,
        key: impl Fn(Seq) -> Key,
        (mut from, to): (Seq, Seq),
        room: &mut Limit,
        store: &mut S,
    ) -> Result<Seq, Fault<S::Error>> {
        while !room.is_reached()
            && let Some(stretch) = self.swept_stretch(id, key(from), (from, to))
        {
            let found = store.scan(key(stretch.start), key(stretch.end), *room)?;
            for (key, record) in found {
                room.count(record.body_bytes());
                from = self.sweep_record(key, &record, store)?.next();
            }
            if !room.is_reached() {
                from = stretch.end;
                // A look costs about as much as a record.
                room.count(0);
            }
        }
        Ok(from)
    }

    /// Where the next records of a key's kind may be.
    fn swept_stretch(&self, id: QueueId, key: Key, (from, to): (Seq, Seq)) -> Option<Gap> {
        let gaps = self.queues.get(&id).and_then(|queue| queue.swept.as_deref());
        let Some([fresh, parked, deliveries]) = gaps else {
            return (from < to).then_some(from..to);
        };
        let gaps = match key {
            Key::Fresh(..) => fresh,
            Key::Parked(..) => parked,
            _ => deliveries,
        };
        gaps.stretch(from, self.bounds.gap_least)
    }

    /// Removes a record of what was purged, and what follows from it.
    fn sweep_record<S: Store>(
        &mut self,
        key: Key,
        record: &Record,
        store: &mut S,
    ) -> Result<Seq, Fault<S::Error>> {
        store.remove(key);
        match (key, record) {
            (Key::Fresh(_, seq), Record::Message(_)) => Ok(seq),
            (Key::Parked(id, seq), Record::Message(message)) => {
                if message.due >= self.clock.timer_head.0 {
                    store.remove(Key::Timer(message.due, id, seq));
                }
                Ok(seq)
            }
            (Key::Delivery(id, seq), Record::Delivery(delivery)) => {
                match delivery.place {
                    Place::Leased { until, .. } => {
                        self.leases.remove(&(until, id, seq));
                    }
                    Place::Waiting { due } => store.remove(Key::Timer(due, id, seq)),
                    Place::Returned { .. } | Place::Dead { .. } => {}
                }
                Ok(seq)
            }
            _ => Err(Fault::Corrupt(key)),
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
            match self.find_message(id, *seq, store)? {
                None => {
                    gone.push(*seq);
                    continue;
                }
                Some(Found::Delivered(delivery)) => self.remove_delivered(id, *seq, &delivery, store),
                Some(Found::Stored(table, message)) => {
                    self.remove_undelivered(id, *seq, (table, &message), store);
                }
            }
            self.total(id, |totals| totals.purged += 1);
            count += 1;
        }
        Ok(Reply::Removed(count, gone))
    }

    /// Finds a living message; `None` when it is gone.
    fn find_message<S: Store>(
        &self,
        id: QueueId,
        seq: Seq,
        store: &S,
    ) -> Result<Option<Found>, Fault<S::Error>> {
        let Some(queue) = self.queues.get(&id).filter(|queue| !queue.is_gone(seq)) else {
            return Ok(None);
        };
        if let Some(delivery) = self.delivery(id, seq, store)? {
            return Ok(Some(Found::Delivered(delivery)));
        }
        for table in [Table::Fresh, Table::Parked] {
            if queue.is_gone_from(table, seq) {
                continue;
            }
            let key = Key::message(table, id, seq);
            match store.get(key)? {
                None => {}
                Some(Record::Message(message)) => return Ok(Some(Found::Stored(table, message))),
                Some(_) => return Err(Fault::Corrupt(key)),
            }
        }
        Ok(None)
    }
}
