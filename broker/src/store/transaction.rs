//! Writes that are collected, seen by their own reads, and committed at once.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::iter::Peekable;

use capstan_core::{Key, Limit, Record, Store};

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
            let bytes = key::encode(key);
            match record {
                Some(record) => {
                    self.store.make_room_for(key)?;
                    batch.insert(&self.store.queues.keyspace, bytes, codec::encode(&record));
                }
                None => batch.remove(&self.store.queues.keyspace, bytes),
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
        let Some(bytes) = self.store.queues.keyspace.get(&bytes)? else {
            return Ok(None);
        };
        Self::read(key, &bytes).map(Some)
    }

    fn scan(&self, from: Key, to: Key, limit: Limit) -> Result<Vec<(Key, Record)>, StoreError> {
        let mut found = Found { records: Vec::new(), limit };
        if from >= to || limit.is_reached() {
            return Ok(found.records);
        }
        let mut written = self.pending.range(from..to).peekable();
        let _open = self.store.scans.open();
        let (first, end) = (key::encode(from), key::encode(to));
        for guard in self.store.queues.keyspace.range(first..end) {
            let (bytes, value) = guard.into_inner()?;
            let Some(stored) = key::decode(&bytes) else {
                return Err(StoreError::Record { key: format!("{bytes:?}"), reason: "it is no key" });
            };
            found.take_before(&mut written, Some(stored));
            if found.limit.is_reached() {
                return Ok(found.records);
            }
            // A pending write of the same key is what counts.
            match written.next_if(|(key, _)| **key == stored) {
                Some((_, Some(record))) => found.put(stored, record.clone()),
                Some((_, None)) => {}
                None => found.put(stored, Self::read(stored, &value)?),
            }
            if found.limit.is_reached() {
                return Ok(found.records);
            }
        }
        found.take_before(&mut written, None);
        Ok(found.records)
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

/// What a scan has found, and how much more it may.
struct Found {
    records: Vec<(Key, Record)>,
    limit: Limit,
}

impl Found {
    fn put(&mut self, key: Key, record: Record) {
        self.limit.count(record.body_bytes());
        self.records.push((key, record));
    }

    /// Takes the pending writes below `key`, or all of them.
    fn take_before(&mut self, written: &mut Peekable<Range<'_, Key, Option<Record>>>, key: Option<Key>) {
        while !self.limit.is_reached()
            && let Some((pending, record)) =
                written.next_if(|(pending, _)| key.is_none_or(|key| **pending < key))
        {
            if let Some(record) = record {
                self.put(*pending, record.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use capstan_core::memory::MemoryStore;
    use capstan_core::{ContentType, Message, MessageId, QueueId, Seq};
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> Key {
        Key::Fresh(QueueId(1), Seq(n.into()))
    }

    /// With a body of up to three bytes.
    fn record(value: u64) -> Record {
        let (id, body) = (MessageId(value.into()), vec![0; (value % 4) as usize]);
        let (content_type, attributes, origin) = (ContentType::Bytes, Vec::new(), None);
        let (sent_at, stored_at, due) = (value, 0, 0);
        let message = Message { id, sent_at, stored_at, due, content_type, attributes, body, origin };
        Record::Message(Box::new(message))
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
                        transaction.put(key(n), record(value));
                        map.put(key(n), record(value));
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
                for (records, bytes) in [(1, 9), (3, u64::MAX), (100, u64::MAX), (100, 3), (100, 0)] {
                    let limit = Limit { records, bytes };
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
