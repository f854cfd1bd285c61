//! Sends that named an idempotency key: remembered for a while, so that a repeated one is stored once.
//!
//! Their records are in the order of the messages, which is that of time: what is forgotten lies below a mark, as with
//! messages. By key they are found in memory alone; a record is read only for a key that is known.

use std::collections::BTreeMap;

use crate::command::{Idempotency, Recall, Refusal, Reply};
use crate::core::Core;
use crate::fault::Fault;
use crate::id::{MessageId, Millis, QueueId, Seq};
use crate::key::Key;
use crate::limits;
use crate::record::{Record, RememberedMarks, SentRecord};
use crate::store::{Limit, Read, Store};

/// The remembered sends of a queue. Bounded by [`limits::Bounds::sends`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Remembered {
    /// The first message of the last send with each key.
    by_key: BTreeMap<u128, Seq>,
    /// Records: a key that was sent again after the window may have two.
    count: u64,
    marks: RememberedMarks,
    /// When to forget the oldest; its entry in [`Core`]'s `forgetting`.
    look_at: Option<Millis>,
}

impl Remembered {
    /// How many are remembered.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// Whether there is a record of marks.
    pub(crate) fn is_marked(&self) -> bool {
        self.marks != RememberedMarks::default()
    }

    fn put(&mut self, seq: Seq, sent: &SentRecord) {
        self.by_key.insert(sent.key, seq);
        self.count += 1;
    }

    /// The oldest goes; its key may be a later one's by now.
    fn forget(&mut self, seq: Seq, sent: &SentRecord) {
        if self.by_key.get(&sent.key) == Some(&seq) {
            self.by_key.remove(&sent.key);
        }
        self.count -= 1;
        self.marks.low = seq.next();
    }
}

impl Core {
    /// The answer to a repeated send, whatever the queue takes now; `None` when it is none.
    pub(crate) fn recall<S: Store>(
        &mut self,
        id: QueueId,
        idempotency: Idempotency,
        store: &S,
    ) -> Read<Option<Reply>, S> {
        let Some(queue) = self.queues.get_mut(&id) else {
            return Ok(Some(Refusal::QueueUnknown.into()));
        };
        if queue.retained {
            return Ok(Some(Refusal::QueueRetained.into()));
        }
        let Some(first) = queue.sends.by_key.get(&idempotency.key).copied() else {
            return Ok(None);
        };
        let key = Key::Sent(id, first);
        let Some(Record::Sent(sent)) = store.get(key)? else {
            return Err(Fault::Corrupt(key));
        };
        let uptime = self.clock.committed.saturating_sub(queue.sends.marks.down);
        if is_over(&sent, uptime, self.bounds.send_window) {
            return Ok(None);
        }
        if sent.content != idempotency.content {
            return Ok(Some(Refusal::KeyReused.into()));
        }
        queue.totals.duplicate_sends += 1;
        let ids = (first.0..).take(sent.count as usize).map(|seq| self.message_id(id, Seq(seq)));
        Ok(Some(Reply::Sent(ids.collect())))
    }

    /// Answers a send only if it is a repeated one.
    pub(crate) fn only_recall<S: Store>(
        &mut self,
        Recall { queue, idempotency }: Recall,
        store: &S,
    ) -> Read<Reply, S> {
        Ok(self.recall(queue, idempotency, store)?.unwrap_or(Refusal::NotSent.into()))
    }

    /// Whether one more send may be remembered.
    pub(crate) fn may_remember(&self, id: QueueId) -> Result<(), Refusal> {
        let of_queue = self.queues.get(&id).map_or(0, |queue| queue.sends.count);
        let room = of_queue < self.bounds.sends && self.remembered < self.bounds.sends_all;
        if room { Ok(()) } else { Err(Refusal::KeysFull) }
    }

    /// Remembers a send of `count` messages from `first` on.
    pub(crate) fn remember<S: Store>(
        &mut self,
        id: QueueId,
        Idempotency { key, content }: Idempotency,
        (first, count): (Seq, u32),
        store: &mut S,
    ) {
        let now = self.clock.committed;
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let down = queue.sends.marks.down;
        let sent = SentRecord { key, content, count, sent_at: now.saturating_sub(down) };
        queue.sends.put(first, &sent);
        let look_at = queue.sends.look_at;
        self.remembered += 1;
        if look_at.is_none() {
            self.forget_at(id, Some(self.over_at(&sent, down)));
        }
        store.put(Key::Sent(id, first), Record::Sent(sent));
    }

    /// Forgets a step of sends whose window is over, of all queues. Says whether there are more.
    pub(crate) fn forget_sends<S: Store>(&mut self, store: &mut S) -> Read<bool, S> {
        let (now, mut room) = (self.now(), limits::SENDS_STEP);
        while let Some((_, id)) = self.forgetting.first().copied().filter(|(at, _)| *at <= now) {
            if room == 0 {
                return Ok(true);
            }
            let step = room.min(limits::SENDS_LOOK);
            self.forget_some(id, step, store)?;
            room -= step;
        }
        Ok(false)
    }

    /// Looks at the `step` oldest of a queue, and forgets those whose window is over.
    fn forget_some<S: Store>(&mut self, id: QueueId, step: usize, store: &mut S) -> Read<(), S> {
        let window = self.bounds.send_window;
        let Some(queue) = self.queues.get_mut(&id) else {
            return Ok(());
        };
        let (low, down, before) = (queue.sends.marks.low, queue.sends.marks.down, queue.sends.count);
        let uptime = self.clock.committed.saturating_sub(down);
        let (from, to) = (Key::Sent(id, low), Key::Sent(id, queue.state.tail));
        let mut stays = None;
        for (key, record) in store.scan(from, to, Limit::records(step))? {
            let (Key::Sent(_, seq), Record::Sent(sent)) = (key, record) else {
                return Err(Fault::Corrupt(key));
            };
            if !is_over(&sent, uptime, window) {
                stays = Some(sent);
                break;
            }
            store.remove(key);
            queue.sends.forget(seq, &sent);
        }
        let (after, marks, look_at) = (queue.sends.count, queue.sends.marks, queue.sends.look_at);
        self.remembered -= before - after;
        if after < before {
            store.put(Key::Remembered(id), Record::Remembered(marks));
        }
        let next = match stays {
            Some(sent) => Some(self.over_at(&sent, down)),
            // The step was too short.
            None => look_at.filter(|_| after > 0),
        };
        self.forget_at(id, next);
        self.forget_if_over(id, store);
        Ok(())
    }

    /// Reads what is remembered. The time in which nobody could repeat a send does not count.
    pub(crate) fn resume_sends<S: Store>(
        &mut self,
        store: &mut S,
        id: QueueId,
        downtime: Millis,
    ) -> Read<(), S> {
        let Some(queue) = self.queues.get_mut(&id) else {
            return Ok(());
        };
        queue.sends.marks = match store.get(Key::Remembered(id))? {
            None => RememberedMarks::default(),
            Some(Record::Remembered(marks)) => marks,
            Some(_) => return Err(Fault::Corrupt(Key::Remembered(id))),
        };
        let (mut from, to) = (Key::Sent(id, queue.sends.marks.low), Key::Sent(id, queue.state.tail));
        let mut oldest = None;
        loop {
            let step = store.scan(from, to, Limit::records(limits::SENDS_STEP))?;
            for (key, record) in &step {
                let (Key::Sent(_, seq), Record::Sent(sent)) = (key, record) else {
                    return Err(Fault::Corrupt(*key));
                };
                queue.sends.put(*seq, sent);
                oldest = oldest.or(Some(*sent));
                from = Key::Sent(id, seq.next());
            }
            if step.len() < limits::SENDS_STEP {
                break;
            }
        }
        let Some(oldest) = oldest else {
            return Ok(());
        };
        if downtime > 0 {
            queue.sends.marks.down += downtime;
            store.put(Key::Remembered(id), Record::Remembered(queue.sends.marks));
        }
        let Remembered { count, marks, .. } = queue.sends;
        self.remembered += count;
        self.forget_at(id, Some(self.over_at(&oldest, marks.down)));
        Ok(())
    }

    /// When a send is to be forgotten: a little late, so that not every one takes a commit of its own.
    fn over_at(&self, sent: &SentRecord, down: Millis) -> Millis {
        const EVERY: Millis = limits::SENDS_FORGOTTEN_EVERY_MS;
        let over = sent.sent_at.saturating_add(self.bounds.send_window).saturating_add(down);
        over.div_ceil(EVERY).saturating_mul(EVERY)
    }

    fn forget_at(&mut self, id: QueueId, at: Option<Millis>) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut queue.sends.look_at, at) {
            self.forgetting.remove(&(before, id));
        }
        if let Some(at) = at {
            self.forgetting.insert((at, id));
        }
    }

    /// The name of a message of this store.
    pub(crate) fn message_id(&self, id: QueueId, seq: Seq) -> MessageId {
        #[expect(clippy::cast_possible_truncation, reason = "the seed is the low half of the incarnation")]
        MessageId::new(self.meta.incarnation as u32, id, seq)
    }
}

/// Whether nobody is told of a send any more. `uptime` leaves out the time without a broker, as `sent_at` does.
const fn is_over(sent: &SentRecord, uptime: Millis, window: Millis) -> bool {
    sent.sent_at.saturating_add(window) <= uptime
}
