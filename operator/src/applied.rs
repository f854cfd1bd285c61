//! What was applied last, so that nothing is applied again while nobody changed anything.
//!
//! It is lost with the process. Then everything is applied once more, which the API server sees is no change.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// The state of an object right after it was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Of what was applied.
    pub(crate) content: u64,
    pub(crate) uid: String,
    /// What changes when somebody writes the object: its generation, or its resource version where it has none.
    pub(crate) version: String,
}

/// One mark per object.
#[derive(Debug)]
pub(crate) struct Applied<K>(Mutex<HashMap<K, Mark>>);

impl<K> Default for Applied<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq> Applied<K> {
    /// The last mark of an object.
    pub(crate) fn get(&self, key: &K) -> Option<Mark> {
        self.marks().get(key).cloned()
    }

    /// Remembers a mark.
    pub(crate) fn set(&self, key: K, mark: Mark) {
        self.marks().insert(key, mark);
    }

    /// Forgets the objects for which `is_gone` holds.
    pub(crate) fn forget(&self, is_gone: impl Fn(&K) -> bool) {
        self.marks().retain(|key, _| !is_gone(key));
    }

    fn marks(&self) -> MutexGuard<'_, HashMap<K, Mark>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A hash of what is to be applied.
pub(crate) fn content<P: Serialize>(object: &P) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&serde_json::to_vec(object).unwrap_or_default())
}
