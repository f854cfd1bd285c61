//! The metrics of a sidecar, by name. The number of consumers bounds the number of series.

use std::sync::Arc;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::event::What;
use crate::gateway;
use crate::verdict::{Class, Decision};

const QUEUE: [&str; 2] = ["namespace", "queue"];
const OUTCOME: [&str; 3] = ["namespace", "queue", "outcome"];
const CALLS: [&str; 5] = ["handled", "failed", "malformed", "not_begun", "ended"];
const MESSAGES: [&str; 3] = ["acknowledged", "retried", "released"];
const REQUEST: [&str; 1] = ["request"];
/// Seconds; calls take from a millisecond to hours.
const CALL_BUCKETS: [f64; 11] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 3600.0];

/// What is asked of the broker.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request {
    Pull,
    Settle,
    Extend,
    Configuration,
    Report,
}

impl Request {
    const ALL: [Self; 5] = [Self::Pull, Self::Settle, Self::Extend, Self::Configuration, Self::Report];

    const fn label(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Settle => "settle",
            Self::Extend => "extend",
            Self::Configuration => "configuration",
            Self::Report => "report",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    gateway: Option<Arc<gateway::Metrics>>,
    calls: IntCounterVec,
    messages: IntCounterVec,
    pub(crate) call_seconds: HistogramVec,
    pub(crate) in_flight: IntGaugeVec,
    breaker_open: IntGaugeVec,
    pub(crate) quiescent: IntGauge,
    pub(crate) extends: IntCounterVec,
    pub(crate) warnings: IntCounterVec,
    broker_errors: IntCounterVec,
}

impl Metrics {
    /// Those of the loop, and of the gateway if there is one.
    pub(crate) fn new(gateway: Option<Arc<gateway::Metrics>>) -> prometheus::Result<Self> {
        let counter = |name, help, labels| IntCounterVec::new(Opts::new(name, help), labels);
        let gauge = |name, help| IntGaugeVec::new(Opts::new(name, help), &QUEUE);
        let seconds =
            HistogramOpts::new("capstan_sidecar_call_seconds", "How long calls of the application took.");
        let metrics = Self {
            registry: Registry::new(),
            gateway,
            calls: counter("capstan_sidecar_calls_total", "Calls of the application, by outcome.", &OUTCOME)?,
            messages: counter("capstan_sidecar_messages_total", "Messages settled, by outcome.", &OUTCOME)?,
            call_seconds: HistogramVec::new(seconds.buckets(CALL_BUCKETS.to_vec()), &QUEUE)?,
            in_flight: gauge("capstan_sidecar_calls_in_flight", "Calls that are open.")?,
            breaker_open: gauge(
                "capstan_sidecar_breaker_open",
                "1 while the application cannot be reached.",
            )?,
            quiescent: IntGauge::new(
                "capstan_sidecar_quiescent",
                "1 while nothing is pulled because the application is being ended.",
            )?,
            extends: counter("capstan_sidecar_extends_total", "Leases extended.", &QUEUE)?,
            warnings: counter(
                "capstan_sidecar_verdict_warnings_total",
                "Parts of verdicts without effect.",
                &QUEUE,
            )?,
            broker_errors: counter(
                "capstan_sidecar_broker_errors_total",
                "Requests that the broker did not answer, or refused.",
                &REQUEST,
            )?,
        };
        // A rise from nothing is no rise to who watches.
        Request::ALL.iter().for_each(|request| {
            metrics.broker_errors.with_label_values(&[request.label()]);
        });
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> prometheus::Result<()> {
        let collectors: [Box<dyn Collector>; 9] = [
            Box::new(self.calls.clone()),
            Box::new(self.messages.clone()),
            Box::new(self.call_seconds.clone()),
            Box::new(self.in_flight.clone()),
            Box::new(self.breaker_open.clone()),
            Box::new(self.quiescent.clone()),
            Box::new(self.extends.clone()),
            Box::new(self.warnings.clone()),
            Box::new(self.broker_errors.clone()),
        ];
        collectors.into_iter().try_for_each(|collector| self.registry.register(collector))?;
        self.gateway.as_ref().map_or(Ok(()), |gateway| gateway.register(&self.registry))
    }

    /// What the gateway may hold, in bytes of memory; 0 without one.
    pub(crate) fn gateway_bytes(&self) -> u64 {
        self.gateway.as_ref().map_or(0, |gateway| gateway.most_bytes())
    }

    pub(crate) fn count_call(&self, [namespace, queue]: [&str; 2], class: &Class) {
        let [handled, failed, malformed, not_begun, ended] = CALLS;
        let outcome = match class {
            Class::Handled => handled,
            Class::Failed(_) => failed,
            Class::Malformed(_) => malformed,
            Class::NotBegun { .. } => not_begun,
            Class::Ended => ended,
        };
        self.calls.with_label_values(&[namespace, queue, outcome]).inc();
    }

    pub(crate) fn count_settled(&self, [namespace, queue]: [&str; 2], decision: &Decision) {
        let [acknowledged, retried, released] = MESSAGES;
        let outcome = match decision {
            Decision::Ack => acknowledged,
            Decision::Retry { .. } => retried,
            Decision::Release => released,
        };
        self.messages.with_label_values(&[namespace, queue, outcome]).inc();
    }

    pub(crate) fn count_broker_error(&self, request: Request) {
        self.broker_errors.with_label_values(&[request.label()]).inc();
    }

    pub(crate) fn show_breaker(&self, labels: [&str; 2], what: &What) {
        let open = i64::from(matches!(what, What::Unreachable { .. }));
        self.breaker_open.with_label_values(&labels).set(open);
    }

    /// Drops the series of a consumer that is gone.
    pub(crate) fn forget(&self, [namespace, queue]: [&str; 2]) {
        let labels = [namespace, queue];
        forget(&self.call_seconds, &labels);
        forget(&self.in_flight, &labels);
        forget(&self.breaker_open, &labels);
        forget(&self.extends, &labels);
        forget(&self.warnings, &labels);
        CALLS.iter().for_each(|outcome| forget(&self.calls, &[namespace, queue, outcome]));
        MESSAGES.iter().for_each(|outcome| forget(&self.messages, &[namespace, queue, outcome]));
    }

    /// All metrics in Prometheus' text format.
    pub(crate) fn write(&self) -> prometheus::Result<Vec<u8>> {
        if let Some(gateway) = &self.gateway {
            gateway.refresh();
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// A series that nobody wrote cannot be removed; that is fine.
fn forget<T: MetricVecBuilder>(metric: &MetricVec<T>, labels: &[&str]) {
    let _ = metric.remove_label_values(labels);
}

#[cfg(test)]
#[path = "../../tests/src/document.rs"]
#[expect(unreachable_pub, reason = "the tests of the broker's metrics have it from a crate")]
mod document;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use capstan_api::Name;

    use super::*;
    use crate::gateway::{Gateway, Settings};

    #[tokio::test]
    async fn the_document_names_every_metric_and_no_other() {
        let settings = Settings { port: 0, ..Settings::default() };
        let namespace = Name::new("shop").unwrap();
        let gateway = Gateway::bind("http://127.0.0.1:1", namespace, &settings).await.unwrap();
        let (metrics, labels) = (Metrics::new(Some(gateway.metrics())).unwrap(), ["shop", "orders"]);
        let (reason, retry_after) = (String::new(), None);
        let not_begun = Class::NotBegun { reason: reason.clone(), retry_after };
        let classes =
            [Class::Handled, Class::Failed(reason.clone()), Class::Malformed(reason.clone()), not_begun];
        classes.iter().chain([&Class::Ended]).for_each(|class| metrics.count_call(labels, class));
        let retry = Decision::Retry { delay_seconds: None, reason };
        [Decision::Ack, retry, Decision::Release].iter().for_each(|one| metrics.count_settled(labels, one));
        metrics.show_breaker(labels, &What::Unreachable { reason: String::new(), wait: Duration::ZERO });
        metrics.call_seconds.with_label_values(&labels).observe(1.0);
        for counter in [&metrics.extends, &metrics.warnings] {
            counter.with_label_values(&labels).inc();
        }
        metrics.in_flight.with_label_values(&labels).inc();
        let text = String::from_utf8(metrics.write().unwrap()).unwrap();
        let compared = document::check(include_str!("../../docs/metrics.md"), "The sidecar", &text);
        assert_eq!(
            compared,
            CALLS.len() + MESSAGES.len() + Request::ALL.len() + 5 + 5,
            "and those of the gateway"
        );
    }
}
