//! A declaration: all policies at once, replacing the last ones.

use std::collections::BTreeSet;

use crate::command::{Declaration, DeclaredQueue, Reply};
use crate::core::Core;
use crate::id::QueueId;
use crate::key::Key;
use crate::queue::Queue;
use crate::record::{QueueRecord, Record, State};
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
        self.meta.revision = declaration.revision;
        store.put(Key::Meta, Record::Meta(self.meta.clone()));
        Reply::Declared
    }

    fn declare_queue<S: Store>(&mut self, declared: DeclaredQueue, store: &mut S) {
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
        let (label, document) = (declared.label.clone(), declared.document.clone());
        let queue = Queue::new(label, false, document, declared.policy.clone(), State::EMPTY);
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
        if queue.state.count() == 0 {
            self.forget(id, store);
        } else if !queue.retained {
            queue.retained = true;
            put_queue(id, queue, store);
        }
    }

    /// Removes a queue that is retained and empty.
    pub(crate) fn forget<S: Store>(&mut self, id: QueueId, store: &mut S) {
        let Some(queue) = self.queues.remove(&id) else {
            return;
        };
        self.labels.remove(&queue.label);
        self.retention.retain(|(_, other)| *other != id);
        store.remove(Key::Queue(id));
        store.remove(Key::State(id));
    }
}

fn put_queue<S: Store>(id: QueueId, queue: &Queue, store: &mut S) {
    let (label, document) = (queue.label.clone(), queue.document.clone());
    store.put(Key::Queue(id), Record::Queue(QueueRecord { label, retained: queue.retained, document }));
}
