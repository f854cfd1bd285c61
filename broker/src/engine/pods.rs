//! Which pods have messages or ask for some, and which are to get no more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use capstan_api::control::{PodState, Pods};
use capstan_core::Holder;
use tokio::sync::oneshot;

use super::Engine;
use super::holders::{Owner, Puller};
use super::retiring::TooManyRetire;
use crate::directory::Entry;

/// A question for the pods of a workload.
pub(super) struct Ask {
    pub(super) owner: Owner,
    /// First these retire, for so many milliseconds, and no others.
    pub(super) retire: Option<(BTreeSet<String>, u64)>,
    pub(super) reply: oneshot::Sender<PodsAnswer>,
}

/// The answer to an [`Ask`].
pub(super) type PodsAnswer = Result<Pods, TooManyRetire>;

impl Engine {
    /// The number of a pod, by which its leases are known.
    pub(super) fn holder(&mut self, puller: &Puller) -> Holder {
        if self.holders.is_full() {
            self.forget_holders();
        }
        self.holders.of_puller(puller)
    }

    /// Forgets the pods that have nothing, ask for nothing, and do not retire.
    fn forget_holders(&mut self) {
        let ids: Vec<_> = self.core.views().map(|view| view.id).collect();
        let mut used: BTreeSet<Holder> = self.retiring.holders().collect();
        used.extend(ids.into_iter().flat_map(|id| self.core.holders(id)));
        used.extend(self.waiters.pulls().chain(&self.overdue).map(|waiting| waiting.pull.holder));
        self.holders.keep(&used);
    }

    /// Retires pods if that is asked for, and tells of all of their workload.
    pub(super) fn pods(
        &mut self,
        owner: &Owner,
        retire: Option<(BTreeSet<String>, u64)>,
        now: u64,
    ) -> PodsAnswer {
        if let Some((mut pods, lasts)) = retire {
            if lasts == 0 {
                pods.clear();
            }
            self.retiring.room(owner, pods.len())?;
            if self.holders.is_full() {
                self.forget_holders();
            }
            let holders = pods.iter().map(|pod| self.holders.number(owner, pod)).collect();
            if self.retiring.put(owner.clone(), holders, now.saturating_add(lasts)) {
                // Those that retire no more may have something.
                self.awake.extend(self.waiters.queues());
            }
        }
        Ok(self.count_pods(owner))
    }

    /// Pods whose time to retire is over are leased messages again.
    pub(super) fn end_retiring(&mut self, now: u64) {
        if self.retiring.end(now) {
            self.awake.extend(self.waiters.queues());
        }
    }

    fn count_pods(&self, owner: &Owner) -> Pods {
        let mut states: BTreeMap<Holder, PodState> = BTreeMap::new();
        for (holder, name) in self.holders.of(owner) {
            let (name, retiring) = (name.to_owned(), self.retiring.has(holder));
            states.insert(holder, PodState { name, leased: 0, waiting: 0, retiring });
        }
        for waiting in self.waiters.pulls().chain(&self.overdue).filter(|one| !one.reply.is_closed()) {
            if let Some(state) = states.get_mut(&waiting.pull.holder) {
                state.waiting += 1;
            }
        }
        let mut leased_elsewhere = 0;
        let directory = Arc::clone(&self.directory.borrow());
        for entry in directory.of_namespace(owner.namespace.as_str()) {
            for holder in self.core.holders(entry.id) {
                // A queue may have been another workload's when it was leased.
                if let Some(state) = states.get_mut(&holder) {
                    state.leased += 1;
                } else if holder == Holder::UNKNOWN && is_of(entry, owner) {
                    leased_elsewhere += 1;
                }
            }
        }
        let has_some = |state: &PodState| state.leased > 0 || state.waiting > 0 || state.retiring;
        let mut pods: Vec<PodState> = states.into_values().filter(has_some).collect();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        Pods { pods, leased_elsewhere }
    }
}

/// Whether the workload's pods consume the queue.
fn is_of(entry: &Entry, owner: &Owner) -> bool {
    let push = entry.policy.consumer.as_ref().and_then(|consumer| consumer.push.as_ref());
    push.is_some_and(|push| push.workload == owner.workload)
}
