//! The status of a Consumer. Pure.

use capstan_api::control::ApplicationState;
use capstan_crds::condition::{
    ACCEPTED, APP_REACHABLE, DRAIN_BOUNDED, INJECTION_CONTESTED, READY, SIDECARS_INJECTED, TARGET_RESOLVED,
    reason,
};
use capstan_crds::consumer::{Injection as Parameters, Replicas, SidecarStatus};
use capstan_crds::{Consumer, ConsumerFinding, ConsumerStatus, Queue, ResolvedConsumer};
use capstan_inject::{Action, Claimant, MARGIN_SECONDS, Plan, drain_seconds};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

use super::calls::calls;
use super::inject::Injection;
use super::scale::{not_scaled, scaling, target_of};
use crate::condition::{Conditions, Verdict, find};
use crate::demand::Numbers;
use crate::reach::Reachable;
use crate::scaling::Shown;
use crate::world::Workload;

/// Conditions that are bad news when they hold.
pub(super) const BAD_WHEN_TRUE: &[&str] = &[INJECTION_CONTESTED];

/// Why a Queue takes no sends, and delivers all the same.
const FULL: [&str; 2] = [reason::QUEUE_FULL, reason::STORAGE_FULL];

/// What is known of the workload of a push consumer.
pub(super) struct Target<'a> {
    pub(super) plan: &'a Plan,
    pub(super) workload: Option<&'a Workload>,
    /// When there was something to bring about.
    pub(super) injection: Option<&'a Injection>,
    pub(super) sidecar: Option<&'a SidecarStatus>,
    /// What the admission policy is told.
    pub(super) parameters: Option<&'a Parameters>,
}

/// What brokers say of a Consumer, and what follows from it.
pub(super) struct Said {
    pub(super) application: Reachable,
    /// What is shown of its scaling; absent also before the first look at it.
    pub(super) scale: Option<Shown>,
    pub(super) numbers: Option<Numbers>,
}

/// What is to be said of a push consumer.
pub(super) fn push(
    claimant: &Claimant,
    target: &Target<'_>,
    queue: Option<&Queue>,
    said: &Said,
    now: &Time,
) -> ConsumerStatus {
    let consumer = claimant.consumer.as_ref();
    let old = consumer.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let accepted = accepted(&claimant.resolved);
    let resolved = target_resolved(&claimant.resolved, target.plan);
    let injected = injected(target);
    let contested = target.injection.map_or_else(uncontested, |injection| injection.contested.clone());
    let not_scaled = not_scaled(consumer, said.scale.as_ref());
    let verdicts: Vec<&Verdict> = [&accepted, &resolved, &injected].into_iter().chain(&not_scaled).collect();
    let ready = ready(&verdicts, queue);
    ConsumerStatus {
        observed_generation: consumer.metadata.generation,
        replicas: target.workload.map(|workload| Replicas {
            desired: workload.replicas,
            ready: workload.ready,
            target: target_of(consumer, said),
        }),
        calls: calls(
            consumer.status.as_ref().and_then(|status| status.calls.as_ref()),
            said.numbers.as_ref(),
            now,
        ),
        sidecar: target.sidecar.cloned(),
        injection: parameters(consumer, target),
        conditions: scaling(
            reachable(
                drain(conditions(old, consumer, now), consumer, target.workload)
                    .set(READY, &ready)
                    .set(ACCEPTED, &accepted)
                    .set(TARGET_RESOLVED, &resolved)
                    .set(SIDECARS_INJECTED, &injected)
                    .set(INJECTION_CONTESTED, &contested),
                consumer,
                (&said.application, target.workload),
            ),
            consumer,
            &resolved,
            said.scale.as_ref(),
        )
        .finish(),
    }
}

/// What the admission policy is told. While nothing is decided, as when the Queue is away for a moment, it goes on as before.
fn parameters(consumer: &Consumer, target: &Target<'_>) -> Option<Parameters> {
    let is_open =
        target.plan.action == Action::Leave && target.plan.target.holds && target.workload.is_some();
    match target.parameters {
        None if is_open && !target.plan.is_manual => {
            consumer.status.as_ref().and_then(|status| status.injection.clone())
        }
        parameters => parameters.cloned(),
    }
}

/// Adds whether a pod's end may cut calls. It is no part of being ready: what is cut is delivered again.
fn drain<'a>(conditions: Conditions<'a>, consumer: &Consumer, workload: Option<&Workload>) -> Conditions<'a> {
    let Some(workload) = workload else { return conditions };
    let (grace, timeout) = (workload.grace_seconds, consumer.spec.endpoint.timeout.get().as_secs());
    let drain = drain_seconds(grace);
    let verdict = if timeout > drain {
        Verdict::yes(
            reason::GRACE_PERIOD_SHORT,
            format!(
                "a call may take {timeout} s (endpoint.timeout), but pods have {grace} s to end: calls that take longer than \
                 {drain} s are cut then, and their messages delivered again; set terminationGracePeriodSeconds of the workload to \
                 {} or more, or endpoint.timeout to {drain}s",
                timeout + MARGIN_SECONDS
            ),
        )
    } else {
        Verdict::no(reason::GRACE_PERIOD_SUFFICES, "pods have time to end every call")
    };
    conditions.set(DRAIN_BOUNDED, &verdict)
}

/// Adds whether the applications take batches. It is no part of being ready: they start and end with every rollout.
fn reachable<'a>(
    conditions: Conditions<'a>,
    consumer: &Consumer,
    (application, workload): (&Reachable, Option<&Workload>),
) -> Conditions<'a> {
    let old = consumer.status.as_ref().and_then(|status| find(&status.conditions, APP_REACHABLE));
    let is_own = |said: &ApplicationState| said.consumer.as_str() == consumer.name_any();
    match application {
        Reachable::Said(said) if is_own(said) => conditions.set(APP_REACHABLE, &reach(consumer, said)),
        Reachable::Kept if old.is_some() => conditions.keep(old),
        _ => conditions.set_unknown(
            APP_REACHABLE,
            reason::NOT_REPORTED,
            if workload.is_some_and(|workload| workload.replicas == 0) {
                "there are no pods"
            } else {
                "no sidecar says whether its application takes batches"
            },
        ),
    }
}

fn reach(consumer: &Consumer, application: &ApplicationState) -> Verdict {
    let ApplicationState { reachable, unreachable, example, .. } = application;
    let total = reachable + unreachable;
    let pods = if total == 1 { "pod" } else { "pods" };
    if *unreachable == 0 {
        return Verdict::yes(reason::REACHABLE, format!("the applications of {total} {pods} take batches"));
    }
    let endpoint = &consumer.spec.endpoint;
    let example = example.as_ref().map(|one| format!("{} in pod {}", one.reason, one.pod));
    Verdict::no(
        reason::UNREACHABLE,
        format!(
            "in {unreachable} of {total} {pods} the application takes no batches ({}): see that it listens on port {} and \
             takes POST {}, or correct endpoint.port and endpoint.path; no message loses an attempt by this",
            example.unwrap_or_default(),
            endpoint.port,
            endpoint.path
        ),
    )
}

/// What is to be said of a pull consumer.
pub(super) fn pull(
    consumer: &Consumer,
    resolved: &ResolvedConsumer,
    queue: Option<&Queue>,
    now: &Time,
) -> ConsumerStatus {
    let old = consumer.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let accepted = accepted(resolved);
    let ready = ready(&[&accepted], queue);
    ConsumerStatus {
        observed_generation: consumer.metadata.generation,
        replicas: None,
        calls: None,
        sidecar: None,
        injection: None,
        conditions: conditions(old, consumer, now).set(READY, &ready).set(ACCEPTED, &accepted).finish(),
    }
}

fn conditions<'a>(old: &'a [Condition], consumer: &Consumer, now: &'a Time) -> Conditions<'a> {
    Conditions::new(old, consumer.metadata.generation, now)
}

fn accepted(resolved: &ResolvedConsumer) -> Verdict {
    let queue = &resolved.queue.name;
    match &resolved.finding {
        ConsumerFinding::Accepted => Verdict::yes(reason::ACCEPTED, format!("the Consumer of Queue {queue}")),
        ConsumerFinding::InvalidName => Verdict::no(
            reason::INVALID_NAME,
            "the name cannot be used on the wire: create a Consumer with a name of at most 63 of a-z, 0-9 and '-'",
        ),
        ConsumerFinding::QueueNotFound => Verdict::no(
            reason::QUEUE_NOT_FOUND,
            format!(
                "there is no Queue {queue} in this namespace: create it, or create a Consumer that names another"
            ),
        ),
        ConsumerFinding::QueueAlreadyConsumed { by } => Verdict::no(
            reason::QUEUE_ALREADY_CONSUMED,
            format!("Consumer {by} has Queue {queue}: delete it, and this one takes over"),
        ),
        ConsumerFinding::DeadLetterQueueElsewhere { broker, queue_broker } => Verdict::no(
            reason::DEAD_LETTER_QUEUE_ELSEWHERE,
            format!(
                "the dead-letter queue is stored by Broker {broker}, Queue {queue} by {queue_broker}: name one of the same Broker"
            ),
        ),
    }
}

fn target_resolved(resolved: &ResolvedConsumer, plan: &Plan) -> Verdict {
    if !plan.target.holds {
        return plan.target.clone();
    }
    match (&resolved.broker, &plan.broker) {
        (Some(own), Some(chosen)) if own != chosen => Verdict::no(
            reason::BROKER_MISMATCH,
            format!(
                "the workload's sidecar talks to Broker {}, for an older Consumer; Queue {} is stored by {}: use another workload, or a Queue of that Broker",
                chosen.name, resolved.queue.name, own.name
            ),
        ),
        _ => plan.target.clone(),
    }
}

/// Whether every pod has the sidecar.
fn injected(target: &Target<'_>) -> Verdict {
    if !target.plan.target.holds {
        return target.plan.target.clone();
    }
    if let Some(injection) = target.injection.filter(|injection| !injection.template.holds) {
        return injection.template.clone();
    }
    let Some(sidecar) = target.sidecar else {
        return Verdict::no(
            reason::PENDING,
            "nothing is injected before a Consumer of the workload is accepted",
        );
    };
    let with = sidecar.updated + sidecar.outdated;
    let total = with + sidecar.missing;
    let have = format!("{with} of {total} pods have the sidecar");
    let workload = target.workload;
    let has_template = target.plan.is_manual || workload.is_some_and(Workload::is_ours);
    if has_template && sidecar.missing == 0 {
        let held = target.injection.and_then(|injection| injection.held.as_ref());
        let held = held.map_or(String::new(), |held| format!(", {} an older one: {held}", sidecar.outdated));
        return Verdict::yes(reason::INJECTED, have + &held);
    }
    if workload.is_some_and(|workload| workload.is_paused) {
        let text = format!("{have}, and the rollout is paused: resume it with kubectl rollout resume");
        return Verdict::no(reason::ROLLING_OUT, text);
    }
    match workload.and_then(|workload| workload.failure.as_ref()) {
        Some(failure) => {
            Verdict::no(reason::INJECTION_REFUSED, format!("{have}, and no more can be made: {failure}"))
        }
        None => Verdict::no(reason::ROLLING_OUT, format!("{have}; the others are being replaced")),
    }
}

fn uncontested() -> Verdict {
    Verdict::no(reason::UNCONTESTED, "nobody else writes the sidecar's fields")
}

/// The first thing that is missing, or that nothing is.
fn ready(verdicts: &[&Verdict], queue: Option<&Queue>) -> Verdict {
    if let Some(verdict) = verdicts.iter().find(|verdict| !verdict.holds) {
        return (*verdict).clone();
    }
    let conditions =
        queue.and_then(|queue| queue.status.as_ref()).map_or(&[][..], |status| &status.conditions);
    match find(conditions, READY) {
        // A full queue is one for its Consumer to empty.
        Some(condition) if condition.status == "True" || FULL.contains(&condition.reason.as_str()) => {
            Verdict::yes(reason::AS_DECLARED, "everything the Consumer asks for is in force")
        }
        Some(condition) => {
            Verdict::no(reason::QUEUE_NOT_READY, format!("the Queue is not ready: {}", condition.message))
        }
        None => Verdict::no(reason::QUEUE_NOT_READY, "the Queue is not ready yet"),
    }
}

#[cfg(test)]
mod tests {
    use capstan_inject::plan;
    use capstan_inject::testing::{claimants, images, reference, workload};

    use super::*;

    fn queue(ready: &str) -> Queue {
        serde_yaml::from_str(&format!(
            "{{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {{name: a}}, spec: {{}}, status: {{conditions: [{{type: Ready, \
             status: '{ready}', reason: R, message: because, lastTransitionTime: '2026-01-01T00:00:00Z'}}]}}}}"
        ))
        .unwrap()
    }

    fn only(application: Reachable) -> Said {
        Said { application, scale: None, numbers: None }
    }

    fn sidecar(updated: u32, outdated: u32, missing: u32) -> SidecarStatus {
        SidecarStatus { mode: "Template".into(), version: "1".into(), updated, outdated, missing }
    }

    fn injected_workload() -> Workload {
        let plan = plan("shop", &reference(), Some(&workload()), &claimants(&[("one", "a", "")]), &images());
        let Action::Inject(injection) = plan.action else { panic!("not injected") };
        Workload { owns_sidecar: true, sidecar: Some(injection.container), ready: 1, ..workload() }
    }

    fn of(
        claimants: &[Claimant],
        which: usize,
        workload: Option<&Workload>,
        pods: &SidecarStatus,
    ) -> ConsumerStatus {
        let plan = plan("shop", &reference(), workload, claimants, &images());
        let target = Target {
            plan: &plan,
            workload,
            injection: None,
            sidecar: workload.map(|_| pods),
            parameters: None,
        };
        push(
            &claimants[which],
            &target,
            Some(&queue("True")),
            &only(Reachable::Unknown),
            &crate::status::now(),
        )
    }

    fn reach_of(one: &Claimant, said: Option<(&str, u32, u32)>) -> ConsumerStatus {
        let workload = injected_workload();
        let plan = plan("shop", &reference(), Some(&workload), &claimants(&[("one", "a", "")]), &images());
        let target = Target {
            plan: &plan,
            workload: Some(&workload),
            injection: None,
            sidecar: None,
            parameters: None,
        };
        let application = said.map(|(consumer, reachable, unreachable)| {
            Reachable::Said(ApplicationState {
                consumer: consumer.parse().unwrap(),
                reachable,
                unreachable,
                example: (unreachable > 0).then(|| capstan_api::control::UnreachablePod {
                    pod: "web-1".into(),
                    reason: "the application answered 404".into(),
                }),
            })
        });
        push(
            one,
            &target,
            Some(&queue("True")),
            &only(application.unwrap_or(Reachable::Kept)),
            &crate::status::now(),
        )
    }

    #[test]
    fn what_sidecars_say_of_their_applications_is_a_condition_and_no_matter_of_readiness() {
        let mut one = claimants(&[("one", "a", "")]).remove(0);
        let status = reach_of(&one, None);
        assert_eq!(reason_of(&status, APP_REACHABLE), ("Unknown", "NotReported"));
        let status = reach_of(&one, Some(("one", 2, 0)));
        assert_eq!(reason_of(&status, APP_REACHABLE), ("True", "Reachable"));
        let status = reach_of(&one, Some(("another", 0, 2)));
        assert_eq!(reason_of(&status, APP_REACHABLE), ("Unknown", "NotReported"), "said of another Consumer");
        let status = reach_of(&one, Some(("one", 1, 1)));
        assert_eq!(reason_of(&status, APP_REACHABLE), ("False", "Unreachable"));
        let message = &find(&status.conditions, APP_REACHABLE).unwrap().message;
        for part in ["in 1 of 2 pods", "answered 404 in pod web-1", "port 8080", "POST /,"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        // Nobody says anything any more, as after the broker's start: what is kept is of the spec it was found for.
        let mut old = one.consumer.as_ref().clone();
        old.status = Some(status.clone());
        old.metadata.generation = Some(4);
        one.consumer = std::sync::Arc::new(old);
        let kept = reach_of(&one, None);
        assert_eq!(find(&kept.conditions, APP_REACHABLE), find(&status.conditions, APP_REACHABLE));
        assert_eq!(find(&kept.conditions, READY).unwrap().observed_generation, Some(4));
    }

    fn reason_of<'a>(status: &'a ConsumerStatus, type_: &str) -> (&'a str, &'a str) {
        let condition = find(&status.conditions, type_).unwrap();
        assert_eq!(condition.observed_generation, Some(3));
        (&condition.status, &condition.reason)
    }

    #[test]
    fn a_consumer_is_ready_when_every_pod_has_the_sidecar_and_its_queue_is_ready() {
        let one = claimants(&[("one", "a", "")]);
        let status = of(&one, 0, Some(&injected_workload()), &sidecar(2, 0, 0));
        for (type_, expected) in [
            (READY, ("True", "AsDeclared")),
            (ACCEPTED, ("True", "Accepted")),
            (TARGET_RESOLVED, ("True", "Resolved")),
            (SIDECARS_INJECTED, ("True", "Injected")),
            (INJECTION_CONTESTED, ("False", "Uncontested")),
        ] {
            assert_eq!(reason_of(&status, type_), expected, "{type_}");
        }
        assert_eq!(status.replicas, Some(Replicas { desired: 2, ready: 1, target: None }));
        assert_eq!(status.observed_generation, Some(3));
    }

    #[test]
    fn pods_without_a_sidecar_are_a_rollout_and_older_sidecars_are_not() {
        let one = claimants(&[("one", "a", "")]);
        let status = of(&one, 0, Some(&injected_workload()), &sidecar(1, 0, 1));
        assert_eq!(reason_of(&status, READY), ("False", "RollingOut"));
        assert!(find(&status.conditions, SIDECARS_INJECTED).unwrap().message.starts_with("1 of 2 pods"));
        let status = of(&one, 0, Some(&injected_workload()), &sidecar(0, 2, 0));
        assert_eq!(reason_of(&status, READY), ("True", "AsDeclared"));
        let paused = Workload { is_paused: true, ..injected_workload() };
        let status = of(&one, 0, Some(&paused), &sidecar(0, 0, 2));
        assert!(find(&status.conditions, READY).unwrap().message.contains("rollout resume"));
        let none = Workload { replicas: 0, ready: 0, ..injected_workload() };
        assert_eq!(reason_of(&of(&one, 0, Some(&none), &sidecar(0, 0, 0)), READY), ("True", "AsDeclared"));
    }

    #[test]
    fn a_template_without_the_sidecar_is_not_injected_even_without_pods() {
        let one = claimants(&[("one", "a", "")]);
        let status = of(&one, 0, Some(&workload()), &sidecar(0, 0, 0));
        assert_eq!(reason_of(&status, SIDECARS_INJECTED), ("False", "RollingOut"));
    }

    #[test]
    fn the_first_thing_that_is_missing_is_why_it_is_not_ready() {
        let both = claimants(&[("one", "a", ""), ("two", "a", "")]);
        let status = of(&both, 1, Some(&injected_workload()), &sidecar(2, 0, 0));
        assert_eq!(reason_of(&status, READY), ("False", "QueueAlreadyConsumed"));
        assert!(find(&status.conditions, READY).unwrap().message.contains("Consumer one"));
        let lost = claimants(&[("one", "missing", "")]);
        assert_eq!(
            reason_of(&of(&lost, 0, Some(&workload()), &sidecar(0, 0, 2)), READY),
            ("False", "QueueNotFound")
        );
        let one = claimants(&[("one", "a", "")]);
        assert_eq!(reason_of(&of(&one, 0, None, &sidecar(0, 0, 0)), READY), ("False", "TargetNotFound"));
    }

    #[test]
    fn a_consumer_of_another_broker_than_the_sidecars_is_a_mismatch() {
        let both = claimants(&[("one", "a", ""), ("two", "elsewhere", "")]);
        let older = of(&both, 0, Some(&injected_workload()), &sidecar(2, 0, 0));
        let younger = of(&both, 1, Some(&injected_workload()), &sidecar(2, 0, 0));
        assert_eq!(reason_of(&older, READY), ("True", "AsDeclared"));
        assert_eq!(reason_of(&younger, READY), ("False", "BrokerMismatch"));
    }

    /// Definitions of an older version may let such a name in.
    #[test]
    fn a_name_that_cannot_be_used_on_the_wire_is_said() {
        let mut one = claimants(&[("one", "a", "")]);
        one[0].resolved.finding = ConsumerFinding::InvalidName;
        let status = of(&one, 0, Some(&workload()), &sidecar(0, 0, 0));
        assert_eq!(reason_of(&status, ACCEPTED), ("False", "InvalidName"));
    }

    #[test]
    fn a_queue_that_is_not_ready_says_why() {
        let one = claimants(&[("one", "a", "")]);
        let status = pull(&one[0].consumer, &one[0].resolved, Some(&queue("False")), &crate::status::now());
        assert_eq!(reason_of(&status, READY), ("False", "QueueNotReady"));
        assert!(find(&status.conditions, READY).unwrap().message.contains("because"));
        let status = pull(&one[0].consumer, &one[0].resolved, Some(&queue("True")), &crate::status::now());
        assert_eq!(reason_of(&status, READY), ("True", "AsDeclared"));
    }
}
