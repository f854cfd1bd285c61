//! The keyspaces of a store: which key is kept where, and how each is set up.
//!
//! In one keyspace each table would reach from new messages to keys that every commit rewrites, so that all of them overlapped
//! and compaction wrote each message again and again. Apart, tables of messages move down as they are. fjall flushes a
//! keyspace that would pin old journals.
//!
//! Memtables are sealed by the keeper. fjall would ask its worker for it at each commit that finds one full; a thousand such
//! requests, while it compacts, fill the queue in which that worker then waits for room itself, for ever (3.1.13,
//! `worker_pool.rs`, `keyspace/mod.rs`).

use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions};

use super::key::{self, Class};
use super::volume::Sizes;

/// Most bytes of a memtable for what is small. A flush leaves the newest of each key, and holds up a commit: with 4 MiB two
/// seconds of busy commits filled it.
const SMALL_MEMTABLE: u64 = 16 << 20;
/// A memtable waits for the flush of the one before it until it is so many times as large; then commits wait.
const OVERFULL: u64 = 2;

/// All keyspaces. Cheap to clone.
#[derive(Clone)]
pub(super) struct Keyspaces {
    /// Bytes at which memtables are sealed.
    limits: [u64; 3],
    /// Messages as they were sent: written once.
    pub(super) messages: Keyspace,
    /// What happened to them: written at each lease, gone with the message.
    pub(super) deliveries: Keyspace,
    /// What every commit rewrites.
    pub(super) state: Keyspace,
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

impl Keyspaces {
    /// Opens them, or makes them. What a store was made with stays.
    ///
    /// # Errors
    /// When the storage engine fails.
    pub(super) fn open(database: &Database, sizes: Sizes) -> fjall::Result<Self> {
        // Small tables: smoother commits, and little room to compact in.
        let options = || {
            let tables = Leveled::default().with_table_target_size(sizes.table);
            KeyspaceCreateOptions::default().max_memtable_size(u64::MAX).compaction_strategy(Arc::new(tables))
        };
        let small = sizes.memtable.min(SMALL_MEMTABLE);
        Ok(Self {
            limits: [sizes.memtable, small, small],
            messages: database.keyspace("messages", options)?,
            deliveries: database.keyspace("deliveries", options)?,
            state: database.keyspace("state", options)?,
        })
    }

    /// How full the fullest memtable is.
    pub(super) fn fullness(&self) -> Fullness {
        let of = |(keyspace, limit): (&Keyspace, u64)| {
            let bytes = keyspace.tree.active_memtable().size();
            match bytes / limit {
                0 => Fullness::Room,
                times if times < OVERFULL => Fullness::Full,
                _ => Fullness::Overfull,
            }
        };
        self.all().into_iter().zip(self.limits).map(of).max().unwrap_or(Fullness::Room)
    }

    /// Seals full memtables, but for those whose last one is not flushed yet: a flush takes all that are sealed, and syncs the
    /// journal only before it begins.
    ///
    /// # Errors
    /// When the storage engine failed.
    pub(super) fn seal_full(&self) -> fjall::Result<()> {
        for (keyspace, limit) in self.all().into_iter().zip(self.limits) {
            if keyspace.tree.active_memtable().size() >= limit {
                seal(keyspace)?;
            }
        }
        Ok(())
    }

    /// Seals all memtables, with the same exception.
    ///
    /// # Errors
    /// When the storage engine failed.
    pub(super) fn seal_all(&self) -> fjall::Result<()> {
        self.all().into_iter().try_for_each(seal)
    }

    /// Where a key is kept.
    pub(super) fn of(&self, key: &[u8]) -> &Keyspace {
        match key::class(key) {
            Class::Message => &self.messages,
            Class::Delivery => &self.deliveries,
            Class::State => &self.state,
        }
    }

    /// All of them.
    pub(super) const fn all(&self) -> [&Keyspace; 3] {
        [&self.messages, &self.deliveries, &self.state]
    }
}

fn seal(keyspace: &Keyspace) -> fjall::Result<()> {
    if keyspace.tree.sealed_memtable_count() == 0 {
        keyspace.rotate_memtable()?;
    }
    Ok(())
}
