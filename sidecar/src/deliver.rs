//! Hands a batch over: calls the application while the leases are extended, and decides by what came of it.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use capstan_api::message::Extend;
use capstan_api::number::Whole;
use capstan_api::workload::WorkloadConsumer;

use crate::call;
use crate::context::Scope;
use crate::event::What;
use crate::lease::Lease;
use crate::metrics::Request;
use crate::quiesce;
use crate::request::{Body, Leased, Prepared};
use crate::settle;
use crate::verdict::{self, Class, Outcome, Verdict};

/// How long a broken connection may wait for the drain, or the hook, that explains it: an application that ends at once
/// on SIGTERM breaks it before the sidecar has heard of the shutdown.
const BROKEN_GRACE: Duration = Duration::from_secs(2);

/// Calls the application with `prepared`, and decides. The messages are leased at least as long as this takes, while the
/// broker answers.
pub(crate) async fn deliver(
    scope: &Scope,
    policy: &WorkloadConsumer,
    prepared: Prepared,
    lease: &mut Lease,
) -> (Vec<Leased>, Verdict) {
    let Prepared { body, leased, .. } = prepared;
    scope.emit(|| What::Delivered { messages: leased.iter().map(settle::named).collect() });
    let outcome = call_extending(scope, policy, body, &leased, lease).await;
    decide(scope, leased, &outcome)
}

/// Gives `prepared` back without a call.
pub(crate) fn not_delivered(scope: &Scope, prepared: Prepared) -> (Vec<Leased>, Verdict) {
    decide(scope, prepared.leased, &Outcome::NotCalled)
}

fn decide(scope: &Scope, leased: Vec<Leased>, outcome: &Outcome) -> (Vec<Leased>, Verdict) {
    let ids: Vec<&str> = leased.iter().map(|one| one.id.as_str()).collect();
    let verdict = verdict::decide(outcome, &ids, scope.context.is_ending());
    report(scope, &verdict, &ids);
    (leased, verdict)
}

async fn call_extending(
    scope: &Scope,
    policy: &WorkloadConsumer,
    body: Body,
    leased: &[Leased],
    lease: &mut Lease,
) -> Outcome {
    let context = &scope.context;
    let open = Open::new(scope);
    let call = async {
        let address = scope.loopback.address(policy.endpoint.port);
        let outcome = call::post(&context.application, address, &policy.endpoint, &scope.queue, body).await;
        if matches!(outcome, Outcome::Broken(_)) {
            let grace = BROKEN_GRACE.min(Duration::from_millis(policy.visibility_timeout_ms) / 3);
            let _ = tokio::time::timeout(grace, context.ending()).await;
        }
        outcome
    };
    let outcome = tokio::select! {
        outcome = call => outcome,
        () = context.cut.cancelled() => Outcome::Cut,
        never = extend(scope, policy, leased, lease) => match never {},
    };
    drop(open);
    outcome
}

/// Extends the leases when it is time.
async fn extend(
    scope: &Scope,
    policy: &WorkloadConsumer,
    leased: &[Leased],
    lease: &mut Lease,
) -> Infallible {
    let extends = leased.iter().map(settle::lease).collect();
    let extend = Extend { extends, visibility_timeout_ms: Some(Whole(policy.visibility_timeout_ms)) };
    while let Some(at) = lease.next_extend() {
        tokio::time::sleep_until(at.into()).await;
        let sent_at = Instant::now();
        // A broker that hangs must not hold up the next try.
        let patience = Duration::from_millis(policy.visibility_timeout_ms) / 3;
        let request = scope.context.broker.extend(&scope.namespace, &scope.queue, &extend);
        let error = match tokio::time::timeout(patience, request).await {
            Ok(Ok(extended)) => {
                lease.extended(sent_at);
                scope
                    .context
                    .metrics
                    .extends
                    .with_label_values(&scope.labels())
                    .inc_by(extended.extend_count.into());
                settle::report_warnings(scope, leased, &extended.warnings);
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        lease.not_extended(Instant::now());
        scope.context.metrics.count_broker_error(Request::Extend);
        if scope.may_warn() {
            tracing::warn!(queue = %scope.queue, error, "leases cannot be extended; trying again");
        }
    }
    std::future::pending().await
}

/// Logs what went wrong, with ids and never with bodies.
fn report(scope: &Scope, verdict: &Verdict, ids: &[&str]) {
    let metrics = &scope.context.metrics;
    metrics.count_call(scope.labels(), &verdict.class);
    if let Class::Failed(reason) | Class::Malformed(reason) = &verdict.class {
        tracing::warn!(queue = %scope.queue, reason, messages = ?ids, "the call failed");
    }
    for warning in &verdict.warnings {
        metrics.warnings.with_label_values(&scope.labels()).inc();
        tracing::warn!(queue = %scope.queue, warning, "part of the verdict has no effect");
    }
}

/// A call that is open, as metrics and quiescence count it; also when it is dropped.
struct Open<'a> {
    scope: &'a Scope,
    since: Instant,
    _counted: quiesce::Open<'a>,
}

impl<'a> Open<'a> {
    fn new(scope: &'a Scope) -> Self {
        scope.context.metrics.in_flight.with_label_values(&scope.labels()).inc();
        Self { scope, since: Instant::now(), _counted: scope.context.quiesce.open() }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let (metrics, labels) = (&self.scope.context.metrics, self.scope.labels());
        metrics.in_flight.with_label_values(&labels).dec();
        metrics.call_seconds.with_label_values(&labels).observe(self.since.elapsed().as_secs_f64());
    }
}
