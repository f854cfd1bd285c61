//! A queue in memory: its policy, its positions and counts, and what is only worth remembering.

use std::collections::BTreeMap;

use crate::command::Refusal;
use crate::front::Taken;
use crate::gaps::Gaps;
use crate::id::{Holder, Millis, Seq};
use crate::policy::Policy;
use crate::record::{Delivery, Purge, QueueRecord, State, Table, Times};
use crate::remembered::Remembered;

/// A queue as the core holds it.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    pub(crate) label: String,
    pub(crate) retained: bool,
    pub(crate) times: Times,
    pub(crate) document: Vec<u8>,
    pub(crate) policy: Policy,
    pub(crate) state: State,
    pub(crate) totals: Totals,
    /// How many messages of each pull are still leased. Bounded by [`crate::limits::LEASED_MAX`].
    pub(crate) batches: BTreeMap<u64, u32>,
    /// What is leased. Bounded by [`crate::limits::LEASED_MAX`].
    pub(crate) leased: BTreeMap<Seq, Leased>,
    /// When messages came back.
    pub(crate) taken: Taken,
    /// What the last purge has left to remove.
    pub(crate) purge: Option<Purge>,
    /// Where the tables hold nothing.
    pub(crate) gaps: [Gaps; 2],
    /// The same of what purges have left to remove, and of its deliveries.
    pub(crate) swept: Option<Box<[Gaps; 3]>>,
    /// Why the last trial to move a dead message on failed.
    pub(crate) blocked: Option<Refusal>,
    /// Sends that may be repeated.
    pub(crate) sends: Remembered,
    /// The oldest message of each table, while it is known.
    pub(crate) oldest: [Option<Oldest>; 2],
    /// When to look for expired messages, in time less outages; its entry in [`crate::Core`]'s `retention`.
    pub(crate) look_at: Option<Millis>,
}

/// A leased message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leased {
    /// As it is stored.
    pub(crate) delivery: Delivery,
    pub(crate) holder: Holder,
}

/// The oldest message of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Oldest {
    pub(crate) table: Table,
    pub(crate) seq: Seq,
    pub(crate) sent_at: Millis,
}

impl Queue {
    pub(crate) fn new(record: QueueRecord, policy: Policy, state: State) -> Self {
        let QueueRecord { label, retained, times, document } = record;
        let gaps = [Table::Fresh, Table::Parked].map(|_| Gaps::new(Vec::new(), state.tail));
        Self {
            label,
            retained,
            times,
            document,
            policy,
            state,
            totals: Totals::default(),
            gaps,
            swept: None,
            batches: BTreeMap::new(),
            leased: BTreeMap::new(),
            taken: Taken::default(),
            purge: None,
            blocked: None,
            sends: Remembered::default(),
            oldest: [None; 2],
            look_at: None,
        }
    }

    /// A message of a pull is leased.
    pub(crate) fn enter_batch(&mut self, batch: u64) {
        *self.batches.entry(batch).or_default() += 1;
    }

    /// A message of a pull is no longer leased. Says whether it was the last one.
    pub(crate) fn leave_batch(&mut self, batch: u64) -> bool {
        let Some(leased) = self.batches.get_mut(&batch) else {
            return false;
        };
        *leased -= 1;
        let last = *leased == 0;
        if last {
            self.batches.remove(&batch);
        }
        last
    }

    /// The lease of a message ends at another time; who has it stays.
    pub(crate) fn extend(&mut self, seq: Seq, delivery: &Delivery) {
        if let Some(leased) = self.leased.get_mut(&seq) {
            leased.delivery.clone_from(delivery);
        }
    }

    /// How many more pulls may lease messages at once; `None` when there is no limit.
    pub(crate) fn pulls_left(&self) -> Option<usize> {
        let most = self.policy.consumer.as_ref()?.max_concurrency?;
        Some((most as usize).saturating_sub(self.batches.len()))
    }

    /// Whether a message is known to be gone, whatever records are left of it.
    pub(crate) fn is_gone(&self, seq: Seq) -> bool {
        [Table::Fresh, Table::Parked].into_iter().all(|table| self.is_gone_from(table, seq))
    }

    /// Whether a table is known not to hold a message. Nothing may be read there: the store is free to forget that it was
    /// removed.
    pub(crate) fn is_gone_from(&self, table: Table, seq: Seq) -> bool {
        seq < self.low(table) || self.gaps[table as usize].contains(seq)
    }

    /// Takes the next place among returned and dead messages.
    pub(crate) fn take_order(&mut self) -> crate::id::Order {
        let order = self.state.next_order;
        self.state.next_order = order.next();
        order
    }
}

/// What happened in a queue since the core was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    pub sent: u64,
    pub delivered: u64,
    pub acknowledged: u64,
    pub retried: u64,
    pub released: u64,
    pub lease_expired: u64,
    pub dead_lettered: u64,
    pub dropped: u64,
    pub expired: u64,
    pub purged: u64,
    /// Sends, not messages, that were repeated and stored nothing.
    pub duplicate_sends: u64,
}
