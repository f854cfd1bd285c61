//! The store: a fjall database, opened under a lock, with named durability in every commit.
//!
//! A failed commit leaves fjall poisoned; the caller ends the process and the next one recovers.

mod ballast;
mod codec;
mod commit;
mod committed;
mod dead;
mod format;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod journal;
mod keeper;
mod key;
mod parts;
mod queues;
mod space;
mod sync;
mod transaction;
mod volume;

use std::error::Error;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use capstan_core::Key;
use fjall::{Database, PersistMode};

use ballast::Ballast;
use commit::{Batch, Commit, Commits};
use committed::Committed;
use format::{Found, OLDEST, VERSION};
use journal::Stored;
pub use journal::{Damage, Problem};
use keeper::Keeper;
pub use parts::{Part, PartProblem};
use queues::{Fullness, Queues};
use space::Scans;
use sync::{Followed, Newest};
pub use transaction::Transaction;
pub(crate) use volume::{NearlyFull, Usage, Volume};
pub use volume::{Reserve, TooSmall};

/// Blocks of tables kept in memory.
const CACHE_BYTES: u64 = 64 << 20;
/// Checked at each flush; the least that the storage engine takes.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;

/// What to do with a folder that is damaged.
const ADVICE: &str = "Change nothing in the folder: first copy it whole, as it is, and look at the disk and at the log lines \
    before this one. Then put back a backup or snapshot of the whole folder, never single files; or, to give up its \
    messages, begin with an empty folder";

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot use {path}: {source}")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("{path} is in use by another broker; one process at a time can own a store")]
    Locked { path: PathBuf },
    #[error(
        "the store in {path} has format {found}, this program reads formats {OLDEST} to {VERSION}: use the version that wrote it"
    )]
    Format { path: PathBuf, found: String },
    #[error(
        "the store in {path} has no file FORMAT, which says how to read it. If it never had one, it is of format 1: use the \
         version that wrote it. Otherwise the file was lost, and others may be too. {ADVICE}"
    )]
    NoFormatFile { path: PathBuf },
    #[error(
        "the store in {path} holds records but no format version: it is damaged, or no store of Capstan's"
    )]
    NoFormat { path: PathBuf },
    #[error(
        "the store in {path} cannot be opened: {source}. {}, below {path}/store, is damaged or cannot be read. {ADVICE}",
        suspect(source)
    )]
    Open { path: PathBuf, source: fjall::Error },
    #[error("the store in {path} is not opened, because it is damaged: {part}. {ADVICE}")]
    Part { path: PathBuf, part: Part },
    #[error("the store in {path} is not opened, because messages would be missing: {damage}. {ADVICE}")]
    Journal { path: PathBuf, damage: Damage },
    #[error("a table of the store is damaged: {0}. {ADVICE}")]
    Table(fjall::Error),
    #[error("{path} cannot be the store's folder: {reason}")]
    TooSmall { path: PathBuf, reason: TooSmall },
    #[error("cannot start a thread that watches the volume: {0}")]
    Thread(std::io::Error),
    #[error("the storage engine failed: {0}")]
    Engine(fjall::Error),
    #[error("the journal could not be synced: {0}")]
    Sync(std::io::Error),
    #[error("the record at key {key} cannot be read: {reason}")]
    Record { key: String, reason: &'static str },
}

/// How far a commit has got when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// In the operating system: survives the process, not the machine.
    Buffered,
    /// On disk.
    Synced,
}

/// Commits since the store was opened.
#[derive(Debug, Default)]
struct Counts {
    buffered: AtomicU64,
    synced: AtomicU64,
}

/// A test's hand on commits: called before each, it may wait, or fail it.
#[cfg(test)]
pub(crate) type Gate = Box<dyn Fn(Durability) -> Result<(), StoreError> + Send + Sync>;

/// An open store.
pub struct FjallStore {
    /// Ends before the store is closed.
    keeper: Keeper,
    volume: Arc<Volume>,
    database: Database,
    queues: Queues,
    commits: Arc<Commits>,
    journal: Arc<Newest>,
    scans: Arc<Scans>,
    counts: Counts,
    path: PathBuf,
    /// Of an earlier version, which can still read it.
    is_earlier: AtomicBool,
    #[cfg(test)]
    gate: Option<Gate>,
    /// Held as long as the store is open.
    _lock: File,
}

impl FjallStore {
    /// Opens the store in `path`, or makes it; a torn end of its journal is cut off first. Of the volume it keeps
    /// [`Reserve::LEAST`] from sends.
    ///
    /// # Errors
    /// [`StoreError`] when the folder cannot be used, is in use, is damaged, or holds another format.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, Reserve::LEAST)
    }

    /// The same, with a reserve of the caller's choice.
    ///
    /// # Errors
    /// As [`Self::open`], and when the volume is too small.
    pub fn open_with(path: &Path, reserve: Reserve) -> Result<Self, StoreError> {
        let folder = |source| StoreError::Folder { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(folder)?;
        let lock = lock(path)?;
        // Before anything that changes files: they may be another version's.
        let found = format::check(path)?;
        let journals = path.join("store");
        if found == Found::Store {
            parts::check(&journals).map_err(|error| StoreError::parts(path, error))?;
        }
        let committed = Committed::open(path, found)?;
        let least = committed.number();
        let end = journal::check(&journals, least).map_err(|error| StoreError::journal(path, error))?;
        let volume = volume(path, reserve)?;
        let opening = |source| StoreError::Open { path: path.to_owned(), source };
        let database = Database::builder(&journals)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .max_cached_files(Some(crate::descriptors::shares().store))
            // With more, the first one spins while the others compact: it puts compactions back in the queue, to be free for
            // flushes (fjall 3.1.13, worker_pool.rs). That took a third of two cores under load.
            .worker_threads(1)
            // Rot in a large value is then noticed by the journal's checksum instead of failing to decompress.
            .journal_compression(fjall::CompressionType::None)
            .open()
            .map_err(opening)?;
        let queues = Queues::open(&database, volume.sizes()).map_err(opening)?;
        let commit = format::commit(&queues.keyspace, path)?;
        let stored = Stored::of(commit, &queues.keyspace, end.as_ref())?;
        journal::compare(&journals, end, &stored, found == Found::New, least)
            .map_err(|damage| StoreError::Journal { path: path.to_owned(), damage })?;
        let scans = Arc::<Scans>::default();
        let journal = Arc::new(Newest::find(&journals).map_err(folder)?);
        let commits = Arc::new(Commits::after(stored.commit));
        let keeper = Keeper::start(&volume, &database, &queues, &scans, &journal, &commits, committed);
        let store = Self {
            keeper: keeper.map_err(StoreError::Thread)?,
            volume,
            database,
            queues,
            commits,
            journal,
            scans,
            counts: Counts::default(),
            path: path.to_owned(),
            is_earlier: AtomicBool::new(false),
            #[cfg(test)]
            gate: None,
            _lock: lock,
        };
        match found {
            Found::New => format::write(&store, path)?,
            Found::Store if format::is_earlier(&store, path)? => {
                store.is_earlier.store(true, Ordering::Relaxed);
            }
            Found::Store => format::upgrade(&store, path)?,
        }
        Ok(store)
    }

    /// Makes a store of an earlier version one of this, if `key` is unknown to that version. Before the key is written.
    fn make_room_for(&self, key: Key) -> Result<(), StoreError> {
        if matches!(key, Key::Sent(..) | Key::Remembered(_)) && self.is_earlier.load(Ordering::Relaxed) {
            format::upgrade(self, &self.path)?;
            self.is_earlier.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Brings commit `number` to disk, and all before it. Others may be written meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Sync`]: what is on disk is unknown. End the process.
    pub(crate) fn sync(&self, number: u64) -> Result<(), StoreError> {
        #[cfg(test)]
        if let Some(gate) = &self.gate {
            gate(Durability::Synced)?;
        }
        if self.journal.sync().map_err(StoreError::Sync)? == Followed::Moved {
            // The storage engine may have been told of a failure, and nobody else would be: it takes nothing then.
            self.database.persist(PersistMode::Buffer)?;
        }
        self.commits.note_synced(number);
        self.counts.synced.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the storage engine still works: its worker may have failed while nobody wrote.
    ///
    /// # Errors
    /// [`StoreError::Engine`]: end the process.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        Ok(self.database.persist(PersistMode::Buffer)?)
    }

    /// Has a full memtable sealed. Waits when it grew too much meanwhile, so that memory is bounded; whoever watches the
    /// commit ends the process when that lasts.
    fn look_after_memtable(&self) -> fjall::Result<()> {
        loop {
            match self.queues.fullness() {
                Fullness::Room => return Ok(()),
                Fullness::Full => {
                    self.keeper.tell_full();
                    return Ok(());
                }
                Fullness::Overfull => {
                    self.keeper.tell_full();
                    self.keeper.wait();
                    // Fails when the storage engine's worker has: nothing will ever be flushed then.
                    self.database.persist(PersistMode::Buffer)?;
                }
            }
        }
    }

    /// The volume that the store is on.
    pub(crate) const fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// Begins to collect writes.
    #[must_use]
    pub fn transaction(&self) -> Transaction<'_> {
        Transaction::new(self)
    }

    /// Commits of this kind since the store was opened.
    #[must_use]
    pub fn commits(&self, durability: Durability) -> u64 {
        self.count(durability).load(Ordering::Relaxed)
    }

    const fn count(&self, durability: Durability) -> &AtomicU64 {
        match durability {
            Durability::Buffered => &self.counts.buffered,
            Durability::Synced => &self.counts.synced,
        }
    }

    /// Lets `gate` hold or fail each commit.
    #[cfg(test)]
    pub(crate) fn with_gate(self, gate: Gate) -> Self {
        Self { gate: Some(gate), ..self }
    }

    /// Seals the memtable when it is called, as the keeper does with one that is full.
    #[cfg(test)]
    pub(crate) fn sealer(&self) -> impl Fn() -> fjall::Result<()> + use<> {
        let queues = self.queues.clone();
        move || queues.seal()
    }

    /// The only maker of batches.
    fn batch(&self, durability: Durability, capacity: usize) -> Batch<'_> {
        Batch::new(self, durability, capacity)
    }
}

impl From<fjall::Error> for StoreError {
    fn from(error: fjall::Error) -> Self {
        match &error {
            // What is below it failed to be read or written; anything else is about bytes that were read.
            fjall::Error::Storage(inner) if inner.source().is_none() => Self::Table(error),
            _ => Self::Engine(error),
        }
    }
}

impl StoreError {
    fn journal(path: &Path, error: journal::JournalError) -> Self {
        match error {
            journal::JournalError::Damaged(damage) => Self::Journal { path: path.to_owned(), damage },
            journal::JournalError::Io { file, source } => Self::Folder { path: file, source },
        }
    }

    fn parts(path: &Path, error: parts::PartsError) -> Self {
        match error {
            parts::PartsError::Damaged(part) => Self::Part { path: path.to_owned(), part },
            parts::PartsError::Io { file, source } => Self::Folder { path: file, source },
        }
    }
}

/// What an error of opening is about, as far as it says.
const fn suspect(error: &fjall::Error) -> &'static str {
    match error {
        fjall::Error::InvalidVersion(_) => "The file version",
        fjall::Error::JournalRecovery(_) => "The journal (*.jnl)",
        fjall::Error::Storage(_) => "A table (keyspaces/*/tables), or the list of them (keyspaces/*/v*)",
        _ => "A file",
    }
}

/// Looks at the volume, and makes room to open a store on a full one.
fn volume(path: &Path, reserve: Reserve) -> Result<Arc<Volume>, StoreError> {
    let too_small = |reason| StoreError::TooSmall { path: path.to_owned(), reason };
    let volume = Volume::open(path, reserve).map_err(too_small)?;
    let ballast = Ballast::of(path);
    if volume.available() < volume.sizes().ballast && ballast.held() > 0 {
        tracing::warn!(
            available = volume.available(),
            "the volume is full: its ballast is released to open the store"
        );
        ballast.release().map_err(|source| StoreError::Folder { path: path.to_owned(), source })?;
        volume.look();
    }
    Ok(Arc::new(volume))
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = path.join("LOCK");
    let folder = |source| StoreError::Folder { path: file.clone(), source };
    let lock = File::options().create(true).truncate(false).write(true).open(&file).map_err(folder)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(StoreError::Folder { path: file, source }),
    }
}

#[cfg(test)]
mod tests {
    use capstan_core::{Clock, Key, QueueId, Record, Seq, Store};
    use fjall::AbstractTree;

    use super::*;

    fn clock(committed: u64) -> Record {
        Record::Clock(Clock { committed, outage: 0, timer_head: (0, QueueId(0), Seq(0)) })
    }

    #[test]
    fn a_committed_record_is_there_after_opening_again() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..5 {
            let store = FjallStore::open(folder.path()).unwrap();
            let mut transaction = store.transaction();
            let before = transaction.get(Key::Clock).unwrap();
            assert_eq!(before, (round > 0).then(|| clock(round)));
            transaction.put(Key::Clock, clock(round + 1));
            transaction.commit(Durability::Synced).unwrap();
        }
    }

    #[test]
    fn what_is_not_committed_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = FjallStore::open(folder.path()).unwrap();
        let mut transaction = store.transaction();
        transaction.put(Key::Clock, clock(1));
        assert_eq!(transaction.get(Key::Clock).unwrap(), Some(clock(1)));
        drop(transaction);
        assert_eq!(store.transaction().get(Key::Clock).unwrap(), None);
    }

    #[test]
    fn a_second_owner_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _first = FjallStore::open(folder.path()).unwrap();
        assert!(matches!(FjallStore::open(folder.path()), Err(StoreError::Locked { .. })));
    }

    #[test]
    fn a_damaged_store_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        drop(FjallStore::open(folder.path()).unwrap());
        fs::write(folder.path().join("store/version"), b"fjall").unwrap();
        let error = FjallStore::open(folder.path()).err().unwrap();
        let text = error.to_string();
        assert!(matches!(error, StoreError::Open { .. }), "{text}");
        for part in [folder.path().to_str().unwrap(), "The file version", "copy", "backup"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    /// The storage engine itself seals none: the keeper does, and a commit waits when one grows too much meanwhile.
    #[test]
    fn memtables_are_sealed_and_their_size_is_bounded() {
        const BODY: usize = 1 << 20;
        let folder = tempfile::tempdir().unwrap();
        let store = FjallStore::open(folder.path()).unwrap();
        let (limit, mut largest) = (store.volume.sizes().memtable, 0);
        for number in 1..=5 * limit / BODY as u64 {
            let mut transaction = store.transaction();
            transaction.put(Key::Fresh(QueueId(1), Seq(number)), journal::tests::message(number, BODY));
            transaction.commit(Durability::Buffered).unwrap();
            largest = largest.max(store.queues.keyspace.tree.active_memtable().size());
        }
        assert!(store.queues.keyspace.tree.table_count() > 0, "nothing was ever flushed");
        assert!(largest <= 2 * limit + 2 * BODY as u64, "{largest} bytes in one of {limit}");
    }

    #[test]
    fn commits_are_counted_by_their_durability() {
        let folder = tempfile::tempdir().unwrap();
        let store = FjallStore::open(folder.path()).unwrap();
        for (number, durability) in
            [(1, Durability::Synced), (2, Durability::Buffered), (3, Durability::Synced)]
        {
            let mut transaction = store.transaction();
            transaction.put(Key::Clock, clock(number));
            transaction.commit(durability).unwrap();
        }
        assert_eq!((store.commits(Durability::Synced), store.commits(Durability::Buffered)), (2, 1));
    }
}
