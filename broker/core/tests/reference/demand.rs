//! What tells how many consumers are needed: who has leases, what is due soon, and since when the oldest is ready.

use capstan_core::{Core, QueueId};

use super::{Model, State};
use crate::{AHEAD_MAX, Run};

/// A few seconds, and often more messages than may be known to be due.
const AHEAD: u64 = 6_000;
/// When a message came back is known within so much.
const ABOUT: u64 = 1_000;

impl Run {
    pub(crate) fn compare_demand(&mut self) {
        let ids: Vec<QueueId> = self.core.views().map(|view| view.id).collect();
        self.compare_due_soon(&ids);
        for id in ids {
            let mut holders: Vec<u64> = self.core.holders(id).map(|holder| holder.0).collect();
            holders.sort_unstable();
            assert_eq!(holders, self.model.holders(id, self.forgotten), "{id:?}");
            let batches = self.core.view(id).unwrap().batches;
            assert_eq!(batches, self.model.pulls_open(id), "{id:?}");
            let (since, exact) =
                (self.core.ready_since(id, &self.store).unwrap(), self.model.ready_since(id));
            assert_eq!(since.is_some(), exact.is_some(), "{id:?}");
            let is_near = |(since, exact): (u64, u64)| since <= exact && exact - since < ABOUT;
            assert!(since.zip(exact).is_none_or(is_near), "{id:?}: {since:?} for {exact:?}");
        }
    }

    /// What is due soon is known without a look while there is room, and a look finds what is missing.
    fn compare_due_soon(&mut self, ids: &[QueueId]) {
        let known = |core: &Core| ids.iter().map(|id| core.due_soon(*id) as usize).collect::<Vec<_>>();
        let exact = |model: &Model, within: u64| {
            let soon = |state| matches!(state, State::Delayed { due } if due < self.now + within);
            ids.iter().map(|id| model.count(*id, soon)).collect::<Vec<_>>()
        };
        let before = known(&self.core);
        let delayed = exact(&self.model, u64::MAX / 2);
        assert!(
            before.iter().zip(&delayed).all(|(known, delayed)| known <= delayed),
            "{before:?} {delayed:?}"
        );
        while !self.core.look_ahead(self.now, AHEAD, &self.store).unwrap().is_empty() {}
        let (known, exact) = (known(&self.core), exact(&self.model, AHEAD));
        if exact.iter().sum::<usize>() <= AHEAD_MAX {
            assert_eq!(known, exact);
        } else {
            assert!(known.iter().zip(&exact).all(|(known, exact)| known <= exact), "{known:?} {exact:?}");
            assert_eq!(known.iter().sum::<usize>(), AHEAD_MAX, "as many as may be known");
        }
    }
}

impl Model {
    /// Who has the leases of a queue: the numbers of pulls, 0 for those up to `forgotten`.
    fn holders(&self, queue: QueueId, forgotten: u64) -> Vec<u64> {
        let leased = |m: &&super::Message| m.queue == queue && matches!(m.state, State::Leased { .. });
        let pulls = self.messages.iter().filter(leased).map(|m| if m.pull > forgotten { m.pull } else { 0 });
        let mut holders: Vec<u64> = pulls.collect();
        holders.sort_unstable();
        holders
    }

    fn ready_since(&self, queue: QueueId) -> Option<u64> {
        let ready = |m: &&super::Message| m.queue == queue && m.state == State::Ready;
        self.messages.iter().filter(ready).map(|m| m.since).min()
    }
}
