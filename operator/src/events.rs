//! Kubernetes Events on changes of conditions: best effort, bounded, and never waited for.

use std::sync::Arc;

use capstan_crds::condition::{READY, reason};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tracing::debug;

use crate::api::bounded;
use crate::condition::find;
use crate::limiter::Limiter;
use crate::metrics::{EventFate, Metrics};

/// Events that wait to be published; more are dropped.
const WAITING_MAX: usize = 256;
/// Events per second; more wait. The recorder remembers each kind for six minutes, so this bounds its memory too.
const PER_SECOND: u32 = 5;
/// How often one that waits is looked at.
const TURN: std::time::Duration = std::time::Duration::from_millis(50);
/// Longest note the API takes.
const NOTE_BYTES_MAX: usize = 1024;

/// Reasons that are no cause for worry: they pass, or somebody wants it so.
const PASSING: [&str; 9] = [
    reason::PENDING,
    reason::NOT_DECLARED,
    reason::ROLLING_OUT,
    reason::NO_CONSUMER,
    reason::PAUSED,
    reason::RESIZE_IN_PROGRESS,
    reason::FILE_SYSTEM_RESIZE_PENDING,
    reason::UPGRADING,
    reason::UPGRADE_WAITING,
];

/// Publishes events in the background.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    sender: mpsc::Sender<(Change, ObjectReference)>,
    metrics: Arc<Metrics>,
}

/// A change that is yet to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    is_warning: bool,
    action: String,
    reason: String,
    note: String,
}

impl Events {
    /// The publisher, and the task that has to run for it.
    pub(crate) fn new(
        client: Client,
        identity: String,
        metrics: &Arc<Metrics>,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let reporter = Reporter { controller: "capstan-operator".to_owned(), instance: Some(identity) };
        let publisher = publish(Recorder::new(client, reporter), receiver, Arc::clone(metrics));
        (Self { sender, metrics: Arc::clone(metrics) }, publisher)
    }

    /// Tells what happened to an object, and is no cause for worry.
    pub(crate) fn tell(&self, object: &ObjectReference, action: &str, reason: &str, note: &str) {
        let event = Change {
            is_warning: false,
            action: action.to_owned(),
            reason: reason.to_owned(),
            note: shortened(note),
        };
        if self.sender.try_send((event, object.clone())).is_err() {
            self.metrics.event(EventFate::Dropped);
        }
    }

    /// Tells what changed between the conditions of an object.
    pub(crate) fn changed(
        &self,
        object: &ObjectReference,
        old: &[Condition],
        new: &[Condition],
        bad_when_true: &[&str],
    ) {
        for event in changes(old, new, bad_when_true) {
            // A full channel drops it: the conditions themselves say the same.
            if self.sender.try_send((event, object.clone())).is_err() {
                self.metrics.event(EventFate::Dropped);
            }
        }
    }
}

/// One event per new reason. What is well from the start is no news.
fn changes(old: &[Condition], new: &[Condition], bad_when_true: &[&str]) -> Vec<Change> {
    let mut events: Vec<Change> = Vec::new();
    for condition in new {
        // Of what is unknown nobody knows that it is bad.
        let is_bad = condition.status != "Unknown"
            && (condition.status == "True") == bad_when_true.contains(&condition.type_.as_str())
            || condition.reason == reason::STORE_REPLACED;
        let before = find(old, &condition.type_);
        let is_same =
            before.is_some_and(|old| old.status == condition.status && old.reason == condition.reason);
        let is_first = before.is_none() && !is_bad && condition.type_ != READY;
        if is_same || is_first || events.iter().any(|event| event.reason == condition.reason) {
            continue;
        }
        events.push(Change {
            is_warning: is_bad && !PASSING.contains(&condition.reason.as_str()),
            action: condition.type_.clone(),
            reason: condition.reason.clone(),
            note: shortened(&condition.message),
        });
    }
    events
}

fn shortened(text: &str) -> String {
    let end =
        text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= NOTE_BYTES_MAX).last();
    text[..end.unwrap_or(0)].to_owned()
}

async fn publish(
    recorder: Recorder,
    mut events: mpsc::Receiver<(Change, ObjectReference)>,
    metrics: Arc<Metrics>,
) {
    let limiter = Limiter::new(PER_SECOND);
    while let Some((event, object)) = events.recv().await {
        while !limiter.try_take() {
            tokio::time::sleep(TURN).await;
        }
        let event = Event {
            type_: if event.is_warning { EventType::Warning } else { EventType::Normal },
            reason: event.reason,
            note: Some(event.note),
            action: event.action,
            secondary: None,
        };
        let published = bounded(recorder.publish(&event, &object)).await;
        metrics.event(if published.is_ok() { EventFate::Published } else { EventFate::Failed });
        if let Err(error) = published {
            debug!(%error, reason = event.reason, "event not published");
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::condition::{Conditions, Verdict};

    fn conditions(list: &[(&'static str, bool, &'static str)]) -> Vec<Condition> {
        let now = Time(jiff::Timestamp::UNIX_EPOCH);
        let verdict =
            |holds, reason| if holds { Verdict::yes(reason, "m") } else { Verdict::no(reason, "m") };
        let set = |all: Conditions<'_>, (type_, holds, reason): &(&str, bool, &'static str)| {
            all.set(type_, &verdict(*holds, reason)).finish()
        };
        list.iter().flat_map(|one| set(Conditions::new(&[], None, &now), one)).collect()
    }

    #[test]
    fn changes_are_told_once() {
        let none = conditions(&[]);
        let bad = conditions(&[
            ("Accepted", true, "Accepted"),
            ("BrokerResolved", false, "BrokerNotFound"),
            ("Ready", false, "BrokerNotFound"),
        ]);
        let events = changes(&none, &bad, &[]);
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].is_warning, events[0].reason.as_str()), (true, "BrokerNotFound"));
        assert_eq!(changes(&bad, &bad, &[]), []);
        let good = conditions(&[
            ("Accepted", true, "Accepted"),
            ("BrokerResolved", true, "Resolved"),
            ("Ready", true, "AsDeclared"),
        ]);
        let reasons: Vec<(bool, String)> =
            changes(&bad, &good, &[]).into_iter().map(|e| (e.is_warning, e.reason)).collect();
        assert_eq!(reasons, [(false, "Resolved".into()), (false, "AsDeclared".into())]);
    }

    #[test]
    fn what_passes_is_no_warning() {
        let events = changes(&[], &conditions(&[("SidecarsInjected", false, "RollingOut")]), &[]);
        assert!(!events[0].is_warning);
    }

    #[test]
    fn a_lost_store_is_a_warning_although_the_broker_is_there() {
        let before = conditions(&[("BrokerResolved", true, "Resolved")]);
        let lost = conditions(&[("BrokerResolved", true, "StoreReplaced")]);
        let events = changes(&before, &lost, &[]);
        assert!(
            matches!(&events[..], [one] if one.is_warning && one.reason == "StoreReplaced"),
            "{events:?}"
        );
        assert_eq!(changes(&lost, &lost, &[]), []);
        assert!(!changes(&lost, &before, &[])[0].is_warning);
    }

    #[test]
    fn some_conditions_are_bad_when_they_hold() {
        let calm = conditions(&[("InjectionContested", false, "Uncontested")]);
        let contested = conditions(&[("InjectionContested", true, "Conflict")]);
        assert_eq!(changes(&[], &calm, &["InjectionContested"]), []);
        assert!(changes(&calm, &contested, &["InjectionContested"])[0].is_warning);
    }

    #[test]
    fn notes_end_at_a_character() {
        assert_eq!(shortened("short"), "short");
        let long = "é".repeat(600);
        assert_eq!(shortened(&long).len(), 1024);
        assert_eq!(shortened(&format!("a{long}")).len(), 1023);
    }
}
