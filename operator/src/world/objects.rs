//! All objects of one kind, by namespace and name.

use std::collections::BTreeMap;
use std::sync::Arc;

use capstan_crds::Key;

/// All objects of one kind that the cluster has.
#[derive(Debug)]
pub struct Objects<V> {
    namespaces: BTreeMap<String, BTreeMap<String, Arc<V>>>,
}

// The objects are shared, so nothing is asked of them.
impl<V> Clone for Objects<V> {
    fn clone(&self) -> Self {
        Self { namespaces: self.namespaces.clone() }
    }
}

impl<V> Default for Objects<V> {
    fn default() -> Self {
        Self { namespaces: BTreeMap::new() }
    }
}

impl<V> Objects<V> {
    /// One object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<V>> {
        self.namespaces.get(&key.namespace)?.get(&key.name).cloned()
    }

    /// All objects of a namespace, by name.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Vec<Arc<V>> {
        self.namespaces.get(namespace).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// All objects, by namespace and name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<V>> {
        self.namespaces.values().flat_map(BTreeMap::values)
    }

    /// The namespaces that have some.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.keys().map(String::as_str)
    }

    /// Puts an object in, and gives back the one it replaces.
    pub fn insert(&mut self, key: Key, object: Arc<V>) -> Option<Arc<V>> {
        self.namespaces.entry(key.namespace).or_default().insert(key.name, object)
    }

    /// Takes an object out.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<V>> {
        let names = self.namespaces.get_mut(&key.namespace)?;
        let removed = names.remove(&key.name);
        if names.is_empty() {
            self.namespaces.remove(&key.namespace);
        }
        removed
    }
}
