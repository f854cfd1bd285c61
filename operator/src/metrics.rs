//! The metrics of the operator. All labels are of fixed sets, but for those of Consumers, which are bounded.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::external_scaler::{Demanded, Numbers};
use crate::request::Asked;
use crate::work::{Load, Outcome};
use crate::world::{State, Unit, World};

/// Seconds; most reconciliations wait for one or two requests.
const RECONCILE_BUCKETS: [f64; 9] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];
/// Statuses that have a label of their own.
const STATUSES: [u16; 20] =
    [101, 200, 201, 202, 400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 429, 500, 502, 503, 504, 408];
const UNITS: [&str; 3] = ["broker", "workload", "consumer"];
const OUTCOMES: [&str; 3] = ["done", "again", "failed"];
/// What is watched.
pub(crate) const WATCHED: [&str; 9] = [
    "Broker",
    "Queue",
    "Consumer",
    "Deployment",
    "StatefulSet",
    "Service",
    "ServiceAccount",
    "NetworkPolicy",
    "HorizontalPodAutoscaler",
];
const EVENTS: [&str; 3] = ["published", "failed", "dropped"];

/// What became of an Event.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EventFate {
    Published,
    Failed,
    /// Too many at once.
    Dropped,
}

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    reconcile_seconds: HistogramVec,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    forbidden: IntCounterVec,
    watch_errors: IntCounterVec,
    events: IntCounterVec,
    pub(crate) leader: IntGauge,
    pub(crate) terms: IntCounter,
    pub(crate) ready: IntGauge,
    load: IntGaugeVec,
    oldest_due: Gauge,
    objects: IntGaugeVec,
    writes: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new() -> prometheus::Result<Self> {
        let counter = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let gauge = |name, help, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let histogram = |name, help, labels: &[&str]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(RECONCILE_BUCKETS.to_vec()), labels)
        };
        let metrics = Self {
            registry: Registry::new(),
            reconciles: counter(
                "capstan_operator_reconciles_total",
                "Reconciliations.",
                &["kind", "outcome"],
            )?,
            reconcile_seconds: histogram(
                "capstan_operator_reconcile_seconds",
                "How long they took.",
                &["kind"],
            )?,
            requests: counter(
                "capstan_operator_requests_total",
                "Requests to the API server.",
                &["verb", "resource", "status"],
            )?,
            request_seconds: histogram(
                "capstan_operator_request_seconds",
                "How long the API server took to answer.",
                &["verb"],
            )?,
            forbidden: counter(
                "capstan_operator_forbidden_total",
                "Requests refused because the account lacks the right.",
                &["verb", "resource"],
            )?,
            watch_errors: counter("capstan_operator_watch_errors_total", "Watches that broke.", &["kind"])?,
            events: counter("capstan_operator_events_total", "Events of Kubernetes.", &["outcome"])?,
            leader: IntGauge::new("capstan_operator_leader", "1 while this operator is the active one.")?,
            terms: IntCounter::new("capstan_operator_terms_total", "How often it became the active one.")?,
            ready: IntGauge::new("capstan_operator_ready", "1 once the cluster is known.")?,
            load: gauge("capstan_operator_units", "Units of work.", &["state"])?,
            oldest_due: Gauge::new("capstan_operator_oldest_due_seconds", "How late the oldest unit is.")?,
            objects: gauge("capstan_operator_objects", "Objects that are watched.", &["kind"])?,
            writes: counter("capstan_operator_status_writes_total", "Statuses written.", &["kind"])?,
        };
        metrics.begin();
        metrics.register()?;
        Ok(metrics)
    }

    /// A rise from nothing is no rise to who watches.
    fn begin(&self) {
        for kind in UNITS {
            OUTCOMES.iter().for_each(|outcome| {
                self.reconciles.with_label_values(&[kind, outcome]);
            });
            self.reconcile_seconds.with_label_values(&[kind]);
        }
        Asked::all().for_each(|asked| {
            self.forbidden.with_label_values(&[asked.verb, asked.resource]);
        });
        WATCHED.iter().for_each(|kind| {
            self.watch_errors.with_label_values(&[kind]);
        });
        EVENTS.iter().for_each(|outcome| {
            self.events.with_label_values(&[outcome]);
        });
        WATCHED[..3].iter().for_each(|kind| {
            self.writes.with_label_values(&[kind]);
        });
    }

    fn register(&self) -> prometheus::Result<()> {
        let help = "Version of the operator.";
        let build = IntGaugeVec::new(Opts::new("capstan_operator_build_info", help), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let help = "When the operator started, in seconds since 1970.";
        let started = Gauge::new("capstan_operator_start_time_seconds", help)?;
        started.set(jiff::Timestamp::now().as_second() as f64);
        let collectors: [Box<dyn Collector>; 16] = [
            Box::new(build),
            Box::new(started),
            Box::new(self.reconciles.clone()),
            Box::new(self.reconcile_seconds.clone()),
            Box::new(self.requests.clone()),
            Box::new(self.request_seconds.clone()),
            Box::new(self.forbidden.clone()),
            Box::new(self.watch_errors.clone()),
            Box::new(self.events.clone()),
            Box::new(self.leader.clone()),
            Box::new(self.terms.clone()),
            Box::new(self.ready.clone()),
            Box::new(self.load.clone()),
            Box::new(self.oldest_due.clone()),
            Box::new(self.objects.clone()),
            Box::new(self.writes.clone()),
        ];
        collectors.into_iter().try_for_each(|collector| self.registry.register(collector))
    }

    /// Shows what there is to do for Consumers, too, while this operator is the active one.
    ///
    /// # Errors
    /// It is shown already.
    pub(crate) fn show(&self, numbers: Arc<dyn Numbers>) -> prometheus::Result<()> {
        self.registry.register(Box::new(Demanded::new(numbers, self.leader.clone())?))
    }

    /// A reconciliation ended.
    pub(crate) fn reconciled(&self, unit: &Unit, outcome: Outcome, took: Duration) {
        let kind = match unit {
            Unit::Broker(_) => UNITS[0],
            Unit::Workload(..) => UNITS[1],
            Unit::Consumer(_) => UNITS[2],
        };
        let outcome = match outcome {
            Outcome::Done => OUTCOMES[0],
            Outcome::Again(_) => OUTCOMES[1],
            Outcome::Failed => OUTCOMES[2],
        };
        self.reconciles.with_label_values(&[kind, outcome]).inc();
        self.reconcile_seconds.with_label_values(&[kind]).observe(took.as_secs_f64());
    }

    /// A request was answered, or broke. A watch goes on after its answer.
    pub(crate) fn request(&self, asked: Asked, status: Option<StatusCode>, took: Duration) {
        let status = match status.map(|status| status.as_u16()) {
            None => "none".to_owned(),
            Some(status) if STATUSES.contains(&status) => status.to_string(),
            Some(_) => crate::request::OTHER.to_owned(),
        };
        self.requests.with_label_values(&[asked.verb, asked.resource, &status]).inc();
        self.request_seconds.with_label_values(&[asked.verb]).observe(took.as_secs_f64());
        let written = WATCHED[..3].iter().find(|kind| {
            let plural = format!("{}s.capstan.dev/status", kind.to_lowercase());
            asked.verb == "patch" && status == "200" && asked.resource == plural
        });
        if let Some(kind) = written {
            self.writes.with_label_values(&[kind]).inc();
        }
    }

    /// A right is missing.
    pub(crate) fn forbidden(&self, asked: Asked) {
        self.forbidden.with_label_values(&[asked.verb, asked.resource]).inc();
    }

    /// A watch of a kind broke, and is begun again.
    pub(crate) fn watch_broke(&self, kind: &str) {
        if WATCHED.contains(&kind) {
            self.watch_errors.with_label_values(&[kind]).inc();
        }
    }

    /// Something became of an Event.
    pub(crate) fn event(&self, fate: EventFate) {
        let outcome = match fate {
            EventFate::Published => EVENTS[0],
            EventFate::Failed => EVENTS[1],
            EventFate::Dropped => EVENTS[2],
        };
        self.events.with_label_values(&[outcome]).inc();
    }

    /// All metrics in Prometheus' text format, with what is waiting and known now.
    pub(crate) fn write(&self, load: &Load, world: &World) -> prometheus::Result<Vec<u8>> {
        self.count(load, &world.read());
        // Not under the lock: what is collected looks at the world itself.
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    fn count(&self, load: &Load, state: &State) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        for (name, units) in [
            ("waiting", load.waiting),
            ("due", load.due),
            ("running", load.running),
            ("failing", load.failing),
        ] {
            self.load.with_label_values(&[name]).set(count(units));
        }
        self.oldest_due.set(load.oldest_due.as_secs_f64());
        let counts = [
            state.brokers.all().count(),
            state.queues.all().count(),
            state.consumers.all().count(),
            state.deployments.all().count(),
            state.stateful_sets.all().count(),
            state.services.all().count(),
            state.service_accounts.all().count(),
            state.policies.all().count(),
            state.autoscalers.all().count(),
        ];
        for (kind, objects) in WATCHED.into_iter().zip(counts) {
            self.objects.with_label_values(&[kind]).set(count(objects));
        }
    }
}

#[cfg(test)]
#[path = "../../tests/src/document.rs"]
#[expect(unreachable_pub, reason = "the tests of the broker's metrics have it from a crate")]
mod document;

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.write(&Load::default(), &World::default()).unwrap()).unwrap()
    }

    #[test]
    fn the_document_names_every_metric_and_no_other() {
        let metrics = Metrics::new().unwrap();
        let path = "/apis/capstan.dev/v1alpha1/namespaces/shop/queues/a/status";
        metrics.request(Asked::of(&Method::PATCH, path, None), Some(StatusCode::OK), Duration::ZERO);
        metrics.show(Arc::new(crate::external_scaler::Many(1))).unwrap();
        metrics.leader.set(1);
        let text = text(&metrics);
        let compared = document::check(include_str!("../../docs/metrics.md"), "The operator", &text);
        assert_eq!(compared, OUTCOMES.len() + WATCHED.len() * 2 + EVENTS.len() + 4 + 3 + 3, "{text}");
        assert!(text.contains("capstan_operator_status_writes_total{kind=\"Queue\"} 1"), "{text}");
    }

    /// Takes the world for itself, as a watch does at any time.
    struct Writes(Arc<World>);

    impl Numbers for Writes {
        fn all(&self) -> Vec<(capstan_crds::Key, capstan_scaling::Demand)> {
            drop(self.0.write());
            Vec::new()
        }
    }

    #[test]
    fn the_world_is_free_while_metrics_are_collected() {
        let (metrics, world) = (Metrics::new().unwrap(), Arc::new(World::default()));
        metrics.show(Arc::new(Writes(Arc::clone(&world)))).unwrap();
        metrics.leader.set(1);
        // Otherwise this would never end.
        metrics.write(&Load::default(), &world).unwrap();
    }

    #[test]
    fn statuses_and_resources_are_of_fixed_sets() {
        let metrics = Metrics::new().unwrap();
        for number in 200..600 {
            let asked = Asked::of(&Method::GET, &format!("/apis/g{number}/v1/things{number}/a"), None);
            metrics.request(asked, StatusCode::from_u16(number).ok(), Duration::ZERO);
        }
        metrics.request(Asked::of(&Method::GET, "/x", None), None, Duration::ZERO);
        let text = text(&metrics);
        let series = text.lines().filter(|line| line.starts_with("capstan_operator_requests_total{")).count();
        assert!((10..30).contains(&series), "{series}");
    }
}
