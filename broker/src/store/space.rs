//! Space that comes back: tables that hold nothing but dead keys are dropped whole.
//!
//! Removals alone give little back: a queue's new keys never overlap its old ones, so compaction moves tables down
//! without rewriting them, and a removal seldom meets what it removes.

use fjall::{AbstractTree, Database, Keyspace, PersistMode};

use super::StoreError;
use super::dead::{Keys, Marks};

/// So many dead bytes are worth a call while the store is busy: it holds up compaction.
const WORTH_BYTES: u64 = 32 << 20;

/// What one pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Returned {
    /// Bytes of tables that were dropped; their files go with the next rotation of a memtable.
    pub(super) bytes: u64,
}

/// Drops tables that hold only dead keys. `eager` does so for any number of bytes.
///
/// # Errors
/// When the store cannot be read, or the storage engine fails.
pub(super) fn give_back(
    database: &Database,
    keyspace: &Keyspace,
    eager: bool,
) -> Result<Returned, StoreError> {
    let Some(marks) = Marks::read(&database.snapshot(), keyspace)? else {
        return Ok(Returned::default());
    };
    let found = tables(keyspace, &marks.dead());
    let bytes = found.iter().map(|(_, bytes)| bytes).sum();
    if bytes == 0 || !(eager || bytes >= WORTH_BYTES || bytes >= marks.live_bytes()) {
        return Ok(Returned::default());
    }
    // A mark may be visible and not on disk yet: after a power cut it would be lower, and what lies above it gone.
    database.persist(PersistMode::SyncData)?;
    for (range, _) in &found {
        keyspace.tree.drop_range(range.clone()).map_err(fjall::Error::from)?;
    }
    tracing::debug!(bytes, "dropped tables of dead keys");
    Ok(Returned { bytes })
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
