//! A declaration: all policies at once, replacing the last ones.

use std::collections::BTreeSet;

use crate::command::{Declaration, DeclaredQueue, Purge, Reply};
use crate::core::Core;
use crate::gaps::Gaps;
use crate::id::{Millis, QueueId};
use crate::key::Key;
use crate::queue::Queue;
use crate::record::{QueueRecord, Record, State, Times};
use crate::store::Store;

impl Core {
    /// Takes every declared queue, and retains those that are missing; empty ones of these go. Of a queue that is to go
    /// with its resource, the messages go when its own declarer no longer has it, or has it from another resource.
    pub(crate) fn declare<S: Store>(&mut self, declaration: Declaration, store: &mut S) -> Reply {
        let declared: BTreeSet<String> = declaration.queues.iter().map(|queue| queue.label.clone()).collect();
        let declarer = declaration.declarer;
        for queue in declaration.queues {
            self.declare_queue(queue, &declarer, store);
        }
        let missing: Vec<QueueId> =
            self.labels.iter().filter(|(label, _)| !declared.contains(*label)).map(|(_, id)| *id).collect();
        for id in missing {
            self.retain(id, &declarer, store);
        }
        // A target may have come, or have room now.
        self.dead_retry = 0;
        self.meta.revision = declaration.revision;
        store.put(Key::Meta, Record::Meta(self.meta.clone()));
        Reply::Declared
    }

    fn declare_queue<S: Store>(&mut self, declared: DeclaredQueue, declarer: &str, store: &mut S) {
        let now = self.now();
        let id = match self.labels.get(&declared.label) {
            Some(id) => *id,
            None => self.new_queue(&declared, store),
        };
        // A retained queue was kept when its resource went: it is adopted, whoever declares it now.
        let is_replaced = |queue: &Queue| {
            let is_other = queue.policy.resource != declared.policy.resource;
            !queue.retained && is_other && queue.policy.goes_at_the_word_of(declarer)
        };
        if self.queues.get(&id).is_some_and(is_replaced) {
            self.purge_rest(id, store);
        }
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        if !queue.retained && queue.policy == declared.policy && queue.document == declared.document {
            return;
        }
        queue.retained = false;
        queue.times.modified_at = now;
        queue.times.consumer_at = match (&queue.policy.consumer, &declared.policy.consumer) {
            (_, None) => 0,
            (Some(_), Some(_)) if queue.times.consumer_at > 0 => queue.times.consumer_at,
            (_, Some(_)) => now,
        };
        queue.policy = declared.policy;
        queue.document = declared.document;
        put_queue(id, queue, store);
        if queue.state.ready > 0 {
            self.woken.insert(id);
        }
        // A shorter retention may already be passed: look at the next tick.
        if queue.state.count() > 0 {
            self.look_at(id, Some(0));
        }
    }

    fn new_queue<S: Store>(&mut self, declared: &DeclaredQueue, store: &mut S) -> QueueId {
        let id = self.meta.next_queue;
        self.meta.next_queue = QueueId(id.0 + 1);
        let (label, document, now) = (declared.label.clone(), declared.document.clone(), self.now());
        let consumer_at = if declared.policy.consumer.is_some() { now } else { 0 };
        let times = Times { created_at: now, modified_at: now, consumer_at };
        let record = QueueRecord { label, retained: false, times, document };
        let queue = Queue::new(record, declared.policy.clone(), State::EMPTY);
        put_queue(id, &queue, store);
        self.labels.insert(declared.label.clone(), id);
        self.queues.insert(id, queue);
        self.touched.insert(id);
        id
    }

    fn retain<S: Store>(&mut self, id: QueueId, declarer: &str, store: &mut S) {
        let now = self.now();
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        if !queue.retained {
            queue.retained = true;
            queue.times.modified_at = now;
            let is_purged = queue.policy.goes_at_the_word_of(declarer);
            put_queue(id, queue, store);
            if is_purged {
                self.purge_rest(id, store);
            }
        }
        self.forget_if_over(id, store);
    }

    /// Purges what a queue has, if it has anything.
    fn purge_rest<S: Store>(&mut self, id: QueueId, store: &mut S) {
        if self.queues.get(&id).is_some_and(|queue| queue.state.count() > 0) {
            self.purge(Purge { queue: id }, store);
        }
    }

    /// When the retention has removed all messages of a retained queue: nothing came since it is retained. `None` of others.
    #[must_use]
    pub fn empty_by(&self, id: QueueId) -> Option<Millis> {
        let queue = self.queues.get(&id).filter(|queue| queue.retained && queue.state.count() > 0)?;
        let last = queue.times.modified_at.saturating_add(queue.policy.retention);
        // A queue that an earlier version retained does not tell since when.
        let next = queue.look_at.map_or(0, |at| at.saturating_add(self.clock.outage));
        Some(last.max(next))
    }

    /// A long outage does not count towards retention, so what is kept is kept longer by it.
    pub(crate) fn resume_retained<S: Store>(&mut self, id: QueueId, outage: Millis, store: &mut S) {
        let Some(queue) = self.queues.get_mut(&id).filter(|queue| queue.retained) else {
            return;
        };
        queue.times.modified_at = queue.times.modified_at.saturating_add(outage);
        put_queue(id, queue, store);
    }

    /// Removes a queue that is retained and empty, with nothing left of a purge, and no send that may be repeated when it is
    /// declared again.
    pub(crate) fn forget_if_over<S: Store>(&mut self, id: QueueId, store: &mut S) {
        let over = |queue: &Queue| {
            let empty = queue.state.count() == 0 && queue.sends.count() == 0;
            queue.retained && empty && queue.purge.is_none()
        };
        if !self.queues.get(&id).is_some_and(over) {
            return;
        }
        let Some(queue) = self.queues.remove(&id) else {
            return;
        };
        self.labels.remove(&queue.label);
        self.retention.retain(|(_, other)| *other != id);
        store.remove(Key::Queue(id));
        store.remove(Key::State(id));
        if queue.gaps.iter().any(Gaps::is_recorded) {
            store.remove(Key::Gaps(id));
        }
        if queue.sends.is_marked() {
            store.remove(Key::Remembered(id));
        }
    }
}

fn put_queue<S: Store>(id: QueueId, queue: &Queue, store: &mut S) {
    let (label, document) = (queue.label.clone(), queue.document.clone());
    let (retained, times) = (queue.retained, queue.times);
    store.put(Key::Queue(id), Record::Queue(QueueRecord { label, retained, times, document }));
}
