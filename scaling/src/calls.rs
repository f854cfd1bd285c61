//! How many of the last calls failed, from counters that only grow.

use std::collections::VecDeque;
use std::time::Duration;

/// How far back is looked.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Of two neighbouring gaps between samples at least one is as long as this, which bounds their number.
const APART: Duration = Duration::from_secs(5);
/// Fewer outcomes than these prove nothing.
const LEAST: u64 = 10;

/// What became of deliveries, since the broker's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcomes {
    pub succeeded: u64,
    /// Retried, or not settled in time. What was released never began.
    pub failed: u64,
}

/// The outcomes of the last [`WINDOW`].
#[derive(Debug, Clone, Default)]
pub struct Calls {
    samples: VecDeque<(Duration, Outcomes)>,
    last: (Duration, Outcomes),
}

impl Calls {
    /// Takes in what the counters say at `now`. Where they fell, the broker was started anew: what was before is forgotten.
    pub fn learn(&mut self, outcomes: Outcomes, now: Duration) {
        let (at, last) = self.last;
        let fell = outcomes.succeeded < last.succeeded || outcomes.failed < last.failed;
        if fell {
            self.samples.clear();
        } else if now.saturating_sub(at) >= APART
            && self.samples.back().is_some_and(|(_, back)| *back != last)
        {
            // Nobody asked for a while: what was known by then is not of now.
            self.samples.push_back((at, last));
        }
        self.last = (now, outcomes);
        // The first one of those in the window is what later ones are compared with.
        while self.samples.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= WINDOW) {
            self.samples.pop_front();
        }
        let is_due = self.samples.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= APART);
        if is_due {
            self.samples.push_back((now, outcomes));
        }
    }

    /// The share of deliveries that failed, 0 to 1; `None` when there were none.
    #[must_use]
    pub fn error_ratio(&self) -> Option<f64> {
        let Outcomes { succeeded, failed } = self.recent();
        let all = succeeded.saturating_add(failed);
        #[allow(clippy::cast_precision_loss)]
        (all > 0).then(|| failed as f64 / all as f64)
    }

    /// Whether more than half failed, of enough to tell.
    #[must_use]
    pub fn are_failing(&self) -> bool {
        let Outcomes { succeeded, failed } = self.recent();
        failed > succeeded && succeeded.saturating_add(failed) >= LEAST
    }

    fn recent(&self) -> Outcomes {
        let (_, last) = self.last;
        let first = self.samples.front().map_or(last, |(_, first)| *first);
        Outcomes {
            succeeded: last.succeeded.saturating_sub(first.succeeded),
            failed: last.failed.saturating_sub(first.failed),
        }
    }
}
