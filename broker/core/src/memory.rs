//! A store in memory, for tests and for reading along: what the real one must behave like.

use std::collections::BTreeMap;
use std::convert::Infallible;

use crate::key::Key;
use crate::record::Record;
use crate::store::Store;

/// Records in a map; a commit is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStore {
    pub records: BTreeMap<Key, Record>,
}

impl Store for MemoryStore {
    type Error = Infallible;

    fn get(&self, key: Key) -> Result<Option<Record>, Infallible> {
        Ok(self.records.get(&key).cloned())
    }

    fn scan(&self, from: Key, to: Key, limit: usize) -> Result<Vec<(Key, Record)>, Infallible> {
        if from >= to {
            return Ok(Vec::new());
        }
        Ok(self.records.range(from..to).take(limit).map(|(k, r)| (*k, r.clone())).collect())
    }

    fn put(&mut self, key: Key, record: Record) {
        self.records.insert(key, record);
    }

    fn remove(&mut self, key: Key) {
        self.records.remove(&key);
    }
}
