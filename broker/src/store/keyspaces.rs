//! The keyspaces of a store: which key is kept where, and how each is set up.
//!
//! In one keyspace each table would reach from new messages to keys that every commit rewrites, so that all of them overlapped
//! and compaction wrote each message again and again. Apart, tables of messages move down as they are. fjall flushes a
//! keyspace that would pin old journals.

use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};

use super::key::{self, Class};
use super::volume::Sizes;

/// Most bytes of a memtable for what every commit rewrites. A flush leaves the newest of each key, and holds up a commit: with 4 MiB
/// two seconds of busy commits filled it.
const SMALL_MEMTABLE: u64 = 16 << 20;

/// All keyspaces. Cheap to clone.
#[derive(Clone)]
pub(super) struct Keyspaces {
    /// Messages as they were sent: written once.
    pub(super) messages: Keyspace,
    /// What happened to them: written at each lease, gone with the message.
    pub(super) deliveries: Keyspace,
    /// What every commit rewrites.
    pub(super) state: Keyspace,
}

impl Keyspaces {
    /// Opens them, or makes them. What a store was made with stays.
    ///
    /// # Errors
    /// When the storage engine fails.
    pub(super) fn open(database: &Database, sizes: Sizes) -> fjall::Result<Self> {
        // Small tables: smoother commits, and little room to compact in.
        let options = |memtable: u64| {
            let tables = Leveled::default().with_table_target_size(sizes.table);
            move || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(memtable)
                    .compaction_strategy(Arc::new(tables.clone()))
            }
        };
        Ok(Self {
            messages: database.keyspace("messages", options(sizes.memtable))?,
            deliveries: database.keyspace("deliveries", options(sizes.memtable.div_ceil(2)))?,
            state: database.keyspace("state", options(sizes.memtable.min(SMALL_MEMTABLE)))?,
        })
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
