//! Writes that are collected, seen by their own reads, and committed at once.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::iter::Peekable;

use capstan_core::{Key, Record, Store};

use super::{Durability, FjallStore, StoreError, codec, key};

/// Uncommitted writes over a store. Dropped, they are forgotten.
pub struct Transaction<'a> {
    store: &'a FjallStore,
    /// `None` marks a removal.
    pending: BTreeMap<Key, Option<Record>>,
    bytes: usize,
}

impl<'a> Transaction<'a> {
    pub(super) const fn new(store: &'a FjallStore) -> Self {
        Self { store, pending: BTreeMap::new(), bytes: 0 }
    }

    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Records that are written or removed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Bytes of message bodies among the writes: what it holds in memory, but for a little for each record.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes everything, or nothing; answers the commit's number, if there was anything to write.
    ///
    /// # Errors
    /// [`StoreError::Engine`]: whether the writes are durable is unknown, and the store takes no more. End the process.
    pub fn commit(self, durability: Durability) -> Result<Option<u64>, StoreError> {
        #[cfg(test)]
        if let Some(gate) = &self.store.gate {
            gate(durability)?;
        }
        let store = self.store;
        let number = self.put_down(durability)?;
        store.count(durability).fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(number)
    }

    /// Writes everything, or nothing, for [`FjallStore::sync`] to bring to disk; answers the commit's number.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub(crate) fn write(self) -> Result<Option<u64>, StoreError> {
        self.put_down(Durability::Buffered)
    }

    fn put_down(self, durability: Durability) -> Result<Option<u64>, StoreError> {
        let mut batch = self.store.batch(durability, self.pending.len());
        for (key, record) in self.pending {
            let key = key::encode(key);
            match record {
                Some(record) => batch.insert(self.store.keyspaces.of(&key), key, codec::encode(&record)),
                None => batch.remove(self.store.keyspaces.of(&key), key),
            }
        }
        let number = batch.commit()?;
        self.store.scans.note_stored(self.bytes as u64);
        Ok(number)
    }

    fn read(key: Key, bytes: &[u8]) -> Result<Record, StoreError> {
        codec::decode(key, bytes).map_err(|_| StoreError::Record {
            key: format!("{key:?}"),
            reason: "its bytes are no such record",
        })
    }
}

impl Store for Transaction<'_> {
    type Error = StoreError;

    fn get(&self, key: Key) -> Result<Option<Record>, StoreError> {
        if let Some(record) = self.pending.get(&key) {
            return Ok(record.clone());
        }
        let bytes = key::encode(key);
        let Some(bytes) = self.store.keyspaces.of(&bytes).get(&bytes)? else {
            return Ok(None);
        };
        Self::read(key, &bytes).map(Some)
    }

    fn scan(&self, from: Key, to: Key, limit: usize) -> Result<Vec<(Key, Record)>, StoreError> {
        if from >= to || limit == 0 {
            return Ok(Vec::new());
        }
        let mut written = self.pending.range(from..to).peekable();
        let mut found = Vec::new();
        let _open = self.store.scans.open();
        let (first, end) = (key::encode(from), key::encode(to));
        for guard in self.store.keyspaces.of(&first).range(first..end) {
            let (bytes, value) = guard.into_inner()?;
            let Some(stored) = key::decode(&bytes) else {
                return Err(StoreError::Record { key: format!("{bytes:?}"), reason: "it is no key" });
            };
            take_before(&mut written, stored, &mut found, limit);
            if found.len() >= limit {
                return Ok(found);
            }
            // A pending write of the same key is what counts.
            match written.next_if(|(key, _)| **key == stored) {
                Some((_, Some(record))) => found.push((stored, record.clone())),
                Some((_, None)) => {}
                None => found.push((stored, Self::read(stored, &value)?)),
            }
            if found.len() >= limit {
                return Ok(found);
            }
        }
        let rest = written.filter_map(|(key, record)| record.clone().map(|record| (*key, record)));
        let room = limit - found.len();
        found.extend(rest.take(room));
        Ok(found)
    }

    fn put(&mut self, key: Key, record: Record) {
        if let Record::Message(message) = &record {
            self.bytes += message.body.len();
        }
        self.pending.insert(key, Some(record));
    }

    fn remove(&mut self, key: Key) {
        self.pending.insert(key, None);
    }
}

/// Takes the pending writes below `key`.
fn take_before(
    written: &mut Peekable<Range<'_, Key, Option<Record>>>,
    key: Key,
    found: &mut Vec<(Key, Record)>,
    limit: usize,
) {
    while found.len() < limit
        && let Some((key, record)) = written.next_if(|(pending, _)| **pending < key)
    {
        if let Some(record) = record {
            found.push((*key, record.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use capstan_core::memory::MemoryStore;
    use capstan_core::{QueueId, Seq};
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> Key {
        Key::Returned(QueueId(1), capstan_core::Order(n.into()))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        /// Reads of a transaction are those of a plain map, whatever is committed and whatever is pending.
        #[test]
        fn reads_like_a_map(writes in prop::collection::vec((0..12u8, prop::option::of(any::<u64>()), any::<bool>()), 1..40)) {
            let folder = tempfile::tempdir().unwrap();
            let store = FjallStore::open(folder.path()).unwrap();
            let (mut transaction, mut map) = (store.transaction(), MemoryStore::default());
            for (n, value, commit) in writes {
                match value {
                    Some(value) => {
                        transaction.put(key(n), Record::Entry(Seq(value)));
                        map.put(key(n), Record::Entry(Seq(value)));
                    }
                    None => {
                        transaction.remove(key(n));
                        map.remove(key(n));
                    }
                }
                if commit {
                    transaction.commit(Durability::Buffered).unwrap();
                    transaction = store.transaction();
                }
                for limit in [1, 3, 100] {
                    prop_assert_eq!(
                        transaction.scan(key(2), key(9), limit).unwrap(),
                        map.scan(key(2), key(9), limit).unwrap()
                    );
                }
                prop_assert_eq!(transaction.get(key(n)).unwrap(), map.get(key(n)).unwrap());
            }
        }
    }
}
