//! The engine: one OS thread that owns the store.
//!
//! A round takes a bounded group of jobs, applies each to the core, commits, and only then answers. It makes two
//! commits: leases of pulls, unsynced, because losing one in a power cut only makes its messages ready again; then
//! everything else with one fsync. When much is waiting by then, the next round begins while the syncer brings this one to
//! disk; its answers wait for that, so nothing is delivered before it is durable.

mod answers;
mod changes;
mod count;
mod deliver;
mod handle;
mod holders;
mod horizon;
mod lanes;
mod pods;
mod retiring;
mod round;
mod stall;
mod start;
mod syncer;
#[cfg(test)]
mod tests;
mod waiters;
mod watchdog;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_core::{Command, Core, Fault, Holder, Lease, QueueId, Reply, Settle};
use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::directory::Directory;
use crate::stats::Stats;
use crate::store::{Durability, FjallStore, StoreError, Transaction};
pub(crate) use answers::{Answers, Held, PATIENCE};
use changes::Changes;
pub(crate) use changes::Version;
use count::backlog;
pub(crate) use count::{Backlog, Changed, Commits, QueueSnapshot, Snapshot};
pub(crate) use handle::{Handle, Unavailable};
use holders::Holders;
pub(crate) use holders::{Owner, Puller};
use horizon::Horizon;
use lanes::{Lanes, Waiting};
use pods::Ask;
use retiring::Retiring;
pub(crate) use retiring::TooManyRetire;
use round::{Answer, Round};
use stall::Stall;
pub(crate) use start::{Ended, start};
use syncer::{Syncer, Written};
use waiters::{Waiters, WaitingPull};
use watchdog::{Part, Watchdog};

/// The engine looks at the clock at least this often.
const PATIENCE_MAX: Duration = Duration::from_secs(1);
/// While too many answers are unread, it looks so often whether some were taken.
const UNREAD_LOOK: Duration = Duration::from_millis(10);
/// Bodies beyond so many bytes wait for the next commit: dead letters come on top of what a group holds.
const COMMIT_BYTES: usize = 8 << 20;
/// With so many messages waiting for work, the next round is worth beginning while this one is synced: to hand it over
/// costs about as much as to apply a few.
const OVERLAP: u64 = 64;
/// Most leases of pulls that went away which are released in one commit.
const ABANDONED_PER_GROUP: usize = 2048;
/// Between two looks that move low marks on and record gaps, while there are commits, milliseconds.
const MARKS_MS: u64 = 500;
/// What tests shorten.
const TIMES: Times = Times {
    commit_max: Duration::from_secs(30),
    heartbeat_ms: 60_000,
    unread_max: answers::PULLED_MAX,
    unread_patience: answers::PATIENCE,
    leases_max: capstan_core::limits::LEASED_ALL_MAX,
    stall_least: Duration::from_secs(1),
};

/// How long things may take, and how much may wait.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// A commit that takes longer ends the broker.
    commit_max: Duration,
    /// Time is written down at least this often, so that a restart takes no idle time for an outage.
    heartbeat_ms: u64,
    /// Most bytes of messages in answers that clients have not taken yet.
    unread_max: u64,
    /// So long an answer may be on its way while others need the room.
    unread_patience: Duration,
    /// Most leases of all queues.
    leases_max: u64,
    /// The engine was held up when it runs so much later than it meant.
    stall_least: Duration,
}

/// What the engine is asked to do.
enum Job {
    /// Apply a command; with its queue's backlog when that is asked for.
    Apply { command: Command, backlog: Option<QueueId>, reply: oneshot::Sender<Result<Outcome, Unavailable>> },
    /// Lease messages, to a pod if it says who it is.
    Pull(WaitingPull, Option<Puller>),
    /// Count the pods of a workload.
    Pods(Ask),
    /// Count everything.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Count what changed since.
    Changes(Option<Version>, oneshot::Sender<Changed>),
    /// A pull went away: give back what was leased for it, and let others have what it gathered.
    Abandoned(QueueId, Vec<Lease>),
    /// Answer all waiting pulls, and let no more wait.
    StopWaiting,
}

/// The answer to a job, once it is durable.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) reply: Reply,
    pub(crate) backlog: Option<Backlog>,
    /// For delivered messages: to be kept until the client has them.
    pub(crate) held: Option<Held>,
}

impl Outcome {
    /// A pull's answer without messages.
    pub(crate) const fn nothing(backlog: Option<Backlog>) -> Self {
        Self { reply: Reply::Delivered(Vec::new()), backlog, held: None }
    }
}

/// Why the engine ended. What was not answered may or may not be stored.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Core(String),
    #[error("an earlier commit could not be synced")]
    Unsynced,
    #[error("a commit did not return within {} s; the disk hangs, or the storage engine does", .0.as_secs())]
    Stuck(Duration),
    #[error("the engine's thread panicked")]
    Panicked,
}

impl From<Fault<StoreError>> for EngineError {
    fn from(fault: Fault<StoreError>) -> Self {
        match fault {
            Fault::Store(error) => Self::Store(error),
            Fault::Corrupt(_) => Self::Core(fault.to_string()),
        }
    }
}

struct Engine {
    store: Arc<FjallStore>,
    core: Core,
    clock: Clock,
    stall: Stall,
    /// The time in the last commit.
    committed: u64,
    watchdog: Arc<Watchdog>,
    syncer: Syncer,
    stats: Arc<Stats>,
    times: Times,
    lanes: Arc<Lanes>,
    waiters: Waiters,
    holders: Holders,
    retiring: Retiring,
    pulled: Answers,
    peeked: Answers,
    /// Pulls that are due, and wait until others have taken their answers.
    overdue: VecDeque<WaitingPull>,
    /// Too many messages are leased, of all queues, for any pull.
    full: bool,
    /// Whether pulls may still wait.
    waiting: bool,
    /// Queues whose waiting pulls are to be looked at.
    awake: BTreeSet<QueueId>,
    /// Leases whose pull went away before its answer, or was cut off before it had all of it: they are released.
    abandoned: Vec<Lease>,
    directory: watch::Sender<Arc<Directory>>,
    /// Queues in the directory.
    published: usize,
    /// What subscribers have not seen yet.
    changes: Changes,
    horizon: Horizon,
    looked: Looked,
}

/// When low marks were last moved on, and how many commits there were.
#[derive(Default)]
struct Looked {
    at: u64,
    commits: u64,
}

impl Engine {
    fn run(&mut self) -> Result<(), EngineError> {
        loop {
            self.stall.look(Duration::ZERO);
            let patience = self.patience();
            let group = self.lanes.take(patience);
            self.stall.look(patience);
            self.abandoned.extend(self.syncer.take_undelivered());
            if group.jobs.is_empty() && patience == PATIENCE_MAX {
                self.store.check()?;
            }
            let now = self.clock.now();
            let rest = self.sort(group.jobs, now)?;
            self.end_retiring(now);
            self.deliver(now)?;
            self.process(rest, now)?;
            if group.closed {
                return self.end(now);
            }
        }
    }

    /// How long nothing needs to be done, as far as is known.
    fn patience(&mut self) -> Duration {
        if !self.abandoned.is_empty() {
            return Duration::ZERO;
        }
        if !self.awake.is_empty() || !self.overdue.is_empty() {
            // Nobody says when a client has taken its answer.
            return if self.pulled.is_full() { UNREAD_LOOK } else { Duration::ZERO };
        }
        let now = self.clock.now();
        let until = |due: Option<u64>| due.map(|due| Duration::from_millis(due.saturating_sub(now)));
        let core = until(self.core.next_due()).map(|wait| wait.max(self.stall.left()));
        let pulls = until(self.waiters.next_deadline());
        [core, pulls].into_iter().flatten().min().map_or(PATIENCE_MAX, |wait| wait.min(PATIENCE_MAX))
    }

    /// Puts pulls among the waiting ones; answers what is left.
    fn sort(&mut self, jobs: Vec<Job>, now: u64) -> Result<Vec<Job>, EngineError> {
        let mut rest = Vec::with_capacity(jobs.len());
        for job in jobs {
            match job {
                Job::Pull(mut pull, puller) => {
                    self.awake.insert(pull.pull.queue);
                    pull.pull.holder = puller.map_or(Holder::UNKNOWN, |puller| self.holder(&puller));
                    let pull = if self.waiting { pull } else { WaitingPull { wait: 0, idle: 0, ..pull } };
                    self.waiters.add(pull, now);
                }
                Job::Abandoned(queue, leases) => {
                    self.awake.insert(queue);
                    self.abandoned.extend(leases);
                }
                Job::StopWaiting => self.stop_waiting()?,
                job => rest.push(job),
            }
        }
        Ok(rest)
    }

    /// Commits what is to be synced before it is answered.
    fn write(
        &mut self,
        mut transaction: Transaction<'_>,
        requests: usize,
    ) -> Result<Option<Written>, EngineError> {
        self.core.flush(&mut transaction);
        let began = Instant::now();
        let number = self.watchdog.during(Part::Write, || transaction.write())?;
        self.committed();
        Ok(number.map(|number| Written { number, began, requests }))
    }

    /// Answers when what was written is on disk: before it returns, or, when much is waiting, meanwhile.
    fn answer(&mut self, written: Option<Written>, answers: Vec<Answer>) -> Result<(), EngineError> {
        let Some(written) = written else {
            // What was only looked at may not be on disk yet.
            let undelivered = self.syncer.answer(answers);
            self.abandoned.extend(undelivered);
            return Ok(());
        };
        self.syncer.wait()?;
        if self.is_much_waiting() {
            self.syncer.give(written, answers);
            return Ok(());
        }
        sync(&self.store, &self.watchdog, &self.stats, written)?;
        self.abandoned.extend(round::send(answers));
        Ok(())
    }

    /// Whether the next round has enough to do to begin it while this one is synced.
    fn is_much_waiting(&self) -> bool {
        let Waiting { weight, wanted, pulled } = self.lanes.weight();
        let ready = |queue: &QueueId| self.core.view(*queue).map_or(0, |view| view.state.ready);
        let come = pulled.as_ref().map_or(0, |queue| ready(queue).min(wanted as u64));
        // How much those want who wait already is not counted: a batch each.
        let awake = self.awake.iter().filter(|queue| self.waiters.has(**queue)).map(ready);
        awake.fold(weight as u64 + come, u64::saturating_add) >= OVERLAP
    }

    /// What follows from every commit.
    fn committed(&mut self) {
        self.committed = self.core.now();
        self.changes.note(self.core.take_changed());
    }

    /// The second commit of a round: everything else, and what time brings.
    fn process(&mut self, jobs: Vec<Job>, now: u64) -> Result<(), EngineError> {
        let store = Arc::clone(&self.store);
        let mut transaction = store.transaction();
        let mut round = Round::default();
        self.look_ahead(now, &transaction)?;
        // The rest waits for the next round: all clients may have gone at once.
        let abandoned = self.abandoned.split_off(self.abandoned.len().saturating_sub(ABANDONED_PER_GROUP));
        for lease in abandoned {
            let (queue, releases) = (lease.queue, vec![lease]);
            let settle = Settle { queue, acks: Vec::new(), retries: Vec::new(), releases };
            let effects = self.core.apply(Command::Settle(settle), now, &mut transaction)?;
            self.awake.extend(effects.woken);
        }
        for job in jobs {
            self.apply(job, now, &mut transaction, &mut round)?;
            if transaction.bytes() >= COMMIT_BYTES {
                let full = std::mem::replace(&mut transaction, store.transaction());
                self.finish(full, std::mem::take(&mut round))?;
            }
        }
        let beat = now.saturating_sub(self.committed) >= self.times.heartbeat_ms;
        let is_due = beat || self.core.next_due().is_some_and(|due| due <= now);
        if is_due && self.stall.left().is_zero() {
            self.awake.extend(self.core.apply(Command::Tick, now, &mut transaction)?.woken);
        }
        let moved = self.move_marks(now, &mut transaction)?;
        if (beat || moved) && transaction.is_empty() {
            self.core.flush(&mut transaction);
        }
        self.finish(transaction, round)
    }

    /// Now and then moves the low marks of all queues, and records gaps: the store gives back the space below and in them
    /// when they are committed.
    fn move_marks(&mut self, now: u64, transaction: &mut Transaction<'_>) -> Result<bool, EngineError> {
        let Commits { buffered, synced } = self.commits();
        let commits = buffered + synced;
        if commits == self.looked.commits || now.saturating_sub(self.looked.at) < MARKS_MS {
            return Ok(false);
        }
        self.looked = Looked { at: now, commits };
        self.core.move_marks(transaction)?;
        Ok(self.core.has_changes())
    }

    /// Commits, and only then answers.
    fn finish(&mut self, transaction: Transaction<'_>, round: Round) -> Result<(), EngineError> {
        let written = if transaction.is_empty() { None } else { self.write(transaction, round.requests)? };
        // A retained queue that is empty at last is forgotten without a declaration.
        if round.declared || self.published != self.core.queue_count() {
            self.publish();
            // Whoever waits may be refused now.
            self.awake.extend(self.waiters.queues());
        }
        if std::mem::replace(&mut self.full, self.core.leases_full()) && !self.full {
            self.awake.extend(self.waiters.queues());
        }
        self.answer(written, round.answers)
    }

    fn commits(&self) -> Commits {
        let [buffered, synced] =
            [Durability::Buffered, Durability::Synced].map(|durability| self.store.commits(durability));
        Commits { buffered, synced }
    }

    fn apply(
        &mut self,
        job: Job,
        now: u64,
        transaction: &mut Transaction<'_>,
        round: &mut Round,
    ) -> Result<(), EngineError> {
        match job {
            Job::Apply { command: Command::Peek(peek), reply, .. }
                if peek.count > 0 && self.peeked.is_full() =>
            {
                // Nothing is leased for a look.
                let _ = self.peeked.cut_stalled();
                let _ = reply.send(Err(Unavailable::Overloaded));
            }
            Job::Apply { command, backlog: of, reply } => {
                round.declared |= matches!(command, Command::Declare(_));
                if let Command::Settle(settle) = &command
                    && self.waiters.has(settle.queue)
                {
                    // It may make room where too much was leased.
                    self.awake.insert(settle.queue);
                }
                let effects = self.core.apply(command, now, transaction)?;
                self.awake.extend(effects.woken);
                let backlog = of.map(|queue| backlog(&mut self.core, queue, transaction)).transpose()?;
                let held = match &effects.reply {
                    Reply::Peeked(peeked) => {
                        let bytes = peeked.iter().map(|one| one.message.bytes()).sum();
                        Some(self.peeked.hold(bytes, Vec::new()))
                    }
                    _ => None,
                };
                round.requests += 1;
                round.answers.push(Answer::Applied(reply, Outcome { reply: effects.reply, backlog, held }));
            }
            Job::Snapshot(reply) => {
                let queues = count::all(&mut self.core, now, transaction)?;
                let (commits, pulls_waiting) = (self.commits(), self.waiters.count() + self.overdue.len());
                let clock_offset_ms = self.clock.offset();
                let snapshot = Snapshot { queues, commits, pulls_waiting, clock_offset_ms };
                round.answers.push(Answer::Counted(reply, snapshot));
            }
            Job::Changes(since, reply) => {
                let (version, changed) = self.changes.since(since);
                let whole = changed.is_none();
                let mut queues = match changed {
                    Some(ids) => count::queues(&mut self.core, ids, now, transaction)?,
                    None => count::all(&mut self.core, now, transaction)?,
                };
                count::ready_ages(&mut self.core, &mut queues, now, transaction)?;
                round.answers.push(Answer::Changed(reply, Changed { version, whole, queues }));
            }
            Job::Pods(Ask { owner, retire, reply }) => {
                let pods = self.pods(&owner, retire, now);
                round.answers.push(Answer::Pods(reply, pods));
            }
            // Sorted out before.
            Job::Pull(..) | Job::Abandoned(..) | Job::StopWaiting => {}
        }
        Ok(())
    }

    /// Tells the HTTP side which queues there are.
    fn publish(&mut self) {
        self.directory.send_replace(Arc::new(Directory::of(&self.core)));
        self.published = self.core.queue_count();
        self.changes.note_all();
    }

    /// Gives back what nobody received, so that it is not leased to a process that is gone.
    fn end(&mut self, now: u64) -> Result<(), EngineError> {
        self.stop_waiting()?;
        self.syncer.wait()?;
        self.abandoned.extend(self.syncer.take_undelivered());
        self.process(Vec::new(), now)?;
        while !self.abandoned.is_empty() {
            self.process(Vec::new(), now)?;
        }
        self.syncer.wait()
    }
}

/// Brings a commit to disk, under watch.
fn sync(store: &FjallStore, watchdog: &Watchdog, stats: &Stats, written: Written) -> Result<(), StoreError> {
    watchdog.during(Part::Sync, || store.sync(written.number))?;
    stats.committed(Durability::Synced, written.began.elapsed());
    stats.grouped(written.requests);
    Ok(())
}
