//! Numbered commits: each batch says which commit it is, and which one was the last known to be on disk.
//!
//! Together they tell the journal's checker what a torn end may have lost: a commit after the last good one counts as
//! answered when a later batch says that it was synced.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use fjall::{Keyspace, OwnedWriteBatch, PersistMode, UserKey, UserValue};

use super::{Durability, FjallStore, key};

/// What a batch says about itself: two u64, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Commit {
    /// Counts from 1 without a gap, over all processes that ever owned the store.
    pub(super) number: u64,
    /// The last commit that was known to be on disk when this one began; 0 for none.
    pub(super) synced: u64,
}

impl Commit {
    pub(super) const KEY: [u8; 1] = [key::COMMIT];
    pub(super) const BYTES: usize = 16;

    pub(super) fn encode(self) -> [u8; Self::BYTES] {
        (u128::from(self.number) << 64 | u128::from(self.synced)).to_be_bytes()
    }

    /// Reads what [`Self::encode`] wrote; `None` for bytes of another length.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let both = u128::from_be_bytes(bytes.try_into().ok()?);
        Some(Self { number: (both >> 64) as u64, synced: both as u64 })
    }
}

/// The numbers of an open store.
#[derive(Debug)]
pub(super) struct Commits {
    /// The last commit. Held while one is written, so that numbers and batches are in the same order.
    last: Mutex<u64>,
    /// The last one known to be on disk.
    synced: AtomicU64,
}

impl Commits {
    /// Goes on after commit `number`. All of the journal is on disk then: fjall syncs it before it reads it.
    pub(super) const fn after(number: u64) -> Self {
        Self { last: Mutex::new(number), synced: AtomicU64::new(number) }
    }

    /// The last commit that was written.
    pub(super) fn last(&self) -> u64 {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last commit that is known to be on disk.
    pub(super) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Relaxed)
    }

    /// All up to `number` are on disk.
    pub(super) fn note_synced(&self, number: u64) {
        self.synced.fetch_max(number, Ordering::Relaxed);
    }
}

/// Writes that become one commit. fjall's own batches stay below this, so that none goes without its number.
pub(super) struct Batch<'a> {
    store: &'a FjallStore,
    writes: OwnedWriteBatch,
    durability: Durability,
}

impl<'a> Batch<'a> {
    pub(super) fn new(store: &'a FjallStore, durability: Durability, capacity: usize) -> Self {
        // fjall's default would leave a commit in this process's memory.
        let mode = match durability {
            Durability::Buffered => PersistMode::Buffer,
            Durability::Synced => PersistMode::SyncData,
        };
        let writes = OwnedWriteBatch::with_capacity(store.database.clone(), capacity + 1);
        Self { store, writes: writes.durability(Some(mode)), durability }
    }

    pub(super) fn insert(&mut self, to: &Keyspace, key: impl Into<UserKey>, value: impl Into<UserValue>) {
        self.writes.insert(to, key, value);
    }

    pub(super) fn remove(&mut self, from: &Keyspace, key: impl Into<UserKey>) {
        self.writes.remove(from, key);
    }

    /// Writes everything, or nothing; answers its number. Without writes there is no commit.
    pub(super) fn commit(mut self) -> fjall::Result<Option<u64>> {
        if self.writes.is_empty() {
            return Ok(None);
        }
        let commits = &self.store.commits;
        let mut last = commits.last.lock().unwrap_or_else(PoisonError::into_inner);
        let commit = Commit { number: *last + 1, synced: commits.synced() };
        self.writes.insert(&self.store.queues.keyspace, Commit::KEY, commit.encode());
        self.writes.commit()?;
        *last = commit.number;
        if self.durability == Durability::Synced {
            commits.note_synced(commit.number);
        }
        drop(last);
        self.store.look_after_memtable()?;
        Ok(Some(commit.number))
    }
}
