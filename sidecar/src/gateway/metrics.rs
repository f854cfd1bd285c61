//! What the gateway counts. All labels are of fixed sets.

use std::sync::Arc;
use std::time::Instant;

use capstan_port::body::Budget;
use capstan_port::connections::Connections;
use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::BUFFER_BYTES;

/// Seconds: an answer takes milliseconds, and a request that is held up to two minutes.
const BUCKETS: [f64; 11] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0];

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The broker took it.
    Answered,
    /// The broker refused it, or the gateway did before asking.
    Refused,
    /// There was no room to hold it.
    Full,
    /// The broker was away for too long, or the gateway ended.
    Unanswered,
    /// The application went away.
    Cut,
}

impl Outcome {
    const ALL: [Self; 5] = [Self::Answered, Self::Refused, Self::Full, Self::Unanswered, Self::Cut];

    const fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Full => "full",
            Self::Unanswered => "unanswered",
            Self::Cut => "cut",
        }
    }
}

/// Why a try came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// No connection: nothing was sent.
    Unreachable,
    /// The connection broke after it was made.
    Broken,
    /// No answer in time.
    Silent,
    /// The broker has no room now: 429.
    Busy,
    /// The broker is ending, or something between answers for it: 502, 503, 504.
    Failing,
}

impl Reason {
    const ALL: [Self; 5] = [Self::Unreachable, Self::Broken, Self::Silent, Self::Busy, Self::Failing];

    const fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Broken => "broken",
            Self::Silent => "silent",
            Self::Busy => "busy",
            Self::Failing => "failing",
        }
    }
}

/// The metrics of a gateway.
#[derive(Debug)]
pub(crate) struct Metrics {
    budget: Budget,
    clients: Arc<Connections>,
    /// 1 once the port is bound.
    pub(super) listening: IntGauge,
    requests: IntCounterVec,
    open: IntGauge,
    held: IntGauge,
    bytes: IntGauge,
    retries: IntCounterVec,
    seconds: Histogram,
    connections: IntGauge,
    connections_refused: IntCounter,
}

impl Metrics {
    pub(super) fn new(budget: Budget, clients: Arc<Connections>) -> prometheus::Result<Self> {
        let counter = |name, help, label| IntCounterVec::new(Opts::new(name, help), &[label]);
        let seconds =
            HistogramOpts::new("capstan_sidecar_gateway_seconds", "How long requests took, held or not.");
        let requests = counter(
            "capstan_sidecar_gateway_requests_total",
            "Requests of the application, by outcome.",
            "outcome",
        )?;
        let retries =
            counter("capstan_sidecar_gateway_retries_total", "Tries that came to nothing.", "reason")?;
        // All are there from the start, so that an alert sees the first of each.
        for outcome in Outcome::ALL {
            requests.with_label_values(&[outcome.label()]);
        }
        for reason in Reason::ALL {
            retries.with_label_values(&[reason.label()]);
        }
        Ok(Self {
            budget,
            clients,
            listening: IntGauge::new(
                "capstan_sidecar_gateway_listening",
                "0 while another program has the gateway's port.",
            )?,
            requests,
            open: IntGauge::new("capstan_sidecar_gateway_requests_open", "Requests that are open.")?,
            held: IntGauge::new(
                "capstan_sidecar_gateway_requests_held",
                "Of the open requests those that wait for another try.",
            )?,
            bytes: IntGauge::new("capstan_sidecar_gateway_bytes", "Bodies of open requests.")?,
            retries,
            seconds: Histogram::with_opts(seconds.buckets(BUCKETS.to_vec()))?,
            connections: IntGauge::new(
                "capstan_sidecar_gateway_connections",
                "Open connections of the application.",
            )?,
            connections_refused: IntCounter::new(
                "capstan_sidecar_gateway_connections_refused_total",
                "Connections closed at once because there were too many.",
            )?,
        })
    }

    /// Adds all of them to those of the sidecar.
    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let collectors: [Box<dyn Collector>; 9] = [
            Box::new(self.listening.clone()),
            Box::new(self.requests.clone()),
            Box::new(self.open.clone()),
            Box::new(self.held.clone()),
            Box::new(self.bytes.clone()),
            Box::new(self.retries.clone()),
            Box::new(self.seconds.clone()),
            Box::new(self.connections.clone()),
            Box::new(self.connections_refused.clone()),
        ];
        collectors.into_iter().try_for_each(|collector| registry.register(collector))
    }

    /// What bodies and connections may take, in bytes of memory.
    pub(crate) fn most_bytes(&self) -> u64 {
        self.budget.most() as u64 + self.clients.most() as u64 * BUFFER_BYTES as u64
    }

    /// Reads what others count, before all of them are written.
    pub(crate) fn refresh(&self) {
        self.bytes.set(i64::try_from(self.budget.held()).unwrap_or(i64::MAX));
        self.connections.set(i64::try_from(self.clients.open()).unwrap_or(i64::MAX));
        let refused = self.clients.refused().saturating_sub(self.connections_refused.get());
        self.connections_refused.inc_by(refused);
    }

    pub(super) fn retried(&self, reason: Reason) {
        self.retries.with_label_values(&[reason.label()]).inc();
    }

    /// Counts a request as held until the answer is dropped.
    pub(super) fn hold(&self) -> Holding<'_> {
        self.held.inc();
        Holding(self)
    }
}

/// A request that is held.
#[derive(Debug)]
pub(super) struct Holding<'a>(&'a Metrics);

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.0.held.dec();
    }
}

/// A request that is open. Dropped without an outcome, it was cut.
#[derive(Debug)]
pub(super) struct Open {
    metrics: Arc<Metrics>,
    since: Instant,
    outcome: Outcome,
}

impl Open {
    pub(super) fn begin(metrics: &Arc<Metrics>) -> Self {
        metrics.open.inc();
        Self { metrics: Arc::clone(metrics), since: Instant::now(), outcome: Outcome::Cut }
    }

    pub(super) fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.open.dec();
        self.metrics.requests.with_label_values(&[self.outcome.label()]).inc();
        self.metrics.seconds.observe(self.since.elapsed().as_secs_f64());
    }
}
