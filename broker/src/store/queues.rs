//! The keyspace of a store, and its memtable.
//!
//! All keys are in one. With messages apart from what every commit rewrites their tables would move down unchanged, which is a
//! third quicker; but then one compaction may merge everything at once, and a level may get runs that overlap (lsm-tree 3.1.10).
//!
//! Memtables are sealed by the keeper. fjall would ask its worker for it at each commit that finds one full; a thousand such
//! requests, while it compacts, fill the queue in which that worker then waits for room itself, for ever (3.1.13,
//! `worker_pool.rs`, `keyspace/mod.rs`).

use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions};

use super::volume::Sizes;

/// A memtable waits for the flush of the one before it until it is so many times as large; then commits wait.
const OVERFULL: u64 = 2;

/// The keyspace. Cheap to clone.
#[derive(Clone)]
pub(super) struct Queues {
    pub(super) keyspace: Keyspace,
    /// Bytes at which a memtable is sealed.
    limit: u64,
}

/// How full a memtable is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fullness {
    Room,
    /// To be sealed.
    Full,
    /// Nothing more is to be written before it is sealed.
    Overfull,
}

impl Queues {
    /// Opens it, or makes it. What a store was made with stays.
    ///
    /// # Errors
    /// When the storage engine fails.
    pub(super) fn open(database: &Database, sizes: Sizes) -> fjall::Result<Self> {
        // Small tables: smoother commits, and little room to compact in.
        let options = || {
            let tables = Leveled::default().with_table_target_size(sizes.table);
            KeyspaceCreateOptions::default().max_memtable_size(u64::MAX).compaction_strategy(Arc::new(tables))
        };
        Ok(Self { keyspace: database.keyspace("queues", options)?, limit: sizes.memtable })
    }

    /// How full the memtable is.
    pub(super) fn fullness(&self) -> Fullness {
        match self.keyspace.tree.active_memtable().size() / self.limit {
            0 => Fullness::Room,
            times if times < OVERFULL => Fullness::Full,
            _ => Fullness::Overfull,
        }
    }

    /// Whether the memtable may be sealed: the last one is flushed. A flush takes all that are sealed, and syncs the journal
    /// only before it begins.
    pub(super) fn is_flushed(&self) -> bool {
        self.keyspace.tree.sealed_memtable_count() == 0
    }

    /// Seals the memtable, if it may be.
    ///
    /// # Errors
    /// When the storage engine failed.
    pub(super) fn seal(&self) -> fjall::Result<()> {
        if self.is_flushed() {
            self.keyspace.rotate_memtable()?;
        }
        Ok(())
    }
}
