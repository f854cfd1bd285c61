//! Tells the broker what became of a batch, again and again until it answers or the leases have ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_api::ClientError;
use capstan_api::message::{self, Retry, Settle, Settled};
use capstan_api::number::Number;

use crate::backoff::Backoff;
use crate::context::Scope;
use crate::event::{self, What};
use crate::lease::Lease;
use crate::metrics::Request;
use crate::pull::retry_after;
use crate::request::Leased;
use crate::verdict::Decision;

/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(10);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What became of the messages of a batch; at most 100 of them.
pub(crate) type Decided = Vec<(Leased, Decision)>;

/// Settles `decided`. The same settle may arrive twice: the broker answers the second with warnings.
pub(crate) async fn settle(scope: Arc<Scope>, decided: Decided, mut lease: Lease) {
    let request = request(&decided);
    let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX.min(lease.resend_within()));
    loop {
        let tried_at = Instant::now();
        let answer = scope.context.broker.settle(&scope.namespace, &scope.queue, &request);
        let (error, silent) = match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(settled)) => return done(&scope, decided, &settled),
            Ok(Err(error)) if !error.is_retryable() => {
                tracing::error!(queue = %scope.queue, %error, messages = ?ids(&decided), "the broker refuses the verdict");
                return;
            }
            Ok(Err(error)) => {
                tokio::time::sleep(backoff.wait_at_least(retry_after(&error))).await;
                (error.to_string(), matches!(error, ClientError::Transport(_)))
            }
            Err(_) => {
                tokio::time::sleep(backoff.wait()).await;
                (format!("no answer within {} s", PATIENCE.as_secs()), true)
            }
        };
        scope.context.metrics.count_broker_error(Request::Settle);
        if silent {
            lease.silent(tried_at.elapsed());
        }
        if Instant::now() >= lease.ends_at() {
            tracing::warn!(queue = %scope.queue, error, messages = ?ids(&decided), "the leases ended before the broker took the verdict");
            return;
        }
        if scope.may_warn() {
            tracing::warn!(queue = %scope.queue, error, "the broker did not take a verdict; trying again");
        }
    }
}

fn request(decided: &Decided) -> Settle {
    let mut settle = Settle::default();
    for (leased, decision) in decided {
        match decision {
            Decision::Ack => settle.acks.push(lease(leased)),
            Decision::Release => settle.releases.push(lease(leased)),
            Decision::Retry { delay_seconds, reason } => settle.retries.push(Retry {
                lease_id: leased.lease_id.clone(),
                delay_seconds: delay_seconds.map(Number::from),
                reason: Some(reason.clone()),
            }),
        }
    }
    settle
}

fn done(scope: &Scope, decided: Decided, settled: &Settled) {
    report_warnings(scope, decided.iter().map(|(leased, _)| leased), &settled.warnings);
    for (leased, decision) in decided {
        scope.context.metrics.count_settled(scope.labels(), &decision);
        scope.emit(|| What::Settled { message: named(&leased), decision });
    }
}

/// Logs what the broker says had no effect, by message.
pub(crate) fn report_warnings<'a>(
    scope: &Scope,
    leased: impl IntoIterator<Item = &'a Leased>,
    warnings: &BTreeMap<String, String>,
) {
    for (one, warning) in leased.into_iter().filter_map(|one| Some((one, warnings.get(&one.lease_id)?))) {
        tracing::warn!(queue = %scope.queue, id = one.id, warning, "the broker warns");
    }
}

/// A message as an event names it.
pub(crate) fn named(leased: &Leased) -> event::Message {
    event::Message { id: leased.id.clone(), attempts: leased.attempts }
}

/// A message as the broker wants it named.
pub(crate) fn lease(leased: &Leased) -> message::Lease {
    message::Lease { lease_id: leased.lease_id.clone() }
}

fn ids(decided: &Decided) -> Vec<&str> {
    decided.iter().map(|(leased, _)| leased.id.as_str()).collect()
}
