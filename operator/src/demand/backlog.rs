//! What is kept of what a Broker says of a queue.

use std::time::{Duration, Instant};

use capstan_api::control::QueueState;
use capstan_scaling::{Demand, Outcomes};

/// What decides how many pods a queue needs. Much smaller than what it comes from: there may be ten thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Messages that wait for a pod.
    pub(crate) ready: u64,
    /// Messages that pods have.
    pub(crate) leased: u64,
    /// Delayed messages that are due within [`capstan_api::control::DUE_SOON`].
    pub(crate) due_soon: u64,
    /// Batches that the leased ones were delivered in.
    pub(crate) batches: u64,
    /// Since when the oldest ready message waits.
    pub(crate) oldest_ready: Option<Instant>,
    /// What became of deliveries since the broker's start, for [`capstan_scaling::Calls`].
    pub(crate) outcomes: Outcomes,
}

impl Backlog {
    /// What was said at `now`.
    pub(super) fn new(state: &QueueState, now: Instant) -> Self {
        let age = state.oldest_ready_age_ms.map(Duration::from_millis);
        Self {
            ready: state.ready,
            leased: state.leased,
            due_soon: state.due_soon,
            batches: state.batches,
            // An age of before this machine's start is as old as can be told.
            oldest_ready: age.map(|age| now.checked_sub(age).unwrap_or(now)),
            outcomes: Outcomes {
                succeeded: state.totals.acknowledged,
                failed: state.totals.retried.saturating_add(state.totals.lease_expired),
            },
        }
    }

    /// Whether somebody who saw the other would do the same now. Ages grow by themselves.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let numbers = |backlog: &Self| Self { oldest_ready: None, ..*backlog };
        numbers(self) == numbers(other) && self.oldest_ready.is_some() == other.oldest_ready.is_some()
    }

    /// What there is to do at `now`.
    pub(crate) fn demand(&self, now: Instant) -> Demand {
        Demand {
            ready: self.ready,
            leased: self.leased,
            due: self.due_soon,
            oldest_ready: self.oldest_ready.map(|since| now.saturating_duration_since(since)),
        }
    }
}
