//! Space that comes back: tables that hold nothing but dead keys are dropped whole.
//!
//! Removals alone give little back: a queue's new keys never overlap its old ones, so compaction moves tables down
//! without rewriting them, and a removal seldom meets what it removes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use fjall::{AbstractTree, Database, Keyspace, PersistMode};

use super::StoreError;
use super::dead::{Keys, Marks};
use super::keyspaces::Keyspaces;

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
pub(super) fn give_back(database: &Database, keyspaces: &Keyspaces, eager: bool) -> Result<(), StoreError> {
    // On the thread that forgets versions, so that none is forgotten under it.
    let Some(marks) = Marks::read(&database.snapshot(), &keyspaces.state)? else {
        return Ok(());
    };
    let dead = marks.dead();
    let found =
        [&keyspaces.messages, &keyspaces.deliveries].map(|keyspace| (keyspace, tables(keyspace, &dead)));
    let bytes: u64 = found.iter().flat_map(|(_, ranges)| ranges).map(|(_, bytes)| bytes).sum();
    if bytes == 0 || !(eager || bytes >= WORTH_BYTES || bytes >= marks.live_bytes()) {
        return Ok(());
    }
    // A mark may be visible and not on disk yet: after a power cut it would be lower, and what lies above it gone.
    database.persist(PersistMode::SyncData)?;
    for (keyspace, ranges) in &found {
        for (range, _) in ranges {
            keyspace.tree.drop_range(range.clone()).map_err(fjall::Error::from)?;
        }
    }
    tracing::debug!(bytes, "dropped tables of dead keys");
    Ok(())
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
