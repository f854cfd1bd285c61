//! The engine: one OS thread that owns the store.
//!
//! A round takes a bounded group of jobs, applies each to the core, commits, and only then answers. It makes two
//! commits: leases of pulls, unsynced, because losing one in a power cut only makes its messages ready again; then
//! everything else with one fsync. Pulls come first, so nothing is delivered before it is durable.

mod handle;
mod lanes;
mod waiters;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use capstan_core::{Command, Core, Fault, Lease, QueueId, Reply, Settle};
use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::directory::Directory;
use crate::store::{Durability, FjallStore, StoreError, Transaction};
pub(crate) use handle::{Handle, Unavailable};
use lanes::Lanes;
use waiters::{Waiters, WaitingPull};

/// The engine looks at the clock at least this often.
const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// What the engine is asked to do.
enum Job {
    /// Apply a command; with its queue's backlog when that is asked for.
    Apply {
        command: Command,
        backlog: Option<QueueId>,
        reply: oneshot::Sender<Outcome>,
    },
    Pull(WaitingPull),
    /// Count everything.
    Snapshot(oneshot::Sender<Vec<QueueSnapshot>>),
    /// Answer all waiting pulls, and let no more wait.
    StopWaiting,
}

/// The answer to a job, once it is durable.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) reply: Reply,
    pub(crate) backlog: Option<Backlog>,
}

/// What is in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Backlog {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    /// Milliseconds since 1970.
    pub(crate) oldest_sent_at: Option<u64>,
}

/// A queue as it stands.
#[derive(Debug, Clone)]
pub(crate) struct QueueSnapshot {
    pub(crate) label: String,
    pub(crate) retained: bool,
    pub(crate) ready: u64,
    pub(crate) delayed: u64,
    pub(crate) leased: u64,
    pub(crate) dead: u64,
    pub(crate) bytes: u64,
    pub(crate) oldest_age_ms: Option<u64>,
    pub(crate) totals: capstan_core::Totals,
}

/// Why the engine ended. What was not answered may or may not be stored.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Core(String),
}

impl From<Fault<StoreError>> for EngineError {
    fn from(fault: Fault<StoreError>) -> Self {
        match fault {
            Fault::Store(error) => Self::Store(error),
            Fault::Corrupt(_) => Self::Core(fault.to_string()),
        }
    }
}

/// Starts the engine on a thread of its own.
///
/// The receiver resolves when it ended: after [`Handle::close`], or by an error.
///
/// # Errors
/// [`EngineError`] when the store does not hold together, or no thread can be made.
pub(crate) fn start(
    store: FjallStore,
) -> Result<(Handle, oneshot::Receiver<Result<(), EngineError>>), EngineError> {
    let lanes = Arc::new(Lanes::default());
    let (directory, published) = watch::channel(Arc::new(Directory::default()));
    let (ended, end) = oneshot::channel();
    let (core, clock) = open(&store)?;
    let mut engine = Engine {
        store: Arc::new(store),
        core,
        clock,
        lanes: Arc::clone(&lanes),
        waiters: Waiters::default(),
        waiting: true,
        awake: BTreeSet::new(),
        abandoned: Vec::new(),
        directory,
    };
    engine.publish();
    let run = move || {
        let result = engine.run();
        // Whoever waits for an answer learns that there will be none.
        engine.lanes.close();
        drop(engine);
        let _ = ended.send(result);
    };
    std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(run)
        .map_err(|e| EngineError::Core(format!("cannot start the engine's thread: {e}")))?;
    Ok((Handle::new(lanes, published), end))
}

fn open(store: &FjallStore) -> Result<(Core, Clock), EngineError> {
    let policy =
        |document: &[u8]| crate::policy::read_document(document).map(|p| crate::policy::translate(&p));
    let mut transaction = store.transaction();
    let mut clock = Clock::start(committed(&transaction)?);
    let core = Core::open(&mut transaction, clock.now(), rand::random(), policy)?;
    transaction.commit(Durability::Synced)?;
    Ok((core, clock))
}

/// When the last commit was made.
fn committed(transaction: &Transaction<'_>) -> Result<u64, StoreError> {
    use capstan_core::{Key, Record, Store};
    Ok(match transaction.get(Key::Clock)? {
        Some(Record::Clock(clock)) => clock.committed,
        _ => 0,
    })
}

struct Engine {
    store: Arc<FjallStore>,
    core: Core,
    clock: Clock,
    lanes: Arc<Lanes>,
    waiters: Waiters,
    /// Whether pulls may still wait.
    waiting: bool,
    /// Queues whose waiting pulls are to be looked at.
    awake: BTreeSet<QueueId>,
    /// Leases whose pull went away before its answer: they are released.
    abandoned: Vec<Lease>,
    directory: watch::Sender<Arc<Directory>>,
}

impl Engine {
    fn run(&mut self) -> Result<(), EngineError> {
        loop {
            let patience = self.patience();
            let group = self.lanes.take(patience);
            let now = self.clock.now();
            let rest = self.sort(group.jobs, now);
            self.deliver(now)?;
            self.process(rest, now)?;
            if group.closed {
                return self.end(now);
            }
        }
    }

    /// How long nothing needs to be done, as far as is known.
    fn patience(&mut self) -> Duration {
        if !self.awake.is_empty() || !self.abandoned.is_empty() {
            return Duration::ZERO;
        }
        let due = [self.core.next_due(), self.waiters.next_deadline()].into_iter().flatten().min();
        let now = self.clock.now();
        due.map_or(PATIENCE_MAX, |due| Duration::from_millis(due.saturating_sub(now)).min(PATIENCE_MAX))
    }

    /// Puts pulls among the waiting ones; answers what is left.
    fn sort(&mut self, jobs: Vec<Job>, now: u64) -> Vec<Job> {
        let mut rest = Vec::with_capacity(jobs.len());
        for job in jobs {
            match job {
                Job::Pull(pull) => {
                    self.awake.insert(pull.pull.queue);
                    let idle = if self.waiting { pull.idle } else { 0 };
                    self.waiters.add(WaitingPull { idle, ..pull }, now);
                }
                Job::StopWaiting => self.stop_waiting(),
                job => rest.push(job),
            }
        }
        rest
    }

    fn stop_waiting(&mut self) {
        self.waiting = false;
        for queue in self.waiters.queues() {
            for pull in self.waiters.all(queue) {
                let _ = pull.reply.send(Outcome { reply: Reply::Delivered(Vec::new()), backlog: None });
            }
        }
    }

    /// The first commit of a round: leases for the pulls that are to be answered now.
    fn deliver(&mut self, now: u64) -> Result<(), EngineError> {
        let mut due = Vec::new();
        for queue in std::mem::take(&mut self.awake) {
            // A queue that delivers nothing says so at once.
            match self.deliverable(queue) {
                Some(ready) => due.extend(self.waiters.due(queue, ready, now)),
                None => due.extend(self.waiters.all(queue)),
            }
        }
        due.extend(self.waiters.expired(now));
        if due.is_empty() {
            return Ok(());
        }
        let store = Arc::clone(&self.store);
        let mut transaction = store.transaction();
        let mut answers = Vec::with_capacity(due.len());
        for WaitingPull { pull, reply, .. } in due {
            let queue = pull.queue;
            let effects = self.core.apply(Command::Pull(pull), now, &mut transaction)?;
            let backlog = backlog(&mut self.core, queue, &transaction)?;
            answers.push((reply, Outcome { reply: effects.reply, backlog: Some(backlog) }));
        }
        self.core.flush(&mut transaction);
        transaction.commit(Durability::Buffered)?;
        for (reply, outcome) in answers {
            self.answer_pull(reply, outcome);
        }
        Ok(())
    }

    /// Ready messages of a queue; `None` when its pulls are to be refused.
    fn deliverable(&self, queue: QueueId) -> Option<u64> {
        let view = self.core.view(queue)?;
        let consumer = view.policy.consumer.as_ref()?;
        (!view.retained && !view.policy.paused && !consumer.paused).then_some(view.state.ready)
    }

    fn answer_pull(&mut self, reply: oneshot::Sender<Outcome>, outcome: Outcome) {
        if let Err(Outcome { reply: Reply::Delivered(delivered), .. }) = reply.send(outcome) {
            self.abandoned.extend(delivered.iter().map(|one| one.lease));
        }
    }

    /// The second commit of a round: everything else, and what time brings.
    fn process(&mut self, jobs: Vec<Job>, now: u64) -> Result<(), EngineError> {
        let store = Arc::clone(&self.store);
        let mut transaction = store.transaction();
        let mut round = Round::default();
        for lease in std::mem::take(&mut self.abandoned) {
            let (queue, releases) = (lease.queue, vec![lease]);
            let settle = Settle { queue, acks: Vec::new(), retries: Vec::new(), releases };
            let effects = self.core.apply(Command::Settle(settle), now, &mut transaction)?;
            self.awake.extend(effects.woken);
        }
        for job in jobs {
            self.apply(job, now, &mut transaction, &mut round)?;
        }
        if self.core.next_due().is_some_and(|due| due <= now) {
            self.awake.extend(self.core.apply(Command::Tick, now, &mut transaction)?.woken);
        }
        if !transaction.is_empty() {
            self.core.flush(&mut transaction);
            transaction.commit(Durability::Synced)?;
        }
        if round.declared {
            self.publish();
            // Whoever waits may be refused now.
            self.awake.extend(self.waiters.queues());
        }
        for (reply, outcome) in round.answers {
            let _ = reply.send(outcome);
        }
        Ok(())
    }

    fn apply(
        &mut self,
        job: Job,
        now: u64,
        transaction: &mut Transaction<'_>,
        round: &mut Round,
    ) -> Result<(), EngineError> {
        match job {
            Job::Apply { command, backlog: of, reply } => {
                round.declared |= matches!(command, Command::Declare(_));
                let effects = self.core.apply(command, now, transaction)?;
                self.awake.extend(effects.woken);
                let backlog = of.map(|queue| backlog(&mut self.core, queue, transaction)).transpose()?;
                round.answers.push((reply, Outcome { reply: effects.reply, backlog }));
            }
            Job::Snapshot(reply) => {
                let _ = reply.send(self.snapshot(now, transaction)?);
            }
            // Sorted out before.
            Job::Pull(_) | Job::StopWaiting => {}
        }
        Ok(())
    }

    fn snapshot(
        &mut self,
        now: u64,
        transaction: &Transaction<'_>,
    ) -> Result<Vec<QueueSnapshot>, EngineError> {
        let ids: Vec<QueueId> = self.core.views().map(|view| view.id).collect();
        let mut snapshots = Vec::with_capacity(ids.len());
        for id in ids {
            let oldest = self.core.oldest_sent_at(id, transaction)?;
            let Some(view) = self.core.view(id) else { continue };
            snapshots.push(QueueSnapshot {
                label: view.label.to_owned(),
                retained: view.retained,
                ready: view.state.ready,
                delayed: view.state.delayed,
                leased: view.state.leased,
                dead: view.state.dead,
                bytes: view.state.bytes,
                oldest_age_ms: oldest.map(|sent_at| now.saturating_sub(sent_at)),
                totals: view.totals,
            });
        }
        Ok(snapshots)
    }

    /// Tells the HTTP side which queues there are.
    fn publish(&mut self) {
        self.directory.send_replace(Arc::new(Directory::of(&self.core)));
    }

    /// Gives back what nobody received, so that it is not leased to a process that is gone.
    fn end(&mut self, now: u64) -> Result<(), EngineError> {
        self.stop_waiting();
        self.process(Vec::new(), now)
    }
}

/// What a round's second commit owes.
#[derive(Default)]
struct Round {
    answers: Vec<(oneshot::Sender<Outcome>, Outcome)>,
    declared: bool,
}

fn backlog(core: &mut Core, queue: QueueId, transaction: &Transaction<'_>) -> Result<Backlog, EngineError> {
    let oldest_sent_at = core.oldest_sent_at(queue, transaction)?;
    let view = core.view(queue);
    Ok(view.map_or_else(Backlog::default, |view| Backlog {
        count: view.state.count(),
        bytes: view.state.bytes,
        oldest_sent_at,
    }))
}
