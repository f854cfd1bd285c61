//! The election of one active operator among several, by a Lease.
//!
//! Clocks of different machines are never compared: who wants the Lease measures, by its own monotonic clock, how long it has not
//! changed. A clock that is wrong or that is set thus makes no second active operator. Every write names the version that was read,
//! so that of two who try at once one is refused.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::api::{ApiError, bounded, create};

/// The Lease.
pub(crate) const NAME: &str = "capstan-operator";
/// Another operator takes over when it has not seen a change of the Lease for so long.
pub(crate) const DURATION: Duration = Duration::from_secs(15);
/// The active one stops when it could not renew the Lease for so long, whatever it waits for then: well before another may take
/// over.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often the active one renews it.
const RENEW: Duration = Duration::from_secs(4);
/// How often the others look, and how soon what failed is tried again.
const LOOK: Duration = Duration::from_secs(1);
/// How long a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// A Lease, and what this operator knows of it.
pub(crate) struct Election {
    api: Api<Lease>,
    identity: String,
    view: View,
}

/// What is seen of a Lease over time. Pure.
#[derive(Debug, Default)]
struct View {
    /// Its version, and when that was first seen.
    seen: Option<(String, Instant)>,
    /// When this operator began to renew it last, successfully.
    renewed: Option<Instant>,
}

/// What to do about a Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Create,
    /// Take it: nobody has it, or who had it is gone.
    Take,
    /// Renew it: it is ours.
    Renew,
    /// Another operator has it.
    Wait,
}

impl View {
    fn decide(&mut self, lease: Option<&Lease>, identity: &str, now: Instant) -> Step {
        let Some(lease) = lease else { return Step::Create };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => now,
        };
        self.seen = Some((version, since));
        let spec = lease.spec.as_ref();
        match spec.and_then(|spec| spec.holder_identity.as_deref()).filter(|holder| !holder.is_empty()) {
            None => Step::Take,
            // Of this life, or of an earlier one: a container that was restarted keeps its pod's name.
            Some(holder) if holder == identity => Step::Renew,
            Some(_) if now.duration_since(since) >= duration(spec) => Step::Take,
            Some(_) => Step::Wait,
        }
    }

    /// Until when this operator may act without renewing the Lease.
    fn deadline(&self) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + DEADLINE)
    }

    /// Whether this operator may act.
    fn is_active(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| now < deadline)
    }
}

/// As the holder wrote it, but not for ever.
fn duration(spec: Option<&LeaseSpec>) -> Duration {
    let seconds =
        spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(DURATION, Duration::from_secs).clamp(DURATION, 10 * DURATION)
}

impl Election {
    pub(crate) fn new(client: Client, namespace: &str, identity: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), identity: identity.to_owned(), view: View::default() }
    }

    /// A step that ends at the deadline, answered or not: then this operator is not the active one until it renewed the Lease.
    async fn step_in_time(&mut self) -> Result<(), ApiError> {
        let Some(deadline) = self.view.deadline() else { return self.step().await };
        match tokio::time::timeout_at(deadline, self.step()).await {
            Ok(done) => done,
            Err(_) => {
                self.view.renewed = None;
                Err(ApiError::Unavailable(format!("the Lease was not renewed for {} s", DEADLINE.as_secs())))
            }
        }
    }

    /// Looks at the Lease, and takes or renews it.
    async fn step(&mut self) -> Result<(), ApiError> {
        let lease = soon(self.api.get_opt(NAME)).await?;
        let now = Instant::now();
        match self.view.decide(lease.as_ref(), &self.identity, now) {
            Step::Wait => self.view.renewed = None,
            Step::Create => {
                self.view.renewed = None;
                let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
                tokio::time::timeout(REQUEST_TIMEOUT, create(&self.api, &Lease { metadata, spec: None }))
                    .await
                    .map_err(|_| silent())??;
            }
            step @ (Step::Take | Step::Renew) => {
                let lease = lease.unwrap_or_default();
                self.write(&lease, json!(spec(&lease, &self.identity, step == Step::Take))).await?;
                self.view.renewed = Some(now);
            }
        }
        Ok(())
    }

    /// Gives the Lease back if it is ours.
    async fn resign(&mut self) -> Result<(), ApiError> {
        let Some(lease) = soon(self.api.get_opt(NAME)).await? else { return Ok(()) };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        if holder != Some(&self.identity) {
            return Ok(());
        }
        self.write(&lease, json!({"holderIdentity": null, "acquireTime": null, "renewTime": null})).await
    }

    /// Writes the Lease if nobody else did meanwhile.
    async fn write(&mut self, lease: &Lease, spec: serde_json::Value) -> Result<(), ApiError> {
        let version = &lease.metadata.resource_version;
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": spec});
        let params = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
        let written = soon(self.api.patch(NAME, &params, &Patch::Merge(patch))).await?;
        self.view.seen = written.metadata.resource_version.map(|version| (version, Instant::now()));
        Ok(())
    }
}

fn spec(old: &Lease, identity: &str, is_taken: bool) -> LeaseSpec {
    let (now, old) = (MicroTime(jiff::Timestamp::now()), old.spec.clone().unwrap_or_default());
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: if is_taken { Some(now.clone()) } else { old.acquire_time },
        renew_time: Some(now),
        lease_transitions: Some(old.lease_transitions.unwrap_or_default() + i32::from(is_taken)),
        ..LeaseSpec::default()
    }
}

async fn soon<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, ApiError> {
    tokio::time::timeout(REQUEST_TIMEOUT, bounded(request)).await.map_err(|_| silent())?
}

fn silent() -> ApiError {
    ApiError::Unavailable(format!("none within {} s", REQUEST_TIMEOUT.as_secs()))
}

/// Takes part until nobody listens any more, then gives the Lease back.
pub(crate) async fn run(mut election: Election, is_active: watch::Sender<bool>) {
    loop {
        if let Err(error) = election.step_in_time().await {
            match error {
                ApiError::Stale(_) => debug!(%error, "another operator was quicker"),
                error => warn!(%error, "the Lease was not read or renewed; trying again"),
            }
        }
        let now = Instant::now();
        is_active
            .send_if_modified(|active| std::mem::replace(active, election.view.is_active(now)) != *active);
        if is_closed_within(&is_active, pause(&election.view, now)).await {
            break;
        }
    }
    if let Err(error) = election.resign().await {
        warn!(%error, "the Lease was not given back; it ends by itself");
    }
}

/// The next look is soon after a failure, and never after the deadline.
fn pause(view: &View, now: Instant) -> Duration {
    let pause = match view.renewed {
        Some(renewed) if now.duration_since(renewed) < RENEW => RENEW - now.duration_since(renewed),
        _ => LOOK,
    };
    view.deadline().map_or(pause, |deadline| pause.min(deadline.saturating_duration_since(now)))
}

async fn is_closed_within(sender: &watch::Sender<bool>, pause: Duration) -> bool {
    tokio::time::timeout(pause, sender.closed()).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(version: &str, holder: Option<&str>) -> Lease {
        let metadata = ObjectMeta { resource_version: Some(version.into()), ..ObjectMeta::default() };
        let spec = LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(15),
            // Times of other clocks are of no concern.
            renew_time: Some(MicroTime(jiff::Timestamp::UNIX_EPOCH)),
            ..LeaseSpec::default()
        };
        Lease { metadata, spec: Some(spec) }
    }

    #[test]
    fn who_holds_it_keeps_it_as_long_as_it_changes() {
        let (mut view, start) = (View::default(), Instant::now());
        for second in 0..60 {
            let version = (second / 14).to_string();
            let now = start + Duration::from_secs(second);
            assert_eq!(view.decide(Some(&lease(&version, Some("other"))), "me", now), Step::Wait, "{second}");
        }
    }

    #[test]
    fn who_does_not_renew_it_loses_it_after_its_duration() {
        let (mut view, start) = (View::default(), Instant::now());
        let mut at = |millis| {
            view.decide(Some(&lease("1", Some("other"))), "me", start + Duration::from_millis(millis))
        };
        assert_eq!([at(0), at(14_900), at(15_000)], [Step::Wait, Step::Wait, Step::Take]);
    }

    #[test]
    fn what_nobody_holds_is_taken_at_once() {
        let (mut view, now) = (View::default(), Instant::now());
        assert_eq!(view.decide(None, "me", now), Step::Create);
        assert_eq!(view.decide(Some(&lease("1", None)), "me", now), Step::Take);
        assert_eq!(view.decide(Some(&lease("1", Some(""))), "me", now), Step::Take);
        assert_eq!(view.decide(Some(&Lease::default()), "me", now), Step::Take);
        assert_eq!(view.decide(Some(&lease("1", Some("me"))), "me", now), Step::Renew, "an earlier life's");
    }

    #[test]
    fn a_duration_that_makes_no_sense_is_bounded() {
        let of = |seconds| {
            duration(Some(&LeaseSpec { lease_duration_seconds: seconds, ..LeaseSpec::default() })).as_secs()
        };
        assert_eq!(
            [of(None), of(Some(-1)), of(Some(1)), of(Some(30)), of(Some(i32::MAX))],
            [15, 15, 15, 30, 150]
        );
    }

    #[test]
    fn the_active_one_stops_well_before_another_may_start() {
        let start = Instant::now();
        let view = View { renewed: Some(start), ..View::default() };
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(view.is_active(after(9)) && !view.is_active(after(10)));
        assert!(!View::default().is_active(start));
        // Clocks need not run equally fast, and work that is cut off may still be on its way.
        assert!(DEADLINE + Duration::from_secs(4) < DURATION);
        assert_eq!(pause(&view, after(1)), RENEW - Duration::from_secs(1));
        assert_eq!(pause(&view, after(5)), LOOK);
        assert_eq!(pause(&view, start + Duration::from_millis(9_600)), Duration::from_millis(400));
    }

    /// An API server that gives the Lease to who asks first, and then answers reads after a while and no writes. Reads may take
    /// longer than anybody waits.
    fn falls_silent(read: Duration) -> Client {
        let writes = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let server = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let writes = std::sync::Arc::clone(&writes);
            async move {
                use std::sync::atomic::Ordering;
                if request.method() == http::Method::PATCH && writes.fetch_add(1, Ordering::Relaxed) > 0 {
                    std::future::pending::<()>().await;
                }
                let holder = if writes.load(Ordering::Relaxed) == 0 {
                    None
                } else {
                    if request.method() == http::Method::GET {
                        tokio::time::sleep(read).await;
                    }
                    Some("me")
                };
                let text = serde_json::to_vec(&lease("1", holder)).unwrap();
                Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::from(text)))
            }
        });
        Client::new(server, "system")
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_active_longer_than_the_deadline_whatever_is_waited_for() {
        for millis in [0, 500, 900, 2_000, 2_900, 2_999, 3_000, 60_000] {
            let (sender, mut is_active) = watch::channel(false);
            let client = falls_silent(Duration::from_millis(millis));
            let running = tokio::spawn(run(Election::new(client, "system", "me"), sender));
            is_active.wait_for(|active| *active).await.unwrap();
            let start = Instant::now();
            is_active.wait_for(|active| !*active).await.unwrap();
            let took = start.elapsed();
            // A millisecond is what timers have.
            let late = took.saturating_sub(DEADLINE);
            assert!(late <= Duration::from_millis(2), "{millis} ms: {took:?}");
            assert!(took >= DEADLINE - Duration::from_millis(2), "{millis} ms: {took:?}");
            running.abort();
        }
    }

    #[test]
    fn a_lease_counts_how_often_it_was_taken() {
        let old = Lease {
            spec: Some(LeaseSpec { lease_transitions: Some(4), ..LeaseSpec::default() }),
            ..Lease::default()
        };
        assert_eq!(spec(&old, "me", true).lease_transitions, Some(5));
        let renewed = spec(&old, "me", false);
        assert_eq!((renewed.lease_transitions, renewed.acquire_time), (Some(4), None));
    }
}
