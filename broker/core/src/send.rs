//! A send: messages enter a queue, ready or delayed.

use crate::command::{Refusal, Reply, Send, SendItem};
use crate::core::Core;
use crate::id::{MessageId, Millis, QueueId, Seq};
use crate::key::Key;
use crate::queue::Queue;
use crate::record::{Message, Record, Table, Timer};
use crate::store::{Read, Store};

impl Core {
    pub(crate) fn send<S: Store>(&mut self, send: Send, store: &mut S) -> Read<Reply, S> {
        if let Some(idempotency) = send.idempotency
            && let Some(answered) = self.recall(send.queue, idempotency, store)?
        {
            return Ok(answered);
        }
        Ok(self.try_send(send, store).map_or_else(Reply::Refused, Reply::Sent))
    }

    fn try_send<S: Store>(&mut self, send: Send, store: &mut S) -> Result<Vec<MessageId>, Refusal> {
        let (id, count) = (send.queue, send.items.len());
        let queue = self.queues.get(&id).ok_or(Refusal::QueueUnknown)?;
        if queue.retained {
            return Err(Refusal::QueueRetained);
        }
        let added = send.items.iter().map(item_bytes).sum();
        room(queue, count as u64, added)?;
        if send.idempotency.is_some() {
            self.may_remember(id)?;
        }
        let queue = self.touch(id)?;
        queue.totals.sent += count as u64;
        let first = queue.state.tail;
        let mut ids = Vec::with_capacity(count);
        for item in send.items {
            ids.push(self.store_item(id, item, store)?);
        }
        if let Some(idempotency) = send.idempotency {
            self.remember(id, idempotency, (first, count as u32), store);
        }
        Ok(ids)
    }

    fn store_item<S: Store>(
        &mut self,
        id: QueueId,
        item: SendItem,
        store: &mut S,
    ) -> Result<MessageId, Refusal> {
        let (now, stored_at) = (self.now(), self.age_now());
        let queue = self.touch(id)?;
        let (delay, seq) = (item.delay.unwrap_or(queue.policy.delivery_delay), queue.state.tail);
        let name = self.message_id(id, seq);
        let due = if delay == 0 { 0 } else { now.saturating_add(delay) };
        let SendItem { content_type, attributes, body, .. } = item;
        let message =
            Message { id: name, sent_at: now, stored_at, due, content_type, attributes, body, origin: None };
        self.store_message(id, message, store)?;
        Ok(name)
    }

    /// Puts a message at the end of a queue: ready, or delayed when it has a `due`.
    pub(crate) fn store_message<S: Store>(
        &mut self,
        id: QueueId,
        message: Message,
        store: &mut S,
    ) -> Result<(), Refusal> {
        let gaps_most = self.gaps_share();
        let queue = self.touch(id)?;
        let seq = queue.state.tail;
        queue.state.tail = seq.next();
        queue.state.bytes += message.bytes();
        let looked_after = queue.look_at.is_some();
        let expires = message.stored_at.saturating_add(queue.policy.retention);
        let due = message.due;
        if due == 0 {
            queue.state.ready += 1;
            queue.gaps[Table::Fresh as usize].put(seq, gaps_most);
            self.woken.insert(id);
            store.put(Key::Fresh(id, seq), Record::Message(Box::new(message)));
        } else {
            queue.state.delayed += 1;
            queue.gaps[Table::Parked as usize].put(seq, gaps_most);
            store.put(Key::Parked(id, seq), Record::Message(Box::new(message)));
            self.put_timer(due, id, seq, Table::Parked, store);
        }
        if !looked_after {
            self.look_at(id, Some(expires));
        }
        Ok(())
    }

    pub(crate) fn put_timer<S: Store>(
        &mut self,
        due: Millis,
        id: QueueId,
        seq: Seq,
        table: Table,
        store: &mut S,
    ) {
        store.put(Key::Timer(due, id, seq), Record::Timer(Timer { table }));
        self.note_timer(due, id, seq);
        self.next_timer = Some(self.next_timer.map_or(due, |next| next.min(due)));
        if self.quiet.contains(&due) {
            self.quiet.start = due + 1;
        }
    }
}

/// Whether a queue may take so much more.
pub(crate) fn room(queue: &Queue, messages: u64, bytes: u64) -> Result<(), Refusal> {
    let beyond = |limit: Option<u64>, value: u64| limit.is_some_and(|limit| value > limit);
    if beyond(queue.policy.max_bytes, bytes) || beyond(queue.policy.max_messages, messages) {
        return Err(Refusal::BeyondQueue);
    }
    if beyond(queue.policy.max_bytes, queue.state.bytes.saturating_add(bytes)) {
        return Err(Refusal::QueueBytesFull);
    }
    if beyond(queue.policy.max_messages, queue.state.count().saturating_add(messages)) {
        return Err(Refusal::QueueMessagesFull);
    }
    Ok(())
}

fn item_bytes(item: &SendItem) -> u64 {
    let attributes: usize = item.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
    (item.body.len() + attributes) as u64
}
