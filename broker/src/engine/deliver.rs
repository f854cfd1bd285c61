//! The first commit of a round: leases for the pulls that are to be answered now.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use capstan_core::{Command, QueueId, Reply};

use super::count::backlog;
use super::round::Answer;
use super::waiters::WaitingPull;
use super::watchdog::Part;
use super::{Durability, Engine, EngineError, Outcome, Transaction};

/// Most body and attribute bytes that are leased in one commit, and so held twice.
const DELIVERY_BYTES: u64 = 8 << 20;

impl Engine {
    /// The first commit of a round: leases for the pulls that are to be answered now.
    pub(super) fn deliver(&mut self, now: u64) -> Result<(), EngineError> {
        if self.pulled.is_full() {
            if self.is_room_needed(now) {
                self.abandoned.extend(self.pulled.cut_stalled());
            }
            return self.put_off(now);
        }
        let mut due = std::mem::take(&mut self.overdue);
        for queue in std::mem::take(&mut self.awake) {
            // A queue that delivers nothing says so at once.
            match self.deliverable(queue) {
                Some((ready, most)) => {
                    let is_retiring = |holder| self.retiring.has(holder);
                    due.extend(self.waiters.due(queue, ready, most, now, is_retiring));
                }
                None => due.extend(self.waiters.all(queue)),
            }
        }
        due.extend(self.waiters.expired(now));
        while !due.is_empty() && !self.pulled.is_full() {
            self.deliver_some(&mut due, now)?;
        }
        self.overdue = due;
        Ok(())
    }

    /// Whether there are pulls that would be answered, were it not for unread answers.
    fn is_room_needed(&self, now: u64) -> bool {
        !self.overdue.is_empty()
            || self.awake.iter().any(|queue| self.waiters.has(*queue))
            || self.waiters.next_deadline().is_some_and(|at| at <= now)
    }

    /// Too many answers are unread: pulls go on waiting, and those that are due, or whose time is over, get nothing.
    fn put_off(&mut self, now: u64) -> Result<(), EngineError> {
        // Those that were due are answered too: a client that waits longer may ask again.
        let mut over = std::mem::take(&mut self.overdue);
        over.extend(self.waiters.expired(now));
        self.answer_with_nothing(over)
    }

    /// Answers all waiting pulls empty-handed; nothing is leased to clients that are about to lose their connection.
    pub(super) fn stop_waiting(&mut self) -> Result<(), EngineError> {
        self.waiting = false;
        let mut waiting = std::mem::take(&mut self.overdue);
        for queue in self.waiters.queues() {
            waiting.extend(self.waiters.all(queue));
        }
        self.answer_with_nothing(waiting)
    }

    fn answer_with_nothing(&mut self, pulls: VecDeque<WaitingPull>) -> Result<(), EngineError> {
        let store = Arc::clone(&self.store);
        let transaction = store.transaction();
        for WaitingPull { pull, reply, .. } in pulls {
            let backlog = backlog(&mut self.core, pull.queue, &transaction)?;
            let _ = reply.send(Outcome::nothing(Some(backlog)));
        }
        Ok(())
    }

    /// Answers pulls until enough bytes are leased.
    fn deliver_some(&mut self, due: &mut VecDeque<WaitingPull>, now: u64) -> Result<(), EngineError> {
        let store = Arc::clone(&self.store);
        let mut transaction = store.transaction();
        let (mut answers, mut bytes) = (Vec::new(), 0);
        while bytes < DELIVERY_BYTES
            && !self.pulled.is_full()
            && let Some(WaitingPull { pull, reply, .. }) = due.pop_front()
        {
            if reply.is_closed() {
                continue;
            }
            let (queue, wanted) = (pull.queue, pull.count);
            // One that retires learns of a refusal all the same: it would ask again at once.
            if self.retiring.has(pull.holder) && self.deliverable(queue).is_some() {
                let backlog = backlog(&mut self.core, queue, &transaction)?;
                answers.push(Answer::Pulled(reply, Outcome::nothing(Some(backlog))));
                continue;
            }
            let effects = self.core.apply(Command::Pull(pull), now, &mut transaction)?;
            let mut held = None;
            if let Reply::Delivered(delivered) = &effects.reply {
                let leased = delivered.iter().map(|one| one.message.bytes()).sum::<u64>();
                bytes += leased;
                held = Some(self.pulled.hold(leased, delivered.iter().map(|one| one.lease).collect()));
                // It left some of what was meant for it, by its limit of bytes: the next one may have them.
                if !delivered.is_empty() && delivered.len() < wanted && self.waiters.has(queue) {
                    self.awake.insert(queue);
                }
            }
            let backlog = backlog(&mut self.core, queue, &transaction)?;
            let outcome = Outcome { reply: effects.reply, backlog: Some(backlog), held };
            answers.push(Answer::Pulled(reply, outcome));
        }
        if !transaction.is_empty() {
            self.lease(transaction)?;
        }
        let undelivered = self.syncer.answer(answers);
        self.abandoned.extend(undelivered);
        Ok(())
    }

    /// Messages of a queue that may be leased now, and to how many pulls; `None` when its pulls are to be refused.
    fn deliverable(&self, queue: QueueId) -> Option<(u64, usize)> {
        let view = self.core.view(queue)?;
        let consumer = view.policy.consumer.as_ref()?;
        let room = self.core.lease_room(queue);
        let delivers = !view.retained && !view.policy.paused && !consumer.paused;
        delivers.then(|| (view.state.ready.min(room), view.pulls_left.unwrap_or(usize::MAX)))
    }

    /// Commits leases: no disk is waited for.
    fn lease(&mut self, mut transaction: Transaction<'_>) -> Result<(), EngineError> {
        self.core.flush(&mut transaction);
        let began = Instant::now();
        self.watchdog.during(Part::Write, || transaction.commit(Durability::Buffered))?;
        self.stats.committed(Durability::Buffered, began.elapsed());
        self.committed();
        Ok(())
    }
}
