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

    /// All objects, or those of one namespace.
    pub fn within(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<V>> {
        let is_within = move |name: &String| namespace.is_none_or(|namespace| namespace == name);
        self.namespaces
            .iter()
            .filter(move |(name, _)| is_within(name))
            .flat_map(|(_, objects)| objects.values())
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

    /// Replaces all objects, or those of one namespace, and gives back what there was.
    pub fn replace(&mut self, namespace: Option<&str>, listed: Self) -> Self {
        let Some(namespace) = namespace else { return std::mem::replace(self, listed) };
        let old = self.namespaces.remove(namespace);
        self.namespaces.extend(listed.namespaces);
        Self { namespaces: old.map(|old| (namespace.to_owned(), old)).into_iter().collect() }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(list: &[(&str, &str)]) -> Objects<u32> {
        let mut objects = Objects::default();
        list.iter().for_each(|(namespace, name)| {
            objects.insert(Key::new(namespace, name), Arc::new(1));
        });
        objects
    }

    fn names(objects: &Objects<u32>) -> Vec<String> {
        let names = objects.namespaces.iter();
        names.flat_map(|(namespace, all)| all.keys().map(move |name| format!("{namespace}/{name}"))).collect()
    }

    #[test]
    fn a_list_of_one_namespace_replaces_that_one_alone() {
        let mut all = objects(&[("a", "1"), ("a", "2"), ("b", "1")]);
        let old = all.replace(Some("a"), objects(&[("a", "3")]));
        assert_eq!((names(&old).join(" "), names(&all).join(" ")), ("a/1 a/2".into(), "a/3 b/1".into()));
        assert_eq!(names(&all.replace(Some("c"), Objects::default())), [""; 0]);
        let old = all.replace(None, objects(&[("d", "1")]));
        assert_eq!((names(&old).join(" "), names(&all).join(" ")), ("a/3 b/1".into(), "d/1".into()));
        assert_eq!(
            (all.within(Some("d")).count(), all.within(Some("a")).count(), all.within(None).count()),
            (1, 0, 1)
        );
    }
}
