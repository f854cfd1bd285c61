//! Which queues changed since a subscriber last asked: by a version that each commit raises.

use std::collections::{BTreeMap, BTreeSet};

use capstan_core::QueueId;
use tokio::sync::watch;

/// A point in the life of this engine. Another start of the broker has another `epoch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) epoch: u32,
    pub(crate) number: u64,
}

/// The versions at which queues changed last. One entry for each queue.
pub(super) struct Changes {
    version: watch::Sender<Version>,
    queues: BTreeMap<QueueId, u64>,
    /// When queues came or went last.
    whole: u64,
}

impl Changes {
    pub(super) fn new() -> (Self, watch::Receiver<Version>) {
        let (version, told) = watch::channel(Version { epoch: rand::random(), number: 1 });
        (Self { version, queues: BTreeMap::new(), whole: 1 }, told)
    }

    /// A commit changed these.
    pub(super) fn note(&mut self, changed: BTreeSet<QueueId>) {
        if changed.is_empty() {
            return;
        }
        let number = self.next();
        self.queues.extend(changed.into_iter().map(|id| (id, number)));
    }

    /// Queues came or went, or have another policy.
    pub(super) fn note_all(&mut self) {
        self.whole = self.next();
        self.queues.clear();
    }

    fn next(&self) -> u64 {
        self.version.send_modify(|version| version.number += 1);
        self.version.borrow().number
    }

    /// The version now, and what changed after `since`; `None` means everything.
    pub(super) fn since(&self, since: Option<Version>) -> (Version, Option<Vec<QueueId>>) {
        let now = *self.version.borrow();
        let known = since.filter(|since| since.epoch == now.epoch && since.number >= self.whole);
        let changed = known.map(|since| {
            let later = |(_, at): &(&QueueId, &u64)| **at > since.number;
            self.queues.iter().filter(later).map(|(id, _)| *id).collect()
        });
        (now, changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_told_once_and_everything_when_it_must_be() {
        let (mut changes, _told) = Changes::new();
        let (start, all) = changes.since(None);
        assert_eq!(all, None);
        changes.note(BTreeSet::from([QueueId(1), QueueId(2)]));
        changes.note(BTreeSet::from([QueueId(2)]));
        let (later, changed) = changes.since(Some(start));
        assert_eq!(changed, Some(vec![QueueId(1), QueueId(2)]));
        assert_eq!(
            changes.since(Some(Version { number: later.number - 1, ..later })).1,
            Some(vec![QueueId(2)])
        );
        assert_eq!(changes.since(Some(later)), (later, Some(Vec::new())));
        assert_eq!(changes.since(Some(Version { epoch: later.epoch ^ 1, ..later })).1, None, "another start");
        changes.note_all();
        assert_eq!(changes.since(Some(later)).1, None);
    }
}
