//! The breaker shared by the slots of a consumer: gives out permits to pull, and takes back what came of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use capstan_api::workload::{Endpoint, WorkloadConsumer};
use tokio::sync::watch;

use crate::breaker::{Ask, Breaker, Change, Reach};
use crate::context::Scope;
use crate::event::What;

/// How long the system may take to connect to the application; on localhost that needs no help of the application. Shorter
/// than the shortest `endpoint.timeout`, so that a call that nobody took is not mistaken for one that failed.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(900);

/// Longest wait before something is released.
const QUIET_MAX: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Gate {
    scope: Arc<Scope>,
    breaker: watch::Sender<Breaker>,
    /// Pulls that are open.
    pulls: watch::Sender<usize>,
    /// The application could be reached once.
    was_reached: AtomicBool,
}

/// A pull that is open; counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Pulling<'a>(&'a Gate);

impl Drop for Pulling<'_> {
    fn drop(&mut self) {
        self.0.pulls.send_modify(|pulls| *pulls -= 1);
    }
}

/// The right to pull and to call. Dropped without a report, it leaves the trial to the next.
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Arc<Gate>,
    probe: bool,
}

impl Gate {
    pub(crate) fn new(scope: Arc<Scope>) -> Self {
        Self {
            scope,
            breaker: watch::Sender::new(Breaker::default()),
            pulls: watch::Sender::new(0),
            was_reached: AtomicBool::new(false),
        }
    }

    /// Forgets everything: the application is now somewhere else.
    pub(crate) fn reset(&self) {
        self.breaker.send_replace(Breaker::default());
        self.scope.context.reach.forget(&self.scope.queue, &self.scope.consumer);
    }

    /// Counts a pull until the answer is dropped.
    pub(crate) fn pulling(&self) -> Pulling<'_> {
        self.pulls.send_modify(|pulls| *pulls += 1);
        Pulling(self)
    }

    /// Waits until no slot pulls, but not for long: what is released before would come back to the next slot, and the
    /// next, and use up its releases.
    pub(crate) async fn quiet(&self) {
        let mut pulls = self.pulls.subscribe();
        let _ = tokio::time::timeout(QUIET_MAX, pulls.wait_for(|pulls| *pulls == 0)).await;
    }

    /// Waits until this slot may pull.
    pub(crate) async fn permit(self: &Arc<Self>, endpoint: &Endpoint) -> Permit {
        let mut changes = self.breaker.subscribe();
        loop {
            changes.mark_unchanged();
            let permit = |probe| Permit { gate: Arc::clone(self), probe };
            match self.ask() {
                Ask::Pull => return permit(false),
                Ask::Connect => {
                    let mut permit = permit(true);
                    let reach = connect(&self.scope, endpoint.port).await;
                    permit.report_to(endpoint, reach.err());
                }
                Ask::Probe => {
                    let mut permit = permit(true);
                    match connect(&self.scope, endpoint.port).await {
                        Ok(()) => return permit,
                        Err(refusal) => permit.report_to(endpoint, Some(refusal)),
                    }
                }
                Ask::WaitUntil(until) => {
                    // A change before that, such as a reset, is worth asking again too.
                    let _ = tokio::time::timeout_at(until.into(), changes.changed()).await;
                }
                Ask::WaitForChange => {
                    let _ = changes.changed().await;
                }
            }
        }
    }

    /// Looks again and again whether the application still listens: while its queue is empty nobody calls it, and it would
    /// be said to take batches for ever. Never ends.
    pub(crate) async fn watch(&self, policy: watch::Receiver<Arc<WorkloadConsumer>>) {
        loop {
            tokio::time::sleep(self.scope.context.reach.every()).await;
            let policy = Arc::clone(&policy.borrow());
            // Of a paused one nobody would see that it is back.
            if !policy.paused && self.breaker.borrow().is_closed() {
                self.look(&policy.endpoint).await;
            }
        }
    }

    async fn look(&self, endpoint: &Endpoint) {
        let Err(error) = self.scope.loopback.find(endpoint.port, CONNECT_TIMEOUT).await else { return };
        // One that has much to do may not accept in time, and one that is being ended is no news.
        if error.kind() == io::ErrorKind::ConnectionRefused && !self.scope.context.is_ending() {
            let Refusal { reason, reach } = Refusal::absent(&error);
            if let Some(change) = self.report(reach, false) {
                self.show(endpoint, change, reach, reason);
            }
        }
    }

    fn ask(&self) -> Ask {
        let mut ask = Ask::WaitForChange;
        self.breaker.send_if_modified(|breaker| {
            ask = breaker.ask(Instant::now());
            matches!(ask, Ask::Connect | Ask::Probe)
        });
        ask
    }

    fn report(&self, reach: Reach, probe: bool) -> Option<Change> {
        report(&self.breaker, reach, probe)
    }

    fn show(&self, endpoint: &Endpoint, change: Change, reach: Reach, reason: String) {
        let Scope { queue, consumer, context, .. } = &*self.scope;
        let application = format!("http://localhost:{}{}", endpoint.port, endpoint.path);
        let what = match change {
            Change::Opened { wait } if reach == Reach::Starting => {
                tracing::info!(%queue, application, reason, "the application does not listen yet: it is looked for");
                What::Unreachable { reason, wait }
            }
            Change::Opened { wait } => {
                tracing::warn!(%queue, application, reason, wait_seconds = wait.as_secs(),
                    "the application took nothing, so nothing is pulled for a while; check that it listens, and endpoint.port and endpoint.path");
                What::Unreachable { reason, wait }
            }
            Change::Closed => {
                tracing::info!(%queue, application, "the application can be reached");
                self.was_reached.store(true, Ordering::Relaxed);
                What::Reachable
            }
        };
        let unreachable = match &what {
            What::Unreachable { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        if reach != Reach::Starting {
            context.reach.set(queue, consumer, unreachable);
        }
        context.metrics.show_breaker(self.scope.labels(), &what);
        self.scope.emit(|| what);
    }

    /// An application that does not listen starts, most likely: in each rollout, which is worth no warning.
    fn seen(&self, reach: Reach) -> Reach {
        let may_start = !self.was_reached.load(Ordering::Relaxed) && self.scope.context.reach.is_early();
        if may_start && reach == Reach::Absent { Reach::Starting } else { reach }
    }
}

/// Takes what came of a call or a trial. Whoever waits for a trial to end is told that it did, also when that is no news.
fn report(breaker: &watch::Sender<Breaker>, reach: Reach, probe: bool) -> Option<Change> {
    let mut change = None;
    breaker.send_if_modified(|breaker| {
        change = breaker.report(reach, probe, Instant::now());
        probe || change.is_some()
    });
    change
}

/// Why the application did not take a batch.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) reach: Reach,
}

impl Refusal {
    fn absent(error: &io::Error) -> Self {
        Self { reason: format!("no connection to the application: {error}"), reach: Reach::Absent }
    }
}

impl Permit {
    /// Whether to pull only one message.
    pub(crate) const fn is_probe(&self) -> bool {
        self.probe
    }

    /// Whether nothing may be pulled or begun any more: another slot found that the application takes nothing. What this
    /// pull would get would be released too, again and again.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.is_withdrawn_by(&self.gate.breaker.borrow())
    }

    const fn is_withdrawn_by(&self, breaker: &Breaker) -> bool {
        !self.probe && !breaker.is_closed()
    }

    /// Waits until it is withdrawn.
    pub(crate) async fn withdrawn(&self) {
        let withdrawn = |breaker: &Breaker| self.is_withdrawn_by(breaker);
        if self.gate.breaker.subscribe().wait_for(withdrawn).await.is_err() {
            // Not while this permit holds the gate.
            std::future::pending::<()>().await;
        }
    }

    /// What came of the call: the application began, or refused.
    pub(crate) fn report(mut self, endpoint: &Endpoint, refusal: Option<Refusal>) {
        self.report_to(endpoint, refusal);
    }

    fn report_to(&mut self, endpoint: &Endpoint, refusal: Option<Refusal>) {
        let (reach, reason) = match refusal {
            None => (Reach::Began, String::new()),
            Some(refusal) => (self.gate.seen(refusal.reach), refusal.reason),
        };
        let probe = std::mem::take(&mut self.probe);
        if let Some(change) = self.gate.report(reach, probe) {
            self.gate.show(endpoint, change, reach, reason);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.probe {
            self.gate.breaker.send_modify(|breaker| breaker.abandon(Instant::now()));
        }
    }
}

/// Sees whether the application listens, so that no message is leased for one that does not.
async fn connect(scope: &Scope, port: u16) -> Result<(), Refusal> {
    scope.loopback.find(port, CONNECT_TIMEOUT).await.map_err(|error| Refusal::absent(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_trial_is_told_of_each() {
        let breaker = watch::Sender::new(Breaker::default());
        let mut waits = breaker.subscribe();
        for is_news in [true, false, false] {
            let later = Instant::now() + crate::breaker::WAIT_MAX;
            breaker.send_modify(|breaker| assert_eq!(breaker.ask(later), Ask::Connect));
            waits.mark_unchanged();
            assert_eq!(report(&breaker, Reach::Starting, true).is_some(), is_news);
            assert!(waits.has_changed().unwrap(), "else nobody tries when the one who did is taken away");
        }
    }
}
