//! The keeper: a thread beside the engine's that watches the volume, holds the ballast, and gives space back.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::{Database, Keyspace};

use super::ballast::Ballast;
use super::space;
use super::volume::Volume;

/// Between two looks at the volume.
const LOOK: Duration = Duration::from_millis(250);
/// Looks between two counts of what the store takes.
const COUNT_EVERY: u64 = 4;
/// Looks between two passes that give space back, while there is room.
const SPACE_EVERY: u64 = 16;

/// A running keeper. Dropped, it ends, and waits for its end.
#[derive(Debug)]
pub(super) struct Keeper {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Signal {
    ended: Mutex<bool>,
    told: Condvar,
    /// Dropped tables wait for a commit: only then their files go.
    wants_commit: AtomicBool,
}

impl Keeper {
    /// Starts it.
    ///
    /// # Errors
    /// When no thread can be made.
    pub(super) fn start(volume: Arc<Volume>, database: Database, keyspace: Keyspace) -> io::Result<Self> {
        let signal = Arc::new(Signal::default());
        let ballast = Ballast::of(volume.folder());
        let work = Work { volume, database, keyspace, ballast, signal: Arc::clone(&signal), rotate: false };
        let thread = std::thread::Builder::new().name("keeper".to_owned()).spawn(move || work.run())?;
        Ok(Self { signal, thread: Some(thread) })
    }

    /// Whether a commit is wanted, of whatever; asked once for each.
    pub(super) fn wants_commit(&self) -> bool {
        self.signal.wants_commit.swap(false, Ordering::Relaxed)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        *self.signal.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.signal.told.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    volume: Arc<Volume>,
    database: Database,
    keyspace: Keyspace,
    ballast: Ballast,
    signal: Arc<Signal>,
    /// Tables were dropped, and their files are still there.
    rotate: bool,
}

impl Work {
    fn run(mut self) {
        let mut looks: u64 = 0;
        self.count();
        while !self.wait() {
            looks += 1;
            self.volume.look();
            if looks.is_multiple_of(COUNT_EVERY) {
                self.count();
                self.hold_ballast();
            }
            let every = if self.volume.is_nearly_full() { COUNT_EVERY } else { SPACE_EVERY };
            if looks.is_multiple_of(every) {
                self.give_back();
            }
        }
    }

    /// Waits for the next look; true at the end.
    fn wait(&self) -> bool {
        let ended = self.signal.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.signal.told.wait_timeout_while(ended, LOOK, |ended| !*ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
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

    fn give_back(&mut self) {
        let nearly_full = self.volume.is_nearly_full();
        // The engine's next commit meets the same failure and ends the process; here it is only told.
        match space::give_back(&self.database, &self.keyspace, nearly_full) {
            Ok(returned) => self.rotate |= returned.bytes > 0,
            Err(error) => return tracing::warn!(%error, "no space could be given back"),
        }
        if self.rotate || nearly_full {
            match self.keyspace.rotate_memtable() {
                Ok(true) => self.rotate = false,
                // Nothing was written since the last time: one commit is needed.
                Ok(false) => self.signal.wants_commit.store(true, Ordering::Relaxed),
                Err(error) => tracing::warn!(%error, "a memtable could not be rotated"),
            }
        }
    }
}
