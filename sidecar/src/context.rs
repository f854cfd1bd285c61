//! What all parts of a sidecar share, and what the parts of one consumer share.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::workload::{Workload, WorkloadConsumer};
use capstan_api::{Client, Name};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::event::{Event, What};
use crate::loopback::Loopback;
use crate::metrics::Metrics;
use crate::quiesce::Quiesce;
use crate::reach::Reach;
use crate::seldom::Seldom;

/// Shared by the whole sidecar.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) namespace: Name,
    pub(crate) workload: Workload,
    pub(crate) pod: String,
    pub(crate) broker: Client,
    pub(crate) application: reqwest::Client,
    pub(crate) metrics: Metrics,
    pub(crate) events: broadcast::Sender<Event>,
    /// How long calls may go on after a drain began.
    pub(crate) drain_timeout: Duration,
    /// The application is being ended, and may come back.
    pub(crate) quiesce: Quiesce,
    /// What is known of the application.
    pub(crate) reach: Reach,
    /// The final drain has begun: nothing is pulled any more.
    pub(crate) drain: CancellationToken,
    /// The drain took too long: calls end now.
    pub(crate) cut: CancellationToken,
    /// The drain is over.
    pub(crate) drained: CancellationToken,
}

impl Context {
    /// Whether the application is ending, most likely.
    pub(crate) fn is_ending(&self) -> bool {
        self.drain.is_cancelled() || self.quiesce.is_likely()
    }

    /// Waits until the application is ending, most likely.
    pub(crate) async fn ending(&self) {
        tokio::select! {
            () = self.drain.cancelled() => {}
            () = self.quiesce.likely() => {}
        }
    }
}

/// Shared by the slots of one consumer.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) context: Arc<Context>,
    pub(crate) namespace: Name,
    pub(crate) queue: Name,
    pub(crate) consumer: Name,
    pub(crate) loopback: Loopback,
    /// No more pulls for this consumer: it is gone, or the sidecar drains.
    pub(crate) stop: CancellationToken,
    warning: Seldom,
}

impl Scope {
    pub(crate) fn new(context: Arc<Context>, policy: &WorkloadConsumer) -> Self {
        let (stop, warning) = (context.drain.child_token(), Seldom::default());
        let (namespace, queue) = (policy.namespace.clone(), policy.queue.clone());
        let (consumer, loopback) = (policy.name.clone(), Loopback::default());
        Self { context, namespace, queue, consumer, loopback, stop, warning }
    }

    /// Tells whoever listens; `what` is made only then.
    pub(crate) fn emit(&self, what: impl FnOnce() -> What) {
        if self.context.events.receiver_count() == 0 {
            return;
        }
        let (namespace, queue) = (self.namespace.clone(), self.queue.clone());
        // An error says that nobody listens any more.
        let _ = self.context.events.send(Event {
            namespace,
            queue,
            consumer: self.consumer.clone(),
            what: what(),
        });
    }

    /// Whether to warn again, now that many slots see the same outage.
    pub(crate) fn may_warn(&self) -> bool {
        self.warning.is_due()
    }

    /// The labels of this consumer's metrics.
    pub(crate) fn labels(&self) -> [&str; 2] {
        [self.namespace.as_str(), self.queue.as_str()]
    }
}
