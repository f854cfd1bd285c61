//! A declaration: all policies at once, replacing the last ones.

use std::collections::BTreeSet;

use crate::command::{Declaration, DeclaredQueue, Reply};
use crate::core::Core;
use crate::gaps::Gaps;
use crate::id::QueueId;
use crate::key::Key;
use crate::queue::Queue;
use crate::record::{QueueRecord, Record, State, Times};
use crate::store::Store;

impl Core {
    /// Takes every declared queue, and retains those that are missing; empty ones of these go.
    pub(crate) fn declare<S: Store>(&mut self, declaration: Declaration, store: &mut S) -> Reply {
        let declared: BTreeSet<String> = declaration.queues.iter().map(|queue| queue.label.clone()).collect();
        for queue in declaration.queues {
            self.declare_queue(queue, store);
        }
        let missing: Vec<QueueId> =
            self.labels.iter().filter(|(label, _)| !declared.contains(*label)).map(|(_, id)| *id).collect();
        for id in missing {
            self.retain(id, store);
        }
        // A target may have come, or have room now.
        self.dead_retry = 0;
        self.meta.revision = declaration.revision;
        store.put(Key::Meta, Record::Meta(self.meta.clone()));
        Reply::Declared
    }

    fn declare_queue<S: Store>(&mut self, declared: DeclaredQueue, store: &mut S) {
        let now = self.now();
        let id = match self.labels.get(&declared.label) {
            Some(id) => *id,
            None => self.new_queue(&declared, store),
        };
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

    fn retain<S: Store>(&mut self, id: QueueId, store: &mut S) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        if !queue.retained {
            queue.retained = true;
            put_queue(id, queue, store);
        }
        self.forget_if_over(id, store);
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
