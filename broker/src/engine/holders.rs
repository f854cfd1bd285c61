//! Who is who: a number for each pod that pulls, by which its leases and its waiting pulls are known.

use std::collections::{BTreeMap, BTreeSet};

use capstan_api::Name;
use capstan_api::workload::Workload;
use capstan_core::Holder;

/// So many numbers that nobody uses any more may be kept, beside as many as are used.
const SPARE: usize = 1024;

/// Most pods that have a number, beside those that retire: more than a broker has connections for, over the life of a lease.
const HOLDERS_MAX: usize = 150_000;

/// The workload that pods are of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) namespace: Name,
    pub(crate) workload: Workload,
}

/// A pod that pulls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Puller {
    pub(crate) owner: Owner,
    /// Its name, of at most [`capstan_api::workload::OBJECT_NAME_MAX`] bytes.
    pub(crate) pod: String,
}

/// The numbers of pods. A number is never given to another pod.
#[derive(Debug)]
pub(super) struct Holders {
    numbers: BTreeMap<Owner, BTreeMap<String, Holder>>,
    count: usize,
    last: u64,
    /// Pulls that got none since the last look at what is used.
    refused: usize,
    /// With so many it is time to look: each is looked at about once for each new one.
    most: usize,
}

impl Default for Holders {
    fn default() -> Self {
        Self { numbers: BTreeMap::new(), count: 0, last: Holder::UNKNOWN.0, refused: 0, most: SPARE }
    }
}

impl Holders {
    /// The number of a pod that pulls; nobody's when there are too many.
    pub(super) fn of_puller(&mut self, puller: &Puller) -> Holder {
        match self.find(&puller.owner, &puller.pod) {
            Some(known) => known,
            None if self.count < HOLDERS_MAX => self.number(&puller.owner, &puller.pod),
            None => {
                self.refused += 1;
                Holder::UNKNOWN
            }
        }
    }

    /// The number of a pod; a new one when it has none.
    pub(super) fn number(&mut self, owner: &Owner, pod: &str) -> Holder {
        if let Some(known) = self.find(owner, pod) {
            return known;
        }
        self.last += 1;
        self.count += 1;
        let holder = Holder(self.last);
        self.numbers.entry(owner.clone()).or_default().insert(pod.to_owned(), holder);
        holder
    }

    fn find(&self, owner: &Owner, pod: &str) -> Option<Holder> {
        self.numbers.get(owner).and_then(|pods| pods.get(pod)).copied()
    }

    /// The pods of a workload that have a number.
    pub(super) fn of(&self, owner: &Owner) -> impl Iterator<Item = (Holder, &str)> {
        self.numbers.get(owner).into_iter().flatten().map(|(pod, holder)| (*holder, pod.as_str()))
    }

    /// Whether it is time for [`Self::keep`].
    pub(super) fn is_full(&self) -> bool {
        self.count + self.refused >= self.most
    }

    /// Forgets all others.
    pub(super) fn keep(&mut self, used: &BTreeSet<Holder>) {
        for pods in self.numbers.values_mut() {
            pods.retain(|_, holder| used.contains(holder));
        }
        self.numbers.retain(|_, pods| !pods.is_empty());
        self.count = self.numbers.values().map(BTreeMap::len).sum();
        self.refused = 0;
        self.most = (2 * self.count + SPARE).min(HOLDERS_MAX.max(self.count + SPARE));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn owner(name: &str) -> Owner {
        Owner {
            namespace: Name::new("shop").unwrap(),
            workload: format!("Deployment/{name}").parse().unwrap(),
        }
    }

    #[test]
    fn a_pod_keeps_its_number_while_it_is_used_and_no_other_has_it() {
        let mut holders = Holders::default();
        let (one, two) = (holders.number(&owner("a"), "pod"), holders.number(&owner("b"), "pod"));
        assert_ne!(one, two, "of another workload");
        assert!(one != Holder::UNKNOWN && two != Holder::UNKNOWN);
        assert_eq!(holders.number(&owner("a"), "pod"), one);
        assert_eq!(holders.of(&owner("a")).collect::<Vec<_>>(), [(one, "pod")]);
        for pod in 0.. {
            if holders.is_full() {
                break;
            }
            holders.number(&owner("a"), &format!("pod-{pod}"));
        }
        assert_eq!(holders.count, SPARE);
        holders.keep(&BTreeSet::from([two]));
        assert_eq!((holders.count, holders.is_full()), (1, false));
        assert_eq!(holders.number(&owner("b"), "pod"), two);
        assert!(holders.number(&owner("a"), "pod").0 > SPARE as u64, "a new one");
    }

    #[test]
    fn they_are_bounded_and_a_pod_that_has_a_number_keeps_it() {
        let mut holders = Holders::default();
        let pull = |holders: &mut Holders, pod: usize| {
            holders.of_puller(&Puller { owner: owner("a"), pod: format!("pod-{pod}") })
        };
        let used: BTreeSet<Holder> = (0..HOLDERS_MAX).map(|pod| pull(&mut holders, pod)).collect();
        assert_eq!(used.len(), HOLDERS_MAX);
        holders.keep(&used);
        assert_eq!(pull(&mut holders, 7), Holder(8));
        let (looks, more) = (0, HOLDERS_MAX..HOLDERS_MAX + 10 * SPARE);
        let looks = more.fold(looks, |looks, pod| {
            assert_eq!(pull(&mut holders, pod), Holder::UNKNOWN);
            let is_full = holders.is_full();
            if is_full {
                holders.keep(&used);
            }
            looks + usize::from(is_full)
        });
        assert_eq!(looks, 10, "it is looked now and then whether some are not used any more");
        holders.keep(&BTreeSet::new());
        assert_ne!(pull(&mut holders, HOLDERS_MAX), Holder::UNKNOWN);
    }
}
