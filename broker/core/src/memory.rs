//! A store in memory, for tests and for reading along: what the real one must behave like.

use std::collections::BTreeMap;
use std::convert::Infallible;

use crate::key::Key;
use crate::record::Record;
use crate::store::{Limit, Store};

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

    fn scan(&self, from: Key, to: Key, mut limit: Limit) -> Result<Vec<(Key, Record)>, Infallible> {
        let mut found = Vec::new();
        if from >= to {
            return Ok(found);
        }
        for (key, record) in self.records.range(from..to) {
            if limit.is_reached() {
                break;
            }
            limit.count(record.body_bytes());
            found.push((*key, record.clone()));
        }
        Ok(found)
    }

    fn put(&mut self, key: Key, record: Record) {
        self.records.insert(key, record);
    }

    fn remove(&mut self, key: Key) {
        self.records.remove(&key);
    }
}
