//! Pods that are about to go: they are leased nothing more.

use std::collections::{BTreeMap, HashSet};

use capstan_core::Holder;

use super::holders::Owner;

/// Most pods that retire, of all workloads; each takes some hundred bytes.
pub(crate) const RETIRING_ALL_MAX: usize = 100_000;

/// There are more than [`RETIRING_ALL_MAX`]: nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{would_be} pods would retire, of all workloads of this broker, and it keeps {RETIRING_ALL_MAX}")]
pub(crate) struct TooManyRetire {
    would_be: usize,
}

/// The pods that retire, by workload.
#[derive(Debug)]
pub(super) struct Retiring {
    lists: BTreeMap<Owner, List>,
    /// All of them.
    holders: HashSet<Holder>,
    /// When the first list ends, in the engine's time; far away when there is none.
    next_end: u64,
}

#[derive(Debug)]
struct List {
    until: u64,
    holders: Vec<Holder>,
}

impl Default for Retiring {
    fn default() -> Self {
        Self { lists: BTreeMap::new(), holders: HashSet::new(), next_end: u64::MAX }
    }
}

impl Retiring {
    /// Whether nothing is to be leased to this one.
    pub(super) fn has(&self, holder: Holder) -> bool {
        // Nearly always there are none.
        !self.holders.is_empty() && self.holders.contains(&holder)
    }

    /// All of them.
    pub(super) fn holders(&self) -> impl Iterator<Item = Holder> {
        self.holders.iter().copied()
    }

    /// Whether there is room for a list of `count` pods in place of the workload's own.
    ///
    /// # Errors
    /// [`TooManyRetire`].
    pub(super) fn room(&self, owner: &Owner, count: usize) -> Result<(), TooManyRetire> {
        let own = self.lists.get(owner).map_or(0, |list| list.holders.len());
        let would_be = self.holders.len() - own + count;
        if would_be > RETIRING_ALL_MAX { Err(TooManyRetire { would_be }) } else { Ok(()) }
    }

    /// These pods of a workload retire until then, and no others; says whether some do no more. Each is there once.
    pub(super) fn put(&mut self, owner: Owner, holders: Vec<Holder>, until: u64) -> bool {
        let before = self.remove(&owner);
        if !holders.is_empty() {
            self.holders.extend(&holders);
            self.lists.insert(owner, List { until, holders });
        }
        self.find_next_end();
        before.iter().any(|holder| !self.holders.contains(holder))
    }

    /// Ends the lists whose time is over; says whether there was one.
    pub(super) fn end(&mut self, now: u64) -> bool {
        if now < self.next_end {
            return false;
        }
        let over = self.lists.iter().filter(|(_, list)| list.until <= now).map(|(owner, _)| owner.clone());
        for owner in over.collect::<Vec<_>>() {
            self.remove(&owner);
        }
        self.find_next_end();
        true
    }

    fn remove(&mut self, owner: &Owner) -> Vec<Holder> {
        let holders = self.lists.remove(owner).map(|list| list.holders).unwrap_or_default();
        for holder in &holders {
            self.holders.remove(holder);
        }
        holders
    }

    fn find_next_end(&mut self) {
        self.next_end = self.lists.values().map(|list| list.until).min().unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::super::holders::tests::owner;
    use super::*;

    #[test]
    fn a_list_replaces_its_workloads_own_and_ends_by_time() {
        let mut retiring = Retiring::default();
        let [one, two, three] = [1, 2, 3].map(Holder);
        assert!(!retiring.put(owner("a"), vec![one, two], 10));
        assert!(!retiring.put(owner("b"), vec![three], 20));
        assert!(!retiring.put(owner("a"), vec![two, one], 25), "the same once more");
        assert!(retiring.put(owner("a"), vec![two], 30), "one is free");
        let has = |retiring: &Retiring| [one, two, three].map(|holder| retiring.has(holder));
        assert_eq!(has(&retiring), [false, true, true]);
        assert!(!retiring.end(19));
        assert!(retiring.end(20));
        assert_eq!(has(&retiring), [false, true, false]);
        assert!(!retiring.end(29));
        assert!(retiring.put(owner("a"), Vec::new(), 40));
        assert_eq!(has(&retiring), [false; 3]);
        assert!(!retiring.end(u64::MAX - 1), "there is none");
        assert!(!retiring.has(Holder::UNKNOWN));
    }

    #[test]
    fn lists_are_bounded_in_all() {
        let mut retiring = Retiring::default();
        retiring.put(owner("a"), (1..=RETIRING_ALL_MAX as u64).map(Holder).collect(), 10);
        assert_eq!(retiring.room(&owner("a"), RETIRING_ALL_MAX), Ok(()), "in place of it");
        assert_eq!(retiring.room(&owner("b"), 1), Err(TooManyRetire { would_be: RETIRING_ALL_MAX + 1 }));
        retiring.end(10);
        assert_eq!(retiring.room(&owner("b"), 1), Ok(()));
    }
}
