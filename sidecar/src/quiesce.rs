//! Quiescence: while the application is being ended nothing is pulled, and when it lives on the work goes on.
//!
//! An application's `preStop` hook runs before every end of its container: with its pod, where the sidecar drains too, and
//! on a restart by its liveness probe, where the same sidecar must work for the next container.
//!
//! The kubelet calls the hook from outside of the pod, and nothing in a call tells it from anyone else on the pod's network. So a call
//! that no end of the application followed makes the next ones stop nothing for a while: others can take a tenth of the time at most.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use capstan_api::workload::WorkloadConsumer;
use tokio::sync::{Semaphore, watch};

use crate::context::Context;
use crate::loopback;

/// Where the admin port quiesces.
pub(crate) const PATH: &str = "/quiesce";
/// What an application may live beyond the longest drain, before it counts as one that was not ended: a pod's grace
/// period is 5 s longer than the longest drain, and the kubelet takes its time.
const MARGIN: Duration = Duration::from_secs(10);
/// After a pause that nothing explains, so many times its length without another.
const REST: u32 = 10;
/// Most calls of the hook that wait at once; each has a connection of the admin port, of which others must have some.
const HOOKS_MAX: usize = 24;
/// How often it is looked whether the application listens. A container that restarts takes longer than this.
const POLL: Duration = Duration::from_millis(200);

/// Whether the sidecar is quiescent, and what still goes on.
#[derive(Debug)]
pub(crate) struct Quiesce {
    /// When quiescence ends at the latest.
    until: watch::Sender<Option<Instant>>,
    /// It does not begin before.
    not_before: Mutex<Option<Instant>>,
    /// Until when the application may be ending although pulls go on: the hook was called, and stopped nothing.
    suspected: watch::Sender<Option<Instant>>,
    calls: watch::Sender<Calls>,
    /// How many more calls of the hook may wait.
    pub(crate) hooks: Semaphore,
}

/// The calls that are open, by numbers in their order.
#[derive(Debug, Default)]
struct Calls {
    next: u64,
    open: BTreeSet<u64>,
}

/// A call of the application that is open.
#[derive(Debug)]
pub(crate) struct Open<'a>(&'a Quiesce, u64);

impl Quiesce {
    pub(crate) fn new() -> Self {
        Self {
            until: watch::Sender::new(None),
            not_before: Mutex::new(None),
            suspected: watch::Sender::new(None),
            calls: watch::Sender::new(Calls::default()),
            hooks: Semaphore::new(HOOKS_MAX),
        }
    }

    /// Begins, unless it has begun, or must not yet; whether it is on.
    fn begin(&self, now: Instant, longest: Duration) -> bool {
        let not_before = *self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        if not_before.is_none_or(|at| at <= now) {
            // One that is on is not prolonged: it would never end.
            self.until.send_if_modified(|until| {
                let begins = until.is_none();
                until.get_or_insert(now + longest);
                begins
            });
        }
        let is_on = self.is_on();
        if !is_on {
            self.suspected.send_replace(Some(now + longest));
        }
        is_on
    }

    /// Whether the application is being ended, most likely.
    pub(crate) fn is_likely(&self) -> bool {
        self.is_on() || is_after(*self.suspected.borrow(), Instant::now())
    }

    /// Waits until it is.
    pub(crate) async fn likely(&self) {
        tokio::select! {
            () = self.began() => {}
            () = wait(&self.suspected, |until| is_after(*until, Instant::now())) => {}
        }
    }

    /// Ends. One that nothing explains, and that took `length`, is not to come again soon.
    fn end(&self, now: Instant, unexplained: Option<Duration>) {
        let not_before = unexplained.map(|length| now + length * REST);
        *self.not_before.lock().unwrap_or_else(PoisonError::into_inner) = not_before;
        self.until.send_replace(None);
    }

    /// Whether nothing may be pulled or begun.
    pub(crate) fn is_on(&self) -> bool {
        self.until.borrow().is_some()
    }

    /// Tells when it goes on or off.
    pub(crate) fn changes(&self) -> watch::Receiver<Option<Instant>> {
        self.until.subscribe()
    }

    /// Waits until it is on.
    pub(crate) async fn began(&self) {
        wait(&self.until, Option::is_some).await;
    }

    /// Waits until it is off.
    pub(crate) async fn over(&self) {
        wait(&self.until, Option::is_none).await;
    }

    /// Counts a call until the answer is dropped.
    pub(crate) fn open(&self) -> Open<'_> {
        let mut number = 0;
        self.calls.send_modify(|calls| {
            number = calls.next;
            calls.next += 1;
            calls.open.insert(number);
        });
        Open(self, number)
    }

    /// Waits until no call is open, or, while new ones may begin, until those of now have ended.
    async fn idle(&self) {
        let next = if self.is_on() { u64::MAX } else { self.calls.borrow().next };
        wait(&self.calls, |calls| calls.open.first().is_none_or(|first| *first >= next)).await;
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.calls.send_modify(|calls| {
            calls.open.remove(&self.1);
        });
    }
}

fn is_after(until: Option<Instant>, now: Instant) -> bool {
    until.is_some_and(|until| until > now)
}

async fn wait<T>(value: &watch::Sender<T>, condition: impl Fn(&T) -> bool) {
    if value.subscribe().wait_for(condition).await.is_err() {
        // Not while `value` is borrowed.
        std::future::pending::<()>().await;
    }
}

/// Begins quiescence, and waits until no call is open; where it must not begin, until those of now have ended; or as long as a drain may take; tells which.
pub(crate) async fn quiesce(context: &Context) -> bool {
    let was_on = context.quiesce.is_on();
    let is_on = context.quiesce.begin(Instant::now(), context.drain_timeout + MARGIN);
    match (was_on, is_on) {
        (false, true) => {
            context.metrics.quiescent.set(1);
            tracing::info!("quiescent: the application is being ended, nothing is pulled until it is back");
        }
        (_, false) => tracing::warn!(
            "not quiescent: the last time the application was not ended, so pulls go on; who but the kubelet calls {PATH}?"
        ),
        (true, true) => {}
    }
    tokio::time::timeout(context.drain_timeout, context.quiesce.idle()).await.is_ok()
}

/// Ends quiescence when the application is back, or when it was not ended after all.
pub(crate) async fn watch(context: Arc<Context>, policies: watch::Receiver<Vec<WorkloadConsumer>>) {
    loop {
        context.quiesce.began().await;
        let began = Instant::now();
        let why = application_back(&context.quiesce, &policies).await;
        let now = Instant::now();
        context.quiesce.end(now, (why == NOT_ENDED).then(|| now - began));
        context.metrics.quiescent.set(0);
        tracing::info!(why, "no longer quiescent");
    }
}

/// Why quiescence ends.
const BACK: &str = "the application is back";
const AWAY: &str = "the application is away for long";
const NOT_ENDED: &str = "the application was not ended";

async fn application_back(
    quiesce: &Quiesce,
    policies: &watch::Receiver<Vec<WorkloadConsumer>>,
) -> &'static str {
    let mut gone = false;
    loop {
        let ports: Vec<u16> = policies.borrow().iter().map(|policy| policy.endpoint.port).collect();
        match all_listen(ports).await {
            false => gone = true,
            true if gone => return BACK,
            true => {}
        }
        if quiesce.until.borrow().is_none_or(|until| until <= Instant::now()) {
            return if gone { AWAY } else { NOT_ENDED };
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn all_listen(ports: Vec<u16>) -> bool {
    for port in ports {
        if loopback::connect(port, POLL).await.is_err() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use capstan_api::Name;
    use capstan_api::workload::Endpoint;
    use tokio::net::TcpListener;

    use super::*;

    fn policies(port: u16) -> watch::Receiver<Vec<WorkloadConsumer>> {
        let policy = WorkloadConsumer {
            namespace: Name::new("shop").unwrap(),
            queue: Name::new("orders").unwrap(),
            name: Name::new("orders").unwrap(),
            endpoint: Endpoint { port, path: "/".to_owned(), timeout_ms: 1000 },
            max_batch_size: 1,
            max_batch_bytes: 1,
            max_wait_ms: 0,
            concurrency_per_pod: 1,
            visibility_timeout_ms: 1000,
            paused: false,
        };
        watch::channel(vec![policy]).1
    }

    fn quiesce(time: Duration) -> Quiesce {
        let quiesce = Quiesce::new();
        quiesce.until.send_replace(Some(Instant::now() + time));
        quiesce
    }

    #[tokio::test]
    async fn an_application_that_was_not_ended_is_served_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let policies = policies(listener.local_addr().unwrap().port());
        let began = Instant::now();
        let why = application_back(&quiesce(Duration::from_millis(300)), &policies).await;
        assert_eq!(why, "the application was not ended");
        assert!(began.elapsed() >= Duration::from_millis(300), "not before its time");
    }

    #[tokio::test]
    async fn an_application_that_stays_away_is_waited_for_only_so_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let policies = policies(listener.local_addr().unwrap().port());
        drop(listener);
        let why = application_back(&quiesce(Duration::from_millis(300)), &policies).await;
        assert_eq!(why, AWAY);
    }

    #[test]
    fn calls_of_the_hook_that_nothing_follows_take_a_tenth_of_the_time_at_most() {
        let (quiesce, longest, start) = (Quiesce::new(), Duration::from_secs(35), Instant::now());
        let (mut now, mut paused) = (start, Duration::ZERO);
        // Somebody calls it every second for an hour.
        while now < start + Duration::from_secs(3600) {
            if quiesce.begin(now, longest) {
                paused += Duration::from_secs(1);
                let until = quiesce.until.borrow().unwrap();
                if until <= now + Duration::from_secs(1) {
                    quiesce.end(now, Some(longest));
                }
            }
            now += Duration::from_secs(1);
        }
        assert!((300..=370).contains(&paused.as_secs()), "{paused:?}");
        // An application that came back was ended: its next end may come at any time.
        quiesce.end(now, None);
        assert!(quiesce.begin(now, longest));
    }

    #[tokio::test]
    async fn a_hook_that_stops_nothing_waits_for_the_calls_of_now_and_is_remembered() {
        let (quiesce, longest, now) = (Quiesce::new(), Duration::from_secs(35), Instant::now());
        quiesce.end(now, Some(longest));
        assert!(!quiesce.is_likely());
        assert!(!quiesce.begin(now, longest));
        assert!(quiesce.is_likely() && !quiesce.is_on());
        quiesce.likely().await;
        let first = quiesce.open();
        let mut idle = std::pin::pin!(quiesce.idle());
        assert!(tokio::time::timeout(Duration::from_millis(20), idle.as_mut()).await.is_err());
        let _second = quiesce.open();
        drop(first);
        tokio::time::timeout(Duration::from_secs(10), idle).await.unwrap();
        quiesce.suspected.send_replace(Some(now));
        assert!(!quiesce.is_likely(), "not for ever");
    }

    #[tokio::test]
    async fn calls_are_counted_until_they_are_dropped() {
        let quiesce = Quiesce::new();
        let (first, second) = (quiesce.open(), quiesce.open());
        drop(first);
        assert!(tokio::time::timeout(Duration::from_millis(20), quiesce.idle()).await.is_err());
        drop(second);
        tokio::time::timeout(Duration::from_secs(10), quiesce.idle()).await.unwrap();
    }
}
