//! What is asked for, what there is to do, and the formula between them.

use std::time::Duration;

/// A Consumer's `spec.scaling`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// 0 to 1000, at most `max`.
    pub min: u32,
    /// 1 to 1000.
    pub max: u32,
    /// Messages for each pod, at least 1.
    pub backlog_per_replica: u32,
    /// A message that waits for longer asks for more pods than the formula.
    pub max_oldest_age: Option<Duration>,
    /// Pods go when they were not needed for so long.
    pub scale_down_stabilization: Duration,
    /// The last ones go when there was nothing to do for so long.
    pub idle_period: Duration,
}

/// What there is to do for a Consumer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// Messages that wait for a pod.
    pub ready: u64,
    /// Messages that pods have.
    pub leased: u64,
    /// Delayed messages that are due soon.
    pub due: u64,
    /// How long the oldest of `ready` has been there.
    pub oldest_ready: Option<Duration>,
    /// How long nothing was sent or handled, where that is known: what comes and is handled between two looks is in no number.
    pub quiet_for: Option<Duration>,
}

impl Demand {
    /// Messages that need a pod now, or soon.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.ready.saturating_add(self.leased).saturating_add(self.due)
    }

    /// Whether there is something to do, or was within `lately`.
    #[must_use]
    pub fn is_active(&self, lately: Duration) -> bool {
        self.total() > 0 || self.quiet_for.is_some_and(|quiet| quiet < lately)
    }
}

impl Rule {
    /// Pods for so much, without bounds: `total / backlog_per_replica`, rounded up.
    #[must_use]
    pub fn pods(&self, demand: &Demand) -> u32 {
        let pods = demand.total().div_ceil(u64::from(self.backlog_per_replica.max(1)));
        u32::try_from(pods).unwrap_or(u32::MAX)
    }

    /// Whether the oldest message has waited for too long.
    pub(crate) fn is_late(&self, demand: &Demand) -> bool {
        self.max_oldest_age.zip(demand.oldest_ready).is_some_and(|(most, age)| age > most)
    }
}
