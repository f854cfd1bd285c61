//! A failed attempt: back to ready or delayed, or, when the retries are used up, to the dead-letter queue.

use crate::command::Refusal;
use crate::core::Core;
use crate::fault::Fault;
use crate::id::{Millis, QueueId, Seq, mix};
use crate::key::Key;
use crate::limits;
use crate::record::{Delivery, Message, Origin, Place, Record};
use crate::send::room;
use crate::store::{Store, Typed};

impl Core {
    /// Ends a lease by a spent attempt. `delay` over the consumer's own.
    pub(crate) fn fail<S: Store>(
        &mut self,
        id: QueueId,
        seq: Seq,
        mut delivery: Delivery,
        delay: Option<Millis>,
        reason: &str,
        store: &mut S,
    ) -> Result<(), Fault<S::Error>> {
        self.leave(id, seq, &delivery, store);
        delivery.attempts += 1;
        reason_of(reason).clone_into(&mut delivery.reason);
        let consumer = self.queues.get(&id).and_then(|queue| queue.policy.consumer.as_ref());
        let Some(consumer) = consumer else {
            // Nobody consumes any more, so nobody says how often: it waits for the next consumer.
            self.give_back(id, seq, delivery, store);
            return Ok(());
        };
        if delivery.attempts > consumer.max_retries {
            return self.give_up(id, seq, delivery, store);
        }
        let noise = mix(seq.0 ^ mix(self.now()));
        match delay.unwrap_or_else(|| consumer.retry_delay(delivery.attempts, noise)) {
            0 => self.give_back(id, seq, delivery, store),
            delay => self.wait(id, seq, delivery, delay, store),
        }
        Ok(())
    }

    /// Makes a message ready again.
    pub(crate) fn give_back<S: Store>(
        &mut self,
        id: QueueId,
        seq: Seq,
        mut delivery: Delivery,
        store: &mut S,
    ) {
        let now = self.now();
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let order = queue.take_order();
        queue.state.ready += 1;
        queue.taken.note(order, queue.state.returned_head, now);
        delivery.place = Place::Returned { order };
        store.put(Key::Returned(id, order), Record::Entry(seq));
        store.put(Key::Delivery(id, seq), Record::Delivery(delivery));
        self.touched.insert(id);
        self.woken.insert(id);
    }

    /// Makes a message ready after `delay`.
    pub(crate) fn wait<S: Store>(
        &mut self,
        id: QueueId,
        seq: Seq,
        mut delivery: Delivery,
        delay: Millis,
        store: &mut S,
    ) {
        let due = self.now().saturating_add(delay);
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        queue.state.delayed += 1;
        delivery.place = Place::Waiting { due };
        let table = delivery.table;
        store.put(Key::Delivery(id, seq), Record::Delivery(delivery));
        self.put_timer(due, id, seq, table, store);
        self.touched.insert(id);
    }

    /// The retries are used up: to the dead-letter queue, or gone, or *dead* while its target cannot take it.
    fn give_up<S: Store>(
        &mut self,
        id: QueueId,
        seq: Seq,
        mut delivery: Delivery,
        store: &mut S,
    ) -> Result<(), Fault<S::Error>> {
        let Some(queue) = self.queues.get_mut(&id) else {
            return Ok(());
        };
        // In no index now: `leave` was called. The dead state holds it while it is decided where it goes.
        let order = queue.take_order();
        queue.state.dead += 1;
        delivery.place = Place::Dead { order };
        store.put(Key::Dead(id, order), Record::Entry(seq));
        store.put(Key::Delivery(id, seq), Record::Delivery(delivery.clone()));
        self.touched.insert(id);
        if self.moved >= limits::MOVED_BYTES_MAX {
            self.dead_retry = self.now();
            self.dead.insert(id);
        } else if !self.try_move(id, seq, &delivery, store)? {
            if self.dead.is_empty() {
                self.dead_retry = self.now().saturating_add(limits::DEAD_RETRY_MS);
            }
            self.dead.insert(id);
        }
        Ok(())
    }

    /// Moves a dead message on, and says whether it went; its queue knows why not.
    pub(crate) fn try_move<S: Store>(
        &mut self,
        id: QueueId,
        seq: Seq,
        delivery: &Delivery,
        store: &mut S,
    ) -> Result<bool, Fault<S::Error>> {
        let way = self.way_on(id, delivery.bytes);
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.blocked = way.err();
        }
        match way {
            Err(_) => return Ok(false),
            Ok(None) => {
                self.remove_delivered(id, seq, delivery, store);
                self.total(id, |totals| totals.dropped += 1);
            }
            Ok(Some(target)) => self.move_on((id, seq), target, delivery, store)?,
        }
        Ok(true)
    }

    /// Where a dead message of so many bytes goes: to a dead-letter queue that takes it, or, with `None`, away.
    fn way_on(&self, id: QueueId, bytes: u64) -> Result<Option<QueueId>, Refusal> {
        let queue = self.queues.get(&id).ok_or(Refusal::QueueUnknown)?;
        let consumer = queue.policy.consumer.as_ref().ok_or(Refusal::NoConsumer)?;
        let Some(label) = consumer.dead_letter.as_ref() else {
            return Ok(None);
        };
        let target = self.labels.get(label).copied().ok_or(Refusal::QueueUnknown)?;
        self.may_take(target, bytes)?;
        Ok(Some(target))
    }

    fn move_on<S: Store>(
        &mut self,
        (id, seq): (QueueId, Seq),
        target: QueueId,
        delivery: &Delivery,
        store: &mut S,
    ) -> Result<(), Fault<S::Error>> {
        let origin = Origin {
            label: self.queues.get(&id).map(|queue| queue.label.clone()).unwrap_or_default(),
            attempts: delivery.attempts,
            reason: delivery.reason.clone(),
            moved_at: self.now(),
        };
        self.moved = self.moved.saturating_add(delivery.bytes);
        let message = store.message(delivery.table, id, seq)?;
        let moved = Message { stored_at: self.age_now(), due: 0, origin: Some(origin), ..*message };
        self.remove_delivered(id, seq, delivery, store);
        // It was looked up before, so it takes the message.
        let taken = self.store_message(target, moved, store);
        debug_assert!(taken.is_ok(), "a dead letter was lost");
        self.total(id, |totals| totals.dead_lettered += 1);
        Ok(())
    }

    fn may_take(&self, target: QueueId, bytes: u64) -> Result<(), Refusal> {
        let queue = self.queues.get(&target).ok_or(Refusal::QueueUnknown)?;
        if queue.retained {
            return Err(Refusal::QueueRetained);
        }
        room(queue, 1, bytes)
    }

    pub(crate) fn total(&mut self, id: QueueId, count: impl FnOnce(&mut crate::queue::Totals)) {
        if let Some(queue) = self.queues.get_mut(&id) {
            count(&mut queue.totals);
        }
    }
}

/// A reason short enough to be kept.
fn reason_of(text: &str) -> &str {
    let mut end = text.len().min(limits::REASON_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_cut_between_characters() {
        assert_eq!(reason_of("short"), "short");
        let long = "ä".repeat(limits::REASON_MAX);
        assert_eq!(reason_of(&long), "ä".repeat(limits::REASON_MAX / 2));
        let odd = format!("x{long}");
        assert_eq!(reason_of(&odd).len(), limits::REASON_MAX - 1);
    }
}
