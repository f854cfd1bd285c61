//! Time passes: delayed messages become due, leases end, old messages go, dead ones move on, sends are forgotten. A bounded
//! step of each.

use crate::command::Reply;
use crate::core::{Core, END};
use crate::fault::Fault;
use crate::id::{Millis, QueueId, Seq};
use crate::key::Key;
use crate::limits;
use crate::record::{Delivery, Message, Place, Record, Table, Timer};
use crate::store::{Limit, Store, Typed};

impl Core {
    pub(crate) fn tick<S: Store>(&mut self, store: &mut S) -> Result<Reply, Fault<S::Error>> {
        let timers = self.promote(store)?;
        let leases = self.end_leases(store)?;
        // Before retention: a message whose target takes it again is moved, not dropped.
        self.move_dead(store)?;
        let retention = self.expire(store)?;
        let purge = self.sweep(store)?;
        let sends = self.forget_sends(store)?;
        Ok(Reply::Ticked { more: timers || leases || retention || purge || sends })
    }

    /// Delayed messages that are due become ready. Says whether more are.
    fn promote<S: Store>(&mut self, store: &mut S) -> Result<bool, Fault<S::Error>> {
        let now = self.now();
        let Some(next) = self.next_timer.filter(|due| *due <= now) else {
            return Ok(false);
        };
        // Before the next one there are only such as went another way.
        let (due, queue, seq) = self.clock.timer_head.max((next, QueueId(0), Seq(0)));
        let end = Key::Timer(now + 1, QueueId(0), Seq(0));
        let due_now = store.scan(Key::Timer(due, queue, seq), end, Limit::records(limits::TICK_STEP))?;
        let mut more = due_now.len() == limits::TICK_STEP;
        let mut bodies = Limit { records: limits::TICK_STEP, bytes: limits::BODIES_BYTES };
        for (key, record) in due_now {
            if bodies.is_reached() {
                more = true;
                break;
            }
            let (Key::Timer(due, id, seq), Record::Timer(timer)) = (key, record) else {
                return Err(Fault::Corrupt(key));
            };
            self.clock.timer_head = (due, id, seq.next());
            self.remove_timer(due, id, seq, store);
            bodies.count(self.ready_when_due(id, seq, timer, store)?);
        }
        self.next_timer = self.first_timer(store)?;
        Ok(more)
    }

    /// When the first timer is due. Times that are known to be quiet are not looked at again.
    fn first_timer<S: Store>(&mut self, store: &S) -> Result<Option<Millis>, Fault<S::Error>> {
        let head = self.clock.timer_head;
        let at = |due| (due, QueueId(0), Seq(0));
        if let Some(due) = timer_between(head, at(self.quiet.start), store)? {
            return Ok(Some(due));
        }
        let due = timer_between(head.max(at(self.quiet.end)), at(Millis::MAX), store)?;
        self.quiet = head.0.saturating_add(1)..due.unwrap_or(Millis::MAX);
        Ok(due)
    }

    /// Answers how many bytes it has read to know their number.
    fn ready_when_due<S: Store>(
        &mut self,
        id: QueueId,
        seq: Seq,
        timer: Timer,
        store: &mut S,
    ) -> Result<u64, Fault<S::Error>> {
        if self.queues.get(&id).is_none_or(|queue| queue.is_gone(seq)) {
            return Ok(0);
        }
        let mut read = 0;
        let delivery = if let Some(delivery) = store.delivery(id, seq)? {
            delivery
        } else {
            let bytes = store.message(timer.table, id, seq)?.bytes();
            read = bytes;
            let (table, place) = (timer.table, Place::Waiting { due: 0 });
            Delivery { table, bytes, attempts: 0, releases: 0, place, reason: String::new() }
        };
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.state.delayed -= 1;
        }
        self.give_back(id, seq, delivery, store);
        Ok(read)
    }

    /// Leases that ended by time spend an attempt. Says whether more have ended.
    fn end_leases<S: Store>(&mut self, store: &mut S) -> Result<bool, Fault<S::Error>> {
        let now = self.now();
        let ended: Vec<(Millis, QueueId, Seq)> = self
            .leases
            .iter()
            .take_while(|(until, ..)| *until <= now)
            .take(limits::TICK_STEP)
            .copied()
            .collect();
        for (until, id, seq) in &ended {
            if self.queues.get(id).is_none_or(|queue| queue.is_gone(*seq)) {
                self.leases.remove(&(*until, *id, *seq));
                continue;
            }
            let key = Key::Delivery(*id, *seq);
            let delivery = self.delivery(*id, *seq, store)?.ok_or(Fault::Corrupt(key))?;
            self.total(*id, |totals| totals.lease_expired += 1);
            self.fail(*id, *seq, delivery, None, "the lease ended without a verdict", store)?;
        }
        Ok(ended.len() == limits::TICK_STEP)
    }

    /// Messages older than their queue's retention go. Says whether more must.
    fn expire<S: Store>(&mut self, store: &mut S) -> Result<bool, Fault<S::Error>> {
        let Some((at, id)) = self.retention.first().copied() else {
            return Ok(false);
        };
        if at > self.age_now() {
            return Ok(false);
        }
        let fresh = self.expire_table(id, Table::Fresh, store)?;
        let parked = self.expire_table(id, Table::Parked, store)?;
        self.look_at(id, [fresh, parked].into_iter().flatten().min());
        self.forget_if_over(id, store);
        Ok(self.retention.first().is_some_and(|(at, _)| *at <= self.age_now()))
    }

    /// Removes a step of expired messages; answers when to look again, or `None` when the table is empty.
    fn expire_table<S: Store>(
        &mut self,
        id: QueueId,
        table: Table,
        store: &mut S,
    ) -> Result<Option<Millis>, Fault<S::Error>> {
        let age_now = self.age_now();
        let Some(queue) = self.queues.get(&id) else {
            return Ok(None);
        };
        let (retention, low, tail) = (queue.policy.retention, queue.low(table), queue.state.tail);
        let expired =
            |(_, message): &(Seq, Box<Message>)| message.stored_at.saturating_add(retention) <= age_now;
        let mut step = self.living(id, table, low, Limit::records(1), store)?;
        // What lies behind one that stays is of no use.
        if step.first().is_some_and(expired) {
            let limit = Limit { records: limits::BATCH_MAX, bytes: limits::BODIES_BYTES };
            step = self.living(id, table, low, limit, store)?;
        }
        let (mut low, mut next) = (tail, None);
        for (seq, message) in step {
            let expires = message.stored_at.saturating_add(retention);
            (low, next) = (seq, Some(expires));
            if expires > age_now {
                break;
            }
            self.remove(id, seq, (table, &message), store)?;
            self.total(id, |totals| totals.expired += 1);
        }
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.set_low(table, low);
            self.touched.insert(id);
        }
        Ok(next)
    }

    /// Dead messages go on to their dead-letter queues, where these can take them.
    fn move_dead<S: Store>(&mut self, store: &mut S) -> Result<(), Fault<S::Error>> {
        if self.dead_retry > self.now() {
            return Ok(());
        }
        self.dead.retain(|id| self.queues.get(id).is_some_and(|queue| queue.state.dead > 0));
        let waiting: Vec<QueueId> = self.dead.iter().copied().collect();
        let mut more = false;
        for id in waiting {
            let mut moved = 0;
            let Some(queue) = self.queues.get(&id) else {
                continue;
            };
            let (from, to) = (Key::Dead(id, queue.state.dead_head), Key::Dead(id, END));
            let found = store.entries(from, to, limits::DEAD_STEP)?;
            // Those that went another way are not passed again.
            if let (Some((first, _)), Some(queue)) = (found.first(), self.queues.get_mut(&id)) {
                queue.state.dead_head = *first;
                self.touched.insert(id);
            }
            for (order, seq) in found {
                if self.moved >= limits::MOVED_BYTES_MAX {
                    more = true;
                    break;
                }
                let delivery = store.delivery(id, seq)?.ok_or(Fault::Corrupt(Key::Delivery(id, seq)))?;
                if !self.try_move(id, seq, &delivery, store)? {
                    break;
                }
                if let Some(queue) = self.queues.get_mut(&id) {
                    queue.state.dead_head = order.next();
                }
                moved += 1;
            }
            more |= moved == limits::DEAD_STEP;
            if self.queues.get(&id).is_none_or(|queue| queue.state.dead == 0) {
                self.dead.remove(&id);
            }
        }
        // Their target takes them: go on at once.
        let pause = if more { 0 } else { limits::DEAD_RETRY_MS };
        self.dead_retry = self.now().saturating_add(pause);
        Ok(())
    }
}

/// When the first timer from one place on, below another, is due.
fn timer_between<S: Store>(
    from: (Millis, QueueId, Seq),
    to: (Millis, QueueId, Seq),
    store: &S,
) -> Result<Option<Millis>, Fault<S::Error>> {
    let (from, to) = (Key::Timer(from.0, from.1, from.2), Key::Timer(to.0, to.1, to.2));
    let first = store.scan(from, to, Limit::records(1))?;
    Ok(first.first().and_then(|(key, _)| if let Key::Timer(due, ..) = key { Some(*due) } else { None }))
}
