//! The engine's start: the core is made of what the store holds, and a thread takes over; and how its end is told.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use capstan_core::limits::Bounds;
use capstan_core::{Core, Key, Record, Store};
use tokio::sync::{oneshot, watch};

use super::changes::Changes;
use super::handle::Handle;
use super::holders::Holders;
use super::horizon::{Asked, Horizon};
use super::lanes::Lanes;
use super::retiring::Retiring;
use super::stall::Stall;
use super::syncer::Syncer;
use super::waiters::Waiters;
use super::watchdog::Watchdog;
use super::{Answers, Engine, EngineError, Looked, TIMES, Times};
use crate::clock::Clock;
use crate::directory::Directory;
use crate::stats::Stats;
use crate::store::{Durability, FjallStore, StoreError, Transaction};

/// Starts the engine on a thread of its own.
///
/// The receiver resolves when it ended: after [`Handle::close`], or by an error.
///
/// # Errors
/// [`EngineError`] when the store does not hold together, or no thread can be made.
pub(crate) fn start(store: FjallStore, stats: Arc<Stats>) -> Result<(Handle, Ended), EngineError> {
    start_with(store, stats, TIMES)
}

/// Resolves when the engine ended.
pub(crate) type Ended = oneshot::Receiver<EngineResult>;

type EngineResult = Result<(), EngineError>;

pub(super) fn start_with(
    store: FjallStore,
    stats: Arc<Stats>,
    times: Times,
) -> Result<(Handle, Ended), EngineError> {
    let lanes = Arc::new(Lanes::default());
    let (directory, published) = watch::channel(Arc::new(Directory::default()));
    let ((changes, version), asked) = (Changes::new(), Asked::default());
    let (pulled, peeked) = (Answers::new(times.unread_max, times.unread_patience), Answers::of_peeks());
    let (ending, ended) = Ending::new(Arc::clone(&lanes));
    let no_thread = |e| EngineError::Core(format!("cannot start a thread: {e}"));
    let (core, clock) = open(&store, times)?;
    let stuck = ending.clone();
    let watchdog =
        Watchdog::start(times.commit_max, move || stuck.end(Err(EngineError::Stuck(times.commit_max))))
            .map_err(no_thread)?;
    let (volume, store) = (Arc::clone(store.volume()), Arc::new(store));
    let syncer = {
        let (store, watchdog, stats) = (Arc::clone(&store), Arc::clone(&watchdog), Arc::clone(&stats));
        let (lanes, failed) = (Arc::clone(&lanes), ending.clone());
        let sync = move |written| super::sync(&store, &watchdog, &stats, written);
        Syncer::start(Box::new(sync), move || lanes.nudge(), move |error| failed.end(Err(error)))
    };
    let mut engine = Engine {
        store,
        committed: core.now(),
        core,
        clock,
        stall: Stall::new(times.stall_least),
        watchdog,
        syncer: syncer.map_err(no_thread)?,
        stats,
        times,
        lanes: Arc::clone(&lanes),
        waiters: Waiters::default(),
        holders: Holders::default(),
        retiring: Retiring::default(),
        pulled: pulled.clone(),
        peeked: peeked.clone(),
        overdue: VecDeque::new(),
        full: false,
        waiting: true,
        awake: BTreeSet::new(),
        abandoned: Vec::new(),
        directory,
        published: 0,
        changes,
        horizon: Horizon::new(asked.clone()),
        looked: Looked::default(),
    };
    engine.publish();
    let run = move || {
        // Release builds abort instead. The engine is dropped, so nobody sees what a panic left half done.
        let result = catch_unwind(AssertUnwindSafe(|| engine.run())).unwrap_or(Err(EngineError::Panicked));
        engine.watchdog.end();
        if result.is_err() {
            // The process is to end: a storage engine that failed may take its time to close.
            return ending.end(result);
        }
        drop(engine);
        ending.end(result);
    };
    std::thread::Builder::new().name("engine".to_owned()).spawn(run).map_err(no_thread)?;
    Ok((Handle { lanes, directory: published, version, asked, pulled, peeked, volume }, ended))
}

/// Tells the end of the engine: once, by the engine's thread or by its watchdog.
#[derive(Clone)]
struct Ending {
    lanes: Arc<Lanes>,
    tell: Arc<Mutex<Option<oneshot::Sender<EngineResult>>>>,
}

impl Ending {
    fn new(lanes: Arc<Lanes>) -> (Self, Ended) {
        let (tell, ended) = oneshot::channel();
        (Self { lanes, tell: Arc::new(Mutex::new(Some(tell))) }, ended)
    }

    fn end(&self, result: EngineResult) {
        // Whoever waits for an answer learns that there will be none.
        self.lanes.end();
        let tell = self.tell.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(tell) = tell {
            let _ = tell.send(result);
        }
    }
}

fn open(store: &FjallStore, times: Times) -> Result<(Core, Clock), EngineError> {
    let policy =
        |document: &[u8]| crate::policy::read_document(document).map(|p| crate::policy::translate(&p));
    let mut transaction = store.transaction();
    let mut clock = Clock::start(committed(&transaction)?);
    let bounds = Bounds { leased_all: times.leases_max, ..Bounds::USUAL };
    let core = Core::open_with(&mut transaction, clock.now(), rand::random(), policy, bounds)?;
    transaction.commit(Durability::Synced)?;
    Ok((core, clock))
}

/// When the last commit was made.
fn committed(transaction: &Transaction<'_>) -> Result<u64, StoreError> {
    Ok(match transaction.get(Key::Clock)? {
        Some(Record::Clock(clock)) => clock.committed,
        _ => 0,
    })
}
