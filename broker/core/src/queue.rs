//! A queue in memory: its policy, its positions and counts, and what is only worth remembering.

use crate::id::{Millis, Seq};
use crate::policy::Policy;
use crate::record::{State, Table};

/// A queue as the core holds it.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    pub(crate) label: String,
    pub(crate) retained: bool,
    pub(crate) document: Vec<u8>,
    pub(crate) policy: Policy,
    pub(crate) state: State,
    pub(crate) totals: Totals,
    /// The oldest message, while it is known.
    pub(crate) oldest: Option<Oldest>,
    /// When to look for expired messages, in time less outages; its entry in [`crate::Core`]'s `retention`.
    pub(crate) look_at: Option<Millis>,
}

/// The oldest message of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Oldest {
    pub(crate) table: Table,
    pub(crate) seq: Seq,
    pub(crate) sent_at: Millis,
}

impl Queue {
    pub(crate) fn new(
        label: String,
        retained: bool,
        document: Vec<u8>,
        policy: Policy,
        state: State,
    ) -> Self {
        Self {
            label,
            retained,
            document,
            policy,
            state,
            totals: Totals::default(),
            oldest: None,
            look_at: None,
        }
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
}
