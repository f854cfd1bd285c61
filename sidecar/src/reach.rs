//! Tells the broker whether the application takes batches: at each change, and again and again while it is so.
//!
//! The breaker decides what is told. The operator makes a condition of it, so that `kubectl` says why nothing moves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_api::workload::{ConsumerReport, PodReport};
use capstan_api::{ClientError, Name};
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::config::Reporting;
use crate::context::Context;
use crate::metrics::Request;
use crate::pull::retry_after;

/// The least time between two reports: an application can go and come many times in a second.
const LEAST: Duration = Duration::from_secs(1);
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Longest time to say goodbye: without it, the broker forgets this pod by itself.
const FAREWELL: Duration = Duration::from_millis(500);

/// Queue and Consumer, and why its batches are not taken.
type Known = BTreeMap<(Name, Name), Option<String>>;

/// What is known of the application, by queue and Consumer.
#[derive(Debug)]
pub(crate) struct Reach {
    known: watch::Sender<Known>,
    reporting: Reporting,
    started: Instant,
}

impl Reach {
    pub(crate) fn new(reporting: Reporting) -> Self {
        Self { known: watch::Sender::new(Known::new()), reporting, started: Instant::now() }
    }

    /// The time between two looks whether what was said is still so.
    pub(crate) const fn every(&self) -> Duration {
        self.reporting.every
    }

    /// Whether an application that began with this sidecar may still be starting.
    pub(crate) fn is_early(&self) -> bool {
        self.started.elapsed() < self.reporting.grace
    }

    /// The application takes batches, or `unreachable` says why not.
    pub(crate) fn set(&self, queue: &Name, consumer: &Name, unreachable: Option<String>) {
        let key = (queue.clone(), consumer.clone());
        self.known.send_if_modified(|known| {
            let changed = known.get(&key) != Some(&unreachable);
            known.insert(key, unreachable);
            changed
        });
    }

    /// Nothing is known any more.
    pub(crate) fn forget(&self, queue: &Name, consumer: &Name) {
        self.known.send_if_modified(|known| known.remove(&(queue.clone(), consumer.clone())).is_some());
    }

    /// The broker may have forgotten what it was told.
    pub(crate) fn say_again(&self) {
        self.known.send_modify(|_| {});
    }
}

/// Reports until the drain begins, and then that this pod has nothing to say any more.
pub(crate) async fn report(context: Arc<Context>) {
    let (mut known, mut said) = (context.reach.known.subscribe(), false);
    tokio::select! {
        () = follow(&context, &mut known, &mut said) => {}
        () = context.drain.cancelled() => {}
    }
    if !said {
        return;
    }
    let _ = tokio::time::timeout(FAREWELL, send(&context, &Known::new())).await;
}

async fn follow(context: &Context, known: &mut watch::Receiver<Known>, said: &mut bool) {
    // Who knows nothing has nothing to say.
    *said = known.wait_for(|known| !known.is_empty()).await.is_ok();
    let every = context.reach.every();
    // What is too old for this is so for long.
    let mut is_told_old = false;
    let mut backoff = Backoff::new(BACKOFF_MIN, every.max(BACKOFF_MIN));
    loop {
        let now = known.borrow_and_update().clone();
        let wait = match send(context, &now).await {
            Ok(()) => {
                backoff.reset();
                every
            }
            Err(error) if is_unknown(&error) => {
                if !std::mem::replace(&mut is_told_old, true) {
                    tracing::debug!(%error, "the broker is too old to take reports about the application");
                }
                every
            }
            Err(error) => {
                tracing::debug!(%error, "the broker does not take the report about the application");
                context.metrics.count_broker_error(Request::Report);
                backoff.wait_at_least(retry_after(&error))
            }
        };
        let least = LEAST.min(wait);
        tokio::time::sleep(least).await;
        let _ = tokio::time::timeout(wait - least, known.changed()).await;
    }
}

/// Whether the broker has no path for reports, as older ones have none.
const fn is_unknown(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { status: 404, .. } | ClientError::Malformed { status: 404, .. })
}

async fn send(context: &Context, known: &Known) -> Result<(), ClientError> {
    let consumer = |((queue, consumer), unreachable): (&(Name, Name), &Option<String>)| ConsumerReport {
        queue: queue.clone(),
        consumer: consumer.clone(),
        unreachable: unreachable.clone(),
    };
    let report = PodReport { consumers: known.iter().map(consumer).collect() };
    context.broker.report(&context.namespace, &context.workload, &context.pod, &report).await
}
