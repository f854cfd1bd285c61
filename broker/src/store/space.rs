//! Space that comes back: tables that hold nothing but dead keys are dropped whole.
//!
//! Removals alone give little back: a queue's new keys never overlap its old ones, so compaction moves tables down
//! without rewriting them, and a removal seldom meets what it removes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use fjall::{AbstractTree, Database, Keyspace, PersistMode};

use super::StoreError;
use super::dead::{Keys, Marks};

/// So many dead bytes are worth a call while the store is busy: it holds up compaction.
const WORTH_BYTES: u64 = 32 << 20;

/// Who reads over many keys at this moment: such a read needs the tables that there were when it began. And how much was
/// stored: about as much has gone.
#[derive(Debug, Default)]
pub(super) struct Scans {
    reading: RwLock<()>,
    stored: AtomicU64,
}

impl Scans {
    /// Held while one lasts.
    pub(super) fn open(&self) -> RwLockReadGuard<'_, ()> {
        self.reading.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of bodies stored since the start.
    pub(super) fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    pub(super) fn note_stored(&self, bytes: u64) {
        self.stored.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Removes the files of tables that were compacted away or dropped. The storage engine does so when it rotates a
    /// memtable, and not at all while nothing is written: compaction alone could fill a volume.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(super) fn forget_versions(&self, database: &Database, keyspace: &Keyspace) -> Result<(), StoreError> {
        // Nothing is being read now, so later reads are of this moment or after it.
        let now = {
            let _none = self.reading.write().unwrap_or_else(PoisonError::into_inner);
            database.visible_seqno()
        };
        let mut versions = keyspace.tree.get_version_history_lock();
        Ok(versions.maintenance(keyspace.path(), now).map_err(fjall::Error::from)?)
    }
}

/// Drops tables that hold only dead keys. `eager` does so for any number of bytes.
///
/// # Errors
/// When the store cannot be read, or the storage engine fails.
pub(super) fn give_back(database: &Database, keyspace: &Keyspace, eager: bool) -> Result<(), StoreError> {
    // On the thread that forgets versions, so that none is forgotten under it.
    let Some(marks) = Marks::read(&whole(database)?, keyspace)? else {
        return Ok(());
    };
    let found = tables(keyspace, &without_newest(keyspace, &marks.dead()));
    let bytes: u64 = found.iter().map(|(_, bytes)| bytes).sum();
    if bytes == 0 || !(eager || bytes >= WORTH_BYTES || bytes >= marks.live_bytes()) {
        return Ok(());
    }
    // A mark may be visible and not on disk yet: after a power cut it would be lower, and what lies above it gone.
    database.persist(PersistMode::SyncData)?;
    for (range, _) in &found {
        keyspace.tree.drop_range(range.clone()).map_err(fjall::Error::from)?;
    }
    tracing::debug!(bytes, "dropped tables of dead keys");
    Ok(())
}

/// A snapshot that has each commit whole, or nothing of it.
///
/// The storage engine's own may have a part of the one that is being applied: a flush or compaction that ends meanwhile
/// takes the next number and makes everything visible up to it (`SuperVersions::upgrade_version` of lsm-tree 3.1.10). A new
/// queue could then be missing, whose first messages are there already: its keys would count as those of a forgotten one.
/// Persisting takes the lock under which commits are applied, and so waits until that one is there; later ones have higher
/// numbers than the snapshot.
fn whole(database: &Database) -> Result<fjall::Snapshot, StoreError> {
    let snapshot = database.snapshot();
    database.persist(PersistMode::Buffer)?;
    Ok(snapshot)
}

/// The ranges without the table that has the last changes: by it the storage engine knows that older journals are flushed,
/// and would keep them all (fjall 3.1.13, `journal/manager.rs`).
fn without_newest(keyspace: &Keyspace, dead: &[Keys]) -> Vec<Keys> {
    let version = keyspace.tree.current_version();
    let newest = version.iter_tables().max_by_key(|table| table.get_highest_seqno());
    let cut = |keys: &Keys| match newest.map(|table| &table.metadata.key_range) {
        Some(range) if keys.start.as_slice() <= &**range.min() && &**range.max() < keys.end.as_slice() => {
            keys.start.clone()..range.min().to_vec()
        }
        _ => keys.clone(),
    };
    dead.iter().map(cut).collect()
}

/// The ranges that hold tables whole, with the bytes of these.
fn tables(keyspace: &Keyspace, dead: &[Keys]) -> Vec<(Keys, u64)> {
    let mut bytes = vec![0; dead.len()];
    for table in keyspace.tree.current_version().iter_tables() {
        let range = &table.metadata.key_range;
        let at = dead.partition_point(|keys| keys.end.as_slice() <= &**range.max());
        if let (Some(keys), Some(bytes)) = (dead.get(at), bytes.get_mut(at))
            && keys.start.as_slice() <= &**range.min()
        {
            *bytes += table.metadata.file_size;
        }
    }
    dead.iter().cloned().zip(bytes).filter(|(_, bytes)| *bytes > 0).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    use capstan_core::{Key, Order, QueueId, Record, Seq, Store};
    use fjall::Readable;

    use super::*;
    use crate::store::{Durability, FjallStore, key};

    /// Records of each commit: enough that applying them takes a while.
    const RECORDS: u64 = 8_000;
    const COMMITS: usize = 15;
    const DEADLINE: Duration = Duration::from_secs(120);

    fn at(n: u64) -> Key {
        Key::Returned(QueueId(1), Order(n))
    }

    /// Commits that write the same number everywhere, until told to end.
    fn write(store: &FjallStore, ended: &AtomicBool) {
        let mut number = 0;
        while !ended.load(Ordering::Relaxed) {
            number += 1;
            let mut transaction = store.transaction();
            (0..RECORDS).for_each(|n| transaction.put(at(n), Record::Entry(Seq(number))));
            transaction.commit(Durability::Buffered).unwrap();
        }
    }

    /// Fails in most runs with the storage engine's own snapshot; the more so the longer it runs.
    #[test]
    fn a_snapshot_has_a_commit_whole_whatever_ends_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let store = FjallStore::open(folder.path()).unwrap();
        let ended = AtomicBool::new(false);
        let (began, mut different) = (Instant::now(), std::collections::BTreeSet::new());
        std::thread::scope(|scope| {
            scope.spawn(|| write(&store, &ended));
            let check = || {
                while different.len() < COMMITS {
                    let before = different.len();
                    // The keeper of this store forgets versions meanwhile, on its own thread.
                    let open = store.scans.open();
                    let snapshot = whole(&store.database).unwrap();
                    let numbers = [0, RECORDS / 2, RECORDS - 1]
                        .map(|n| snapshot.get(&store.queues.keyspace, key::encode(at(n))).unwrap());
                    assert!(numbers.iter().all(|n| *n == numbers[0]), "a part: {numbers:?}");
                    drop(open);
                    different.insert(numbers[0].clone());
                    if different.len() > before {
                        // Its flush ends at some time while a commit is applied.
                        store.queues.keyspace.rotate_memtable().unwrap();
                    }
                    assert!(began.elapsed() < DEADLINE, "{} commits seen", different.len());
                }
            };
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
            ended.store(true, Ordering::Relaxed);
            if let Err(panic) = checked {
                std::panic::resume_unwind(panic);
            }
        });
    }
}
