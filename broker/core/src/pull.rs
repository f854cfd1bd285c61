//! A pull: the oldest ready messages are leased.

use std::collections::VecDeque;

use crate::command::{Delivered, Lease, Pull, Refusal, Reply};
use crate::core::{Core, END};
use crate::fault::Fault;
use crate::id::{Millis, Order, QueueId, Seq, mix};
use crate::key::Key;
use crate::limits;
use crate::queue::Leased;
use crate::record::{Delivery, Message, Place, Record, Table};
use crate::store::{Limit, Store, Typed};

/// A ready message that a pull may take.
struct Candidate {
    seq: Seq,
    message: Box<Message>,
    /// Its place among the returned ones, with what happened to it so far; `None` for a fresh one.
    returned: Option<(Order, Delivery)>,
}

impl Core {
    pub(crate) fn pull<S: Store>(&mut self, pull: &Pull, store: &mut S) -> Result<Reply, Fault<S::Error>> {
        let lease = match self.may_pull(pull.queue) {
            Ok(visibility_timeout) => pull.lease.unwrap_or(visibility_timeout),
            Err(refusal) => return Ok(refusal.into()),
        };
        let taken = self.candidates(pull, store)?;
        let until = self.now().saturating_add(lease);
        let batch = self.queues.get(&pull.queue).map_or(0, |queue| queue.state.leases_made + 1);
        let mut delivered = Vec::with_capacity(taken.len());
        for candidate in taken {
            delivered.push(self.lease(pull, candidate, (until, batch), store));
        }
        Ok(Reply::Delivered(delivered))
    }

    /// The consumer's visibility timeout, if the queue delivers at all.
    fn may_pull(&self, id: QueueId) -> Result<Millis, Refusal> {
        let queue = self.queues.get(&id).ok_or(Refusal::QueueUnknown)?;
        if queue.retained {
            return Err(Refusal::QueueRetained);
        }
        let consumer = queue.policy.consumer.as_ref().ok_or(Refusal::NoConsumer)?;
        if queue.policy.paused || consumer.paused {
            return Err(Refusal::DeliveryPaused);
        }
        Ok(consumer.visibility_timeout)
    }

    /// The oldest ready messages within the pull's bounds: a merge of those that came back and the fresh ones.
    fn candidates<S: Store>(&mut self, pull: &Pull, store: &S) -> Result<Vec<Candidate>, Fault<S::Error>> {
        let room = usize::try_from(self.lease_room(pull.queue)).unwrap_or(usize::MAX);
        let Some(queue) = self.queues.get_mut(&pull.queue) else {
            return Ok(Vec::new());
        };
        let count = pull.count.min(limits::BATCH_MAX).min(room);
        if count == 0 || queue.state.ready == 0 || queue.pulls_left() == Some(0) {
            return Ok(Vec::new());
        }
        let (from, to) =
            (Key::Returned(pull.queue, queue.state.returned_head), Key::Returned(pull.queue, END));
        // What expired was never leased, so the cursor may be behind.
        let first = queue.state.cursor.max(queue.state.fresh_low);
        // Most queues have none that came back.
        let some = queue.state.returned_head < queue.state.next_order;
        let returned = if some { store.entries(from, to, count)? } else { Vec::new() };
        if some {
            // Those that went another way are not passed again.
            let head = returned.first().map_or(queue.state.next_order, |(order, _)| *order);
            if queue.state.returned_head != head {
                queue.state.returned_head = head;
                self.touched.insert(pull.queue);
            }
        }
        let mut returned = returned.into_iter().peekable();
        let (mut fresh, mut looked) = (VecDeque::new(), false);
        let (mut taken, mut bytes) = (Vec::with_capacity(count), 0);
        while taken.len() < count {
            let back = returned.peek().map(|(_, seq)| *seq);
            // No fresh one lies before `first`: what came back from there needs no look at them.
            if !looked && back.is_none_or(|back| back >= first) {
                let left = pull.bytes.saturating_sub(bytes);
                let limit = Limit { records: count - taken.len(), bytes: left };
                fresh = self.living(pull.queue, Table::Fresh, first, limit, store)?.into();
                looked = true;
            }
            let new = fresh.front().map(|(seq, _)| *seq);
            let candidate = if back.is_some_and(|back| new.is_none_or(|new| back < new)) {
                returned
                    .next()
                    .map(|(order, seq)| read_returned(pull.queue, order, seq, store))
                    .transpose()?
            } else {
                fresh.pop_front().map(|(seq, message)| Candidate { seq, message, returned: None })
            };
            let Some(candidate) = candidate else { break };
            bytes += candidate.message.bytes();
            if bytes > pull.bytes && !taken.is_empty() {
                break;
            }
            taken.push(candidate);
        }
        Ok(taken)
    }

    fn lease<S: Store>(
        &mut self,
        pull: &Pull,
        candidate: Candidate,
        (until, batch): (Millis, u64),
        store: &mut S,
    ) -> Delivered {
        let Candidate { seq, message, returned } = candidate;
        let (id, holder) = (pull.queue, pull.holder);
        let now = self.now();
        let mut nonce = 0;
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.state.leases_made += 1;
            queue.state.ready -= 1;
            queue.state.leased += 1;
            queue.totals.delivered += 1;
            queue.enter_batch(batch);
            match &returned {
                Some((order, _)) => queue.state.returned_head = order.next(),
                None => queue.state.cursor = seq.next(),
            }
            // Time is part of it because a power cut may take back the count, but never the time.
            nonce = mix(mix(now) ^ mix(queue.state.leases_made) ^ seq.0);
        }
        let delivery = if let Some((order, delivery)) = returned {
            store.remove(Key::Returned(id, order));
            Delivery { place: Place::Leased { until, nonce, batch }, ..delivery }
        } else {
            let (table, bytes) = (Table::Fresh, message.bytes());
            let place = Place::Leased { until, nonce, batch };
            Delivery { table, bytes, attempts: 0, releases: 0, place, reason: String::new() }
        };
        let attempt = delivery.attempts + 1;
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.leased.insert(seq, Leased { delivery: delivery.clone(), holder });
        }
        store.put(Key::Delivery(id, seq), Record::Delivery(delivery));
        self.leases.insert((until, id, seq));
        self.touched.insert(id);
        Delivered { lease: Lease { queue: id, seq, nonce }, attempt, until, message }
    }
}

fn read_returned<S: Store>(
    id: QueueId,
    order: Order,
    seq: Seq,
    store: &S,
) -> Result<Candidate, Fault<S::Error>> {
    let delivery = store.delivery(id, seq)?.ok_or(Fault::Corrupt(Key::Delivery(id, seq)))?;
    let message = store.message(delivery.table, id, seq)?;
    Ok(Candidate { seq, message, returned: Some((order, delivery)) })
}
