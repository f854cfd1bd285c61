//! What is known of one Queue.

use capstan_api::control::{ApplicationState, QueueState};
use capstan_scaling::{Calls, Demand, Outcomes};
use std::time::Duration;
use tokio::time::Instant;

use super::Numbers;

#[derive(Debug, Default)]
pub(super) struct Known {
    demand: Demand,
    /// When something was sent or handled last, as far as is known.
    active_at: Option<Instant>,
    /// Messages that were sent, delivered and acknowledged since the broker's start.
    moved: Option<[u64; 3]>,
    /// When the demand was so.
    at: Option<Instant>,
    batches: u64,
    outcomes: Outcomes,
    calls: Calls,
    application: Option<ApplicationState>,
}

impl Known {
    pub(super) fn learn(&mut self, queue: QueueState, now: Instant, start: Instant) {
        self.demand = Demand {
            ready: queue.ready,
            leased: queue.leased,
            due: queue.due_soon,
            oldest_ready: queue.oldest_ready_age_ms.map(Duration::from_millis),
            quiet_for: None,
        };
        let moved = [queue.totals.sent, queue.totals.delivered, queue.totals.acknowledged];
        if self.moved.replace(moved).is_some_and(|before| before != moved) {
            self.active_at = Some(now);
        }
        self.at = Some(now);
        self.batches = queue.batches;
        let totals = queue.totals;
        let failed = totals.retried.saturating_add(totals.lease_expired);
        self.outcomes = Outcomes { succeeded: totals.acknowledged, failed };
        self.calls.learn(self.outcomes, now.duration_since(start));
        self.application = queue.application;
    }

    /// Takes in what was so at some time after `asked`.
    pub(super) fn learn_application(&mut self, application: Option<ApplicationState>, asked: Instant) {
        if self.at.is_none_or(|at| at <= asked) {
            self.application = application;
        }
    }

    /// As of now: ages grow, and what failed long ago counts no more.
    pub(super) fn numbers(&self, now: Instant, start: Instant) -> Numbers {
        let since = self.at.map_or(Duration::ZERO, |at| now.duration_since(at));
        let oldest_ready = self.demand.oldest_ready.map(|age| age + since);
        let mut calls = self.calls.clone();
        calls.learn(self.outcomes, now.duration_since(start));
        Numbers {
            demand: Demand {
                oldest_ready,
                quiet_for: self.active_at.map(|at| now.duration_since(at)),
                ..self.demand
            },
            batches: self.batches,
            error_ratio: calls.error_ratio(),
            are_failing: calls.are_failing(),
            application: self.application.clone(),
        }
    }
}
