//! The keeper: a thread beside the engine's that seals full memtables, watches the volume, holds the ballast, and gives space
//! back.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fjall::{Database, PersistMode};

use super::ballast::Ballast;
use super::commit::Commits;
use super::committed::{self, Committed};
use super::queues::{Fullness, Queues};
use super::space::{self, Scans};
use super::sync::Newest;
use super::volume::Volume;

/// Between two looks at the volume.
const LOOK: Duration = Duration::from_millis(250);
/// Between two tries to seal a full memtable, while the one before it is flushed.
const SEAL: Duration = Duration::from_millis(2);
/// Looks between two counts of what the store takes.
const COUNT_EVERY: u64 = 4;
/// Looks between two passes that give space back.
const SPACE_EVERY: u64 = 16;
/// Bodies that were stored since the last pass, and make for another at the next look.
const SPACE_AFTER: u64 = 64 << 20;
/// A flush begins a new journal when it finds the old one larger than this (fjall 3.1.13).
const JOURNAL_ROTATES: u64 = 64_000_000;

/// A running keeper. Dropped, it ends, and waits for its end.
#[derive(Debug)]
pub(super) struct Keeper {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Signal {
    state: Mutex<State>,
    told: Condvar,
    looked: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    /// A memtable is full.
    full: bool,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    /// Starts it.
    ///
    /// # Errors
    /// When no thread can be made.
    pub(super) fn start(
        volume: &Arc<Volume>,
        database: &Database,
        queues: &Queues,
        scans: &Arc<Scans>,
        journal: &Arc<Newest>,
        commits: &Arc<Commits>,
        committed: Committed,
    ) -> io::Result<Self> {
        let signal = Arc::new(Signal::default());
        let work = Work {
            volume: Arc::clone(volume),
            database: database.clone(),
            queues: queues.clone(),
            scans: Arc::clone(scans),
            journal: Arc::clone(journal),
            commits: Arc::clone(commits),
            committed,
            ballast: Ballast::of(volume.folder()),
            signal: Arc::clone(&signal),
        };
        let thread = std::thread::Builder::new().name("keeper".to_owned()).spawn(move || work.run())?;
        Ok(Self { signal, thread: Some(thread) })
    }

    /// A memtable is full: it is to be sealed.
    pub(super) fn tell_full(&self) {
        let mut state = self.signal.lock();
        if !std::mem::replace(&mut state.full, true) {
            drop(state);
            self.signal.told.notify_all();
        }
    }

    /// Waits until it has tried to seal, or a little longer than it takes between two tries.
    pub(super) fn wait(&self) {
        let state = self.signal.lock();
        let _unlocked = self.signal.looked.wait_timeout(state, 2 * SEAL);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.signal.lock().ended = true;
        self.signal.told.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    volume: Arc<Volume>,
    database: Database,
    queues: Queues,
    scans: Arc<Scans>,
    journal: Arc<Newest>,
    commits: Arc<Commits>,
    committed: Committed,
    ballast: Ballast,
    signal: Arc<Signal>,
}

impl Work {
    fn run(self) {
        let (mut looks, mut passed): (u64, u64) = (0, 0);
        self.count();
        let mut next = Instant::now() + LOOK;
        while !self.wait(next) {
            self.seal_full();
            if Instant::now() < next {
                continue;
            }
            next = Instant::now() + LOOK;
            looks += 1;
            self.forget_versions();
            self.volume.look();
            if looks.is_multiple_of(COUNT_EVERY) {
                self.count();
                self.hold_ballast();
            }
            let stored = self.scans.stored();
            if looks.is_multiple_of(SPACE_EVERY) || stored - passed >= SPACE_AFTER {
                let idle = stored == passed;
                passed = stored;
                self.give_back(idle);
            }
            if let Err(error) = self.journal.follow() {
                tracing::warn!(%error, "the newest journal cannot be opened");
            }
        }
    }

    /// Waits for the next look, or until a memtable is full; true at the end.
    fn wait(&self, next: Instant) -> bool {
        let state = self.signal.lock();
        // A full one that could not be sealed is tried again soon.
        let patience = next.saturating_duration_since(Instant::now());
        let (patience, full) = if state.full { (patience.min(SEAL), true) } else { (patience, false) };
        let waited =
            self.signal.told.wait_timeout_while(state, patience, |state| !state.ended && state.full == full);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    fn seal_full(&self) {
        // Told again when there is more.
        let full = std::mem::take(&mut self.signal.lock().full);
        if !full {
            return;
        }
        if let Err(error) = self.seal() {
            tracing::warn!(%error, "a full memtable could not be sealed");
        }
        if self.queues.fullness() > Fullness::Room {
            self.signal.lock().full = true;
        }
        self.signal.looked.notify_all();
    }

    fn count(&self) {
        if let Ok(used) = self.database.disk_space() {
            self.volume.note(used, self.ballast.held());
        }
    }

    /// Makes the ballast again when there is room for it.
    fn hold_ballast(&self) {
        let bytes = self.volume.sizes().ballast;
        // Twice, so that making it does not lead straight to refused sends.
        if self.ballast.held() >= bytes || self.volume.room() < 2 * bytes {
            return;
        }
        if let Err(error) = self.ballast.make(bytes) {
            tracing::warn!(%error, bytes, "no ballast could be made; a full volume may need room by hand at the next start");
        }
    }

    fn forget_versions(&self) {
        if let Err(error) = self.scans.forget_versions(&self.database, &self.queues.keyspace) {
            tracing::warn!(%error, "files of old tables could not be removed");
        }
    }

    /// Seals the memtable: its flush lets the journal go. Synced first, so that no table is ahead of the journal.
    fn rotate(&self) -> fjall::Result<()> {
        let last = self.commits.last();
        self.database.persist(PersistMode::SyncData)?;
        self.commits.note_synced(last);
        self.seal()
    }

    /// Seals the memtable, if the last one is flushed. What its flush leaves of the journal may know of no commit, so it is
    /// written down before how far the disk has them.
    fn seal(&self) -> fjall::Result<()> {
        if !self.queues.is_flushed() {
            return Ok(());
        }
        if let Err(error) = self.committed.note(self.commits.synced()) {
            tracing::warn!(%error, file = committed::FILE, "it could not be written; it only helps to notice lost files");
        }
        self.queues.seal()
    }

    /// `idle`: nothing was stored since the last pass, so that no flush comes by itself.
    fn give_back(&self, idle: bool) {
        let nearly_full = self.volume.is_nearly_full();
        // The engine's next commit meets the same failure and ends the process; here it is only told.
        let dropped = space::give_back(&self.database, &self.queues.keyspace, nearly_full);
        // What is only in memory holds a journal, and is not compacted.
        let holds = || self.database.journal_disk_space().is_ok_and(|bytes| bytes > JOURNAL_ROTATES);
        let rotated = if nearly_full || idle && holds() { self.rotate() } else { Ok(()) };
        if let Err(error) = dropped.and(rotated.map_err(Into::into)) {
            tracing::warn!(%error, "no space could be given back");
        }
        self.forget_versions();
    }
}
