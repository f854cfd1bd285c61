//! The core itself: what it holds in memory, how it is opened, and the dispatch of commands.

use std::collections::{BTreeMap, BTreeSet};

use crate::ahead::Ahead;
use crate::command::{Command, Effects, Refusal, Reply};
use crate::fault::Fault;
use crate::id::{Holder, Millis, Order, QueueId, Seq};
use crate::key::Key;
use crate::limits::{self, Bounds};
use crate::policy::Policy;
use crate::queue::{Leased, Queue, Totals};
use crate::record::{Clock, Delivery, Meta, Place, Record, State, Table, Times};
use crate::store::{Limit, Store, Typed};

/// All queues of a store.
#[derive(Debug)]
pub struct Core {
    pub(crate) bounds: Bounds,
    pub(crate) meta: Meta,
    pub(crate) clock: Clock,
    pub(crate) queues: BTreeMap<QueueId, Queue>,
    pub(crate) labels: BTreeMap<String, QueueId>,
    /// When each lease ends. Bounded by [`Bounds::leased_all`].
    pub(crate) leases: BTreeSet<(Millis, QueueId, Seq)>,
    /// When the first timer is due, or a time before that.
    pub(crate) next_timer: Option<Millis>,
    /// No timer is due in this time, as was seen at a look: timers that went another way may be many there.
    pub(crate) quiet: std::ops::Range<Millis>,
    /// Timers that are due soon, while somebody wants to know.
    pub(crate) ahead: Option<Ahead>,
    /// When it was opened.
    pub(crate) opened: Millis,
    /// When to look for expired messages, in time less outages; one entry for each queue that has messages.
    pub(crate) retention: BTreeSet<(Millis, QueueId)>,
    /// When to forget sends; one entry for each queue that remembers some.
    pub(crate) forgetting: BTreeSet<(Millis, QueueId)>,
    /// Remembered sends of all queues. Bounded by [`Bounds::sends_all`].
    pub(crate) remembered: u64,
    /// Queues that have dead messages, or had them at the last look.
    pub(crate) dead: BTreeSet<QueueId>,
    /// When dead messages next try to move on. Only worth remembering: a core that was just opened tries at once.
    pub(crate) dead_retry: Millis,
    /// Bytes that this command has moved to dead-letter queues.
    pub(crate) moved: u64,
    /// Queues of which a purge has left records.
    pub(crate) sweeping: BTreeSet<QueueId>,
    /// Queues whose [`State`] is to be written with the next commit.
    pub(crate) touched: BTreeSet<QueueId>,
    /// Queues that changed since marks were last moved.
    pub(crate) unmarked: BTreeSet<QueueId>,
    /// Queues whose counts may be others than at the last look.
    changed: BTreeSet<QueueId>,
    pub(crate) woken: BTreeSet<QueueId>,
}

/// A queue as it stands.
#[derive(Debug, Clone, Copy)]
pub struct QueueView<'a> {
    pub id: QueueId,
    pub label: &'a str,
    pub retained: bool,
    pub times: Times,
    pub document: &'a [u8],
    pub policy: &'a Policy,
    pub state: &'a State,
    pub totals: Totals,
    /// Sends with idempotency keys that are remembered.
    pub remembered: u64,
    /// Whether records of purged messages are still to be removed.
    pub purging: bool,
    /// Why dead messages do not go on, as of the last trial; `None` when there are none or they are on their way.
    pub blocked: Option<Refusal>,
    /// How many more pulls may lease messages at once; `None` when there is no limit.
    pub pulls_left: Option<usize>,
    /// Pulls of which messages are leased.
    pub batches: usize,
}

impl Core {
    /// Makes the core of what `store` holds; writes into it what opening changes, to be committed before anything else.
    ///
    /// `incarnation` names the store if it is new. `policy` reads a queue's policy from the document it was declared with.
    ///
    /// # Errors
    /// [`Fault`] when the store cannot be read, or does not hold together.
    pub fn open<S: Store>(
        store: &mut S,
        now: Millis,
        incarnation: u64,
        policy: impl Fn(&[u8]) -> Option<Policy>,
    ) -> Result<Self, Fault<S::Error>> {
        Self::open_with(store, now, incarnation, policy, Bounds::USUAL)
    }

    /// The same, with bounds of the caller's choice.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with<S: Store>(
        store: &mut S,
        now: Millis,
        incarnation: u64,
        policy: impl Fn(&[u8]) -> Option<Policy>,
        bounds: Bounds,
    ) -> Result<Self, Fault<S::Error>> {
        let mut core = Self {
            bounds,
            meta: read_meta(store, incarnation)?,
            clock: read_clock(store, now)?,
            queues: BTreeMap::new(),
            labels: BTreeMap::new(),
            leases: BTreeSet::new(),
            next_timer: Some(0),
            quiet: 0..0,
            ahead: None,
            opened: now,
            retention: BTreeSet::new(),
            forgetting: BTreeSet::new(),
            remembered: 0,
            dead: BTreeSet::new(),
            dead_retry: 0,
            moved: 0,
            sweeping: BTreeSet::new(),
            touched: BTreeSet::new(),
            unmarked: BTreeSet::new(),
            changed: BTreeSet::new(),
            woken: BTreeSet::new(),
        };
        core.read_queues(store, policy)?;
        core.resume(store, now)?;
        store.put(Key::Meta, Record::Meta(core.meta.clone()));
        core.flush(store);
        Ok(core)
    }

    fn read_queues<S: Store>(
        &mut self,
        store: &S,
        policy: impl Fn(&[u8]) -> Option<Policy>,
    ) -> Result<(), Fault<S::Error>> {
        let end = Key::Queue(QueueId(u32::MAX));
        for (key, record) in store.scan(Key::Queue(QueueId(0)), end, Limit::records(usize::MAX))? {
            let (Key::Queue(id), Record::Queue(record)) = (key, record) else {
                return Err(Fault::Corrupt(key));
            };
            let Some(Record::State(state)) = store.get(Key::State(id))? else {
                return Err(Fault::Corrupt(Key::State(id)));
            };
            let policy = policy(&record.document).ok_or(Fault::Corrupt(key))?;
            let mut queue = Queue::new(record, policy, state);
            match store.get(Key::Gaps(id))? {
                None => {}
                Some(Record::Gaps(gaps)) => queue.know_gaps(gaps),
                Some(_) => return Err(Fault::Corrupt(Key::Gaps(id))),
            }
            match store.get(Key::Purge(id))? {
                None => {}
                Some(Record::Purge(purge)) => {
                    queue.purge = Some(purge);
                    self.sweeping.insert(id);
                }
                Some(_) => return Err(Fault::Corrupt(Key::Purge(id))),
            }
            self.labels.insert(queue.label.clone(), id);
            self.queues.insert(id, queue);
        }
        Ok(())
    }

    /// Takes up the time since the last commit: leases end later by it, and retention stands still over a long outage.
    fn resume<S: Store>(&mut self, store: &mut S, now: Millis) -> Result<(), Fault<S::Error>> {
        let downtime = now.saturating_sub(self.clock.committed);
        let outage = if downtime > limits::OUTAGE_MIN_MS { downtime } else { 0 };
        self.clock.outage += outage;
        self.clock.committed = self.clock.committed.max(now);
        let ids: Vec<QueueId> = self.queues.keys().copied().collect();
        self.unmarked.extend(&ids);
        for id in ids {
            self.look_at(id, Some(0));
            if self.queues.get(&id).is_some_and(|queue| queue.state.dead > 0) {
                self.dead.insert(id);
            }
            if outage > 0 {
                self.resume_retained(id, outage, store);
            }
            self.resume_leases(store, id, downtime)?;
            self.resume_sends(store, id, downtime)?;
        }
        Ok(())
    }

    fn resume_leases<S: Store>(
        &mut self,
        store: &mut S,
        id: QueueId,
        downtime: Millis,
    ) -> Result<(), Fault<S::Error>> {
        let least = self.bounds.gap_least;
        let Some(queue) = self.queues.get_mut(&id) else {
            return Ok(());
        };
        // Where nothing lives, records of what is gone may be many, and may have come back.
        let (nothing, mut from) = (queue.gaps_of_deliveries(1), Seq(0));
        // Each fresh message below the cursor that lives has a delivery: between two of them there is a gap.
        let mut passed = queue.state.fresh_low;
        while let Some(stretch) = nothing.stretch(from, 1) {
            let limit = Limit::records(limits::TICK_STEP);
            let step = store.scan(Key::Delivery(id, stretch.start), Key::Delivery(id, stretch.end), limit)?;
            from = stretch.end;
            for (key, record) in &step {
                let (Key::Delivery(_, seq), Record::Delivery(delivery)) = (key, record) else {
                    return Err(Fault::Corrupt(*key));
                };
                if step.len() == limits::TICK_STEP {
                    from = seq.next();
                }
                if delivery.table == Table::Fresh {
                    queue.know_gap(passed..*seq, least);
                    passed = passed.max(seq.next());
                }
                if let Place::Leased { until, nonce, batch } = delivery.place {
                    let until = until.saturating_add(downtime);
                    let place = Place::Leased { until, nonce, batch };
                    let moved = Delivery { place, ..delivery.clone() };
                    queue.enter_batch(batch);
                    let holder = Holder::UNKNOWN;
                    queue.leased.insert(*seq, Leased { delivery: moved.clone(), holder });
                    store.put(*key, Record::Delivery(moved));
                    self.leases.insert((until, id, *seq));
                }
            }
        }
        queue.know_gap(passed..queue.state.cursor, least);
        Ok(())
    }

    /// Applies one command. `now` never runs backwards; an earlier one counts as the last.
    ///
    /// # Errors
    /// [`Fault`]: the core and what the store collected must be thrown away.
    pub fn apply<S: Store>(
        &mut self,
        command: Command,
        now: Millis,
        store: &mut S,
    ) -> Result<Effects, Fault<S::Error>> {
        let now = now.max(self.clock.committed);
        self.clock.committed = now;
        self.moved = 0;
        let reply = match command {
            Command::Declare(declaration) => self.declare(declaration, store),
            Command::Send(send) => self.send(send, store)?,
            Command::Recall(recall) => self.only_recall(recall, store)?,
            Command::Pull(pull) => self.pull(&pull, store)?,
            Command::Settle(settle) => self.settle(settle, store)?,
            Command::Extend(extend) => self.extend(&extend, store)?,
            Command::Peek(peek) => self.peek(peek, store)?,
            Command::Purge(purge) => self.purge(purge, store),
            Command::Remove(remove) => self.remove_some(&remove, store)?,
            Command::Tick => self.tick(store)?,
        };
        let woken = std::mem::take(&mut self.woken).into_iter().collect();
        Ok(Effects { reply, woken })
    }

    /// Writes the positions and counts that commands changed. Called before each commit.
    pub fn flush<S: Store>(&mut self, store: &mut S) {
        for id in std::mem::take(&mut self.touched) {
            if let Some(queue) = self.queues.get(&id) {
                store.put(Key::State(id), Record::State(queue.state.clone()));
            }
            self.unmarked.insert(id);
            self.changed.insert(id);
        }
        store.put(Key::Clock, Record::Clock(self.clock));
    }

    /// Queues that commands changed since this was last asked; also such as are gone.
    pub fn take_changed(&mut self) -> BTreeSet<QueueId> {
        std::mem::take(&mut self.changed)
    }

    /// When [`Command::Tick`] next has something to do; `None` when nothing is delayed, leased, kept or remembered.
    #[must_use]
    pub fn next_due(&self) -> Option<Millis> {
        let lease = self.leases.first().map(|(until, ..)| *until);
        let retention = self.retention.first().map(|(at, _)| at.saturating_add(self.clock.outage));
        let dead = (!self.dead.is_empty()).then_some(self.dead_retry);
        let purge = (!self.sweeping.is_empty()).then_some(0);
        let forget = self.forgetting.first().map(|(at, _)| *at);
        [self.next_timer, lease, retention, dead, purge, forget].into_iter().flatten().min()
    }

    /// Whether a flush would write more than the time.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.touched.is_empty()
    }

    /// The time of the last command.
    #[must_use]
    pub const fn now(&self) -> Millis {
        self.clock.committed
    }

    /// Tells this store from every other.
    #[must_use]
    pub const fn incarnation(&self) -> u64 {
        self.meta.incarnation
    }

    /// The mark of the last declaration; empty before the first.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.meta.revision
    }

    /// How many queues there are.
    #[must_use]
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// The queue of a label.
    #[must_use]
    pub fn find(&self, label: &str) -> Option<QueueId> {
        self.labels.get(label).copied()
    }

    /// A queue as it stands.
    #[must_use]
    pub fn view(&self, id: QueueId) -> Option<QueueView<'_>> {
        self.queues.get(&id).map(|queue| view(id, queue))
    }

    /// All queues, in the order of their labels.
    pub fn views(&self) -> impl Iterator<Item = QueueView<'_>> {
        self.labels.values().filter_map(|id| self.view(*id))
    }

    /// The queue of a command, with a note that its state changes.
    pub(crate) fn touch(&mut self, id: QueueId) -> Result<&mut Queue, Refusal> {
        let queue = self.queues.get_mut(&id).ok_or(Refusal::QueueUnknown)?;
        self.touched.insert(id);
        Ok(queue)
    }

    /// How many more messages of a queue may be leased.
    #[must_use]
    pub fn lease_room(&self, id: QueueId) -> u64 {
        let leased = self.queues.get(&id).map_or(0, |queue| queue.state.leased);
        let all = self.bounds.leased_all.saturating_sub(self.leases.len() as u64);
        limits::LEASED_MAX.saturating_sub(leased).min(all)
    }

    /// Whether no message of any queue may be leased.
    #[must_use]
    pub fn leases_full(&self) -> bool {
        self.leases.len() as u64 >= self.bounds.leased_all
    }

    /// Who has the leased messages of a queue, one for each message.
    pub fn holders(&self, id: QueueId) -> impl Iterator<Item = Holder> {
        self.queues.get(&id).into_iter().flat_map(|queue| queue.leased.values()).map(|one| one.holder)
    }

    /// What happened to a message so far. What is leased is known without reading: verdicts are about that.
    pub(crate) fn delivery<S: Store>(
        &self,
        id: QueueId,
        seq: Seq,
        store: &S,
    ) -> Result<Option<Delivery>, Fault<S::Error>> {
        let leased = self.queues.get(&id).and_then(|queue| queue.leased.get(&seq));
        match leased {
            Some(Leased { delivery, .. }) => {
                let stored = || store.delivery(id, seq).ok().flatten();
                debug_assert_eq!(stored().as_ref(), Some(delivery), "{id:?} {seq:?}");
                Ok(Some(delivery.clone()))
            }
            None => store.delivery(id, seq),
        }
    }

    /// Sets when to look for a queue's expired messages.
    pub(crate) fn look_at(&mut self, id: QueueId, at: Option<Millis>) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut queue.look_at, at) {
            self.retention.remove(&(before, id));
        }
        if let Some(at) = at {
            self.retention.insert((at, id));
        }
    }

    /// The time in which retention is counted.
    pub(crate) const fn age_now(&self) -> Millis {
        self.clock.committed.saturating_sub(self.clock.outage)
    }
}

fn view(id: QueueId, queue: &Queue) -> QueueView<'_> {
    QueueView {
        id,
        label: &queue.label,
        retained: queue.retained,
        times: queue.times,
        document: &queue.document,
        policy: &queue.policy,
        state: &queue.state,
        totals: queue.totals,
        remembered: queue.sends.count(),
        purging: queue.purge.is_some(),
        blocked: queue.blocked.filter(|_| queue.state.dead > 0),
        pulls_left: queue.pulls_left(),
        batches: queue.batches.len(),
    }
}

fn read_meta<S: Store>(store: &S, incarnation: u64) -> Result<Meta, Fault<S::Error>> {
    match store.get(Key::Meta)? {
        None => Ok(Meta { incarnation, next_queue: QueueId(1), revision: String::new() }),
        Some(Record::Meta(meta)) => Ok(meta),
        Some(_) => Err(Fault::Corrupt(Key::Meta)),
    }
}

fn read_clock<S: Store>(store: &S, now: Millis) -> Result<Clock, Fault<S::Error>> {
    match store.get(Key::Clock)? {
        None => Ok(Clock { committed: now, outage: 0, timer_head: (0, QueueId(0), Seq(0)) }),
        Some(Record::Clock(clock)) => Ok(clock),
        Some(_) => Err(Fault::Corrupt(Key::Clock)),
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The key behind the last entry of an ordered index of a queue.
pub(crate) const END: Order = Order(u64::MAX);
