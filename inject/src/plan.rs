//! What is to be done with a workload, from it and the Consumers that name it. Pure.

use std::sync::Arc;

use capstan_api::workload::Workload as Reference;
use capstan_crds::condition::{Verdict, reason};
use capstan_crds::consumer::{AppPreStop, Sidecar, UpdatePolicy};
use capstan_crds::{Consumer, ConsumerFinding, Key, ResolvedConsumer};
use k8s_openapi::api::core::v1::Container;

use crate::container::{GATEWAY_PORT, Images, sidecar};
use crate::manual::{difference, rendered, variable};
use crate::{Hook, Identity, Workload};

/// A Consumer that names the workload.
#[derive(Debug, Clone)]
pub struct Claimant {
    pub consumer: Arc<Consumer>,
    pub resolved: ResolvedConsumer,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Leave the workload as it is.
    Leave,
    /// Give its pods this sidecar.
    Inject(Box<Injection>),
    /// Take away what was given.
    Remove,
}

/// The sidecar that pods are to have, in whatever way it gets there.
#[derive(Debug, Clone, PartialEq)]
pub struct Injection {
    pub identity: Identity,
    /// As it stands in the pod template.
    pub container: Container,
    /// Containers of the template that get a hook there, and the port that it calls.
    pub hooks: Vec<(String, u16)>,
    /// Whether running pods are replaced when the sidecar is of an older version.
    pub is_rolling: bool,
}

/// What is to be done, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub action: Action,
    /// Whether the workload can be injected.
    pub target: Verdict,
    /// The Broker of the sidecar, see [`broker`].
    pub broker: Option<Key>,
    /// The sidecar of pods that may have one; also those of a workload that does not exist yet.
    pub identity: Option<Identity>,
    /// Whether the workload's own manifest has the sidecar.
    pub is_manual: bool,
}

/// Sorts the Consumers of a workload: the oldest, which decides what only one can decide, first.
pub fn sort(claimants: &mut [Claimant]) {
    claimants.sort_by_key(|claimant| {
        let metadata = &claimant.consumer.metadata;
        let created = metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, metadata.uid.clone(), metadata.name.clone())
    });
}

/// The Broker that the sidecars of a workload talk to: that of the oldest accepted of its Consumers, which are sorted.
#[must_use]
pub fn broker(claimants: &[Claimant]) -> Option<&Key> {
    claimants.iter().filter(|one| is_accepted(one)).find_map(|one| one.resolved.broker.as_ref())
}

/// Plans. `claimants` are sorted; `workload` is what the cluster has, if anything.
#[must_use]
pub fn plan(
    namespace: &str,
    reference: &Reference,
    workload: Option<&Workload>,
    claimants: &[Claimant],
    images: &Images,
) -> Plan {
    let broker = broker(claimants).cloned();
    let plan =
        |action, target| Plan { action, target, broker: broker.clone(), identity: None, is_manual: false };
    let Some(oldest) = claimants.first() else {
        return plan(workload.map_or(Action::Leave, withdraw), Verdict::yes(reason::RESOLVED, ""));
    };
    let settings = &oldest.consumer.spec.sidecar;
    let identity = broker.as_ref().map(|broker| Identity::new(namespace, reference, broker, settings));
    let Some(workload) = workload else {
        return Plan { identity, ..plan(Action::Leave, not_found(namespace, reference)) };
    };
    if let Some((action, target)) = obstacle(reference, workload, claimants, settings, images) {
        return plan(action, target);
    }
    if let Some(container) = rendered(workload, reference) {
        let target = of_manual(&container, identity.as_ref());
        return Plan { is_manual: true, ..plan(withdraw(workload), target) };
    }
    // Without an accepted Consumer nothing is decided, and pods should not restart because a Queue is away for a moment.
    let inject = |identity| Action::Inject(Box::new(injection(identity, workload, settings, images)));
    let action = identity.clone().map_or(Action::Leave, inject);
    let target = Verdict::yes(reason::RESOLVED, format!("{reference} exists"));
    Plan { identity, ..plan(action, target) }
}

fn injection(identity: Identity, workload: &Workload, settings: &Sidecar, images: &Images) -> Injection {
    Injection {
        container: sidecar(&identity, workload.grace_seconds, images),
        hooks: hooks(workload, settings),
        identity,
        is_rolling: settings.update_policy == UpdatePolicy::Rolling,
    }
}

/// A hook of somebody's own stays; one of ours may call a port that the sidecar had before.
fn hooks(workload: &Workload, settings: &Sidecar) -> Vec<(String, u16)> {
    if settings.app_pre_stop == AppPreStop::None {
        return Vec::new();
    }
    let free = workload.containers.iter().filter(|(_, hook)| *hook != Hook::Other);
    free.map(|(name, _)| (name.clone(), settings.admin_port)).collect()
}

fn withdraw(workload: &Workload) -> Action {
    if workload.is_ours() { Action::Remove } else { Action::Leave }
}

/// What is to be said of a sidecar in the workload's own manifest.
fn of_manual(container: &Container, identity: Option<&Identity>) -> Verdict {
    match identity.and_then(|identity| difference(container, identity)) {
        Some((variable, is, should)) => Verdict::no(
            reason::RENDERED_DIFFERS,
            format!(
                "the manifest has the sidecar, with {variable} {is} instead of {should}: write it again with capstan inject, or take it out with capstan uninject"
            ),
        ),
        None => Verdict::yes(reason::RESOLVED, "the manifest has the sidecar, which is left as it is"),
    }
}

/// Whether a Consumer has its queue, even if it still has to wait for something else.
fn is_accepted(claimant: &Claimant) -> bool {
    matches!(
        claimant.resolved.finding,
        ConsumerFinding::Accepted | ConsumerFinding::DeadLetterQueueElsewhere { .. }
    )
}

fn not_found(namespace: &str, reference: &Reference) -> Verdict {
    Verdict::no(
        reason::TARGET_NOT_FOUND,
        format!("there is no {reference} in namespace {namespace}: create it, or correct targetRef"),
    )
}

/// Why a workload cannot be injected, and what is done about it.
fn obstacle(
    reference: &Reference,
    workload: &Workload,
    claimants: &[Claimant],
    settings: &Sidecar,
    images: &Images,
) -> Option<(Action, Verdict)> {
    if let Some(controller) = &workload.controller {
        let message = format!(
            "{controller} owns the workload and would take the sidecar out: name a workload without an owner"
        );
        return Some((Action::Leave, Verdict::no(reason::TARGET_CONTROLLED, message)));
    }
    if workload.host_network {
        let message =
            "the pods use hostNetwork, where the sidecar's ports would be open to the node: set it to false";
        return Some((withdraw(workload), Verdict::no(reason::HOST_NETWORK, message)));
    }
    let is_known = workload.owns_sidecar || rendered(workload, reference).is_some();
    if workload.sidecar.is_some() && !is_known {
        let message = "the pod template has a container called capstan that is not ours: rename or remove it";
        return Some((Action::Leave, Verdict::no(reason::NAME_TAKEN, message)));
    }
    if let Some(message) = taken(workload, claimants, "sidecar.adminPort", settings.admin_port) {
        return Some((Action::Leave, Verdict::no(reason::NAME_TAKEN, message)));
    }
    let message = taken(workload, claimants, "sidecar.gatewayPort", settings.gateway_port)?;
    if is_earlier(workload, images) {
        // It may be of a version without a gateway, and delivers: it is left alone instead of being called broken.
        let message = format!("the sidecar stays as it is: {message}, and it becomes a newer one");
        return Some((Action::Leave, Verdict::yes(reason::RESOLVED, message)));
    }
    Some((Action::Leave, Verdict::no(reason::NAME_TAKEN, message)))
}

/// Whether an earlier operator injected the sidecar, and nobody has said which port its gateway has.
fn is_earlier(workload: &Workload, images: &Images) -> bool {
    let is_earlier = |sidecar: &Container| {
        sidecar.image.as_ref() != Some(&images.sidecar) && variable(sidecar, GATEWAY_PORT).is_none()
    };
    workload.owns_sidecar && workload.sidecar.as_ref().is_some_and(is_earlier)
}

/// Who has the port that the sidecar's `field` names, and what to do about it.
fn taken(workload: &Workload, claimants: &[Claimant], field: &str, port: u16) -> Option<String> {
    let number = i32::from(port);
    if let Some((container, _)) = workload.ports.iter().find(|(_, taken)| *taken == number) {
        return Some(format!(
            "container {container} listens on port {port}: set {field} of the Consumer to another port"
        ));
    }
    let user = claimants.iter().find(|one| one.consumer.spec.endpoint.port == port)?;
    Some(format!(
        "endpoint.port {port} of Consumer {} is the sidecar's port: set {field} of the workload's oldest Consumer to another port",
        user.resolved.key.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{claimants, images, reference, workload};

    fn planned(workload: Option<&Workload>, claimants: &[Claimant]) -> Plan {
        plan("shop", &reference(), workload, claimants, &images())
    }

    fn injected(plan: &Plan) -> &Container {
        match &plan.action {
            Action::Inject(injection) => &injection.container,
            other => panic!("not injected: {other:?}"),
        }
    }

    fn ours() -> Workload {
        let plan = planned(Some(&workload()), &claimants(&[("one", "a", "")]));
        Workload { owns_sidecar: true, sidecar: Some(injected(&plan).clone()), ..workload() }
    }

    #[test]
    fn a_consumer_gives_its_workload_a_sidecar() {
        let plan = planned(Some(&workload()), &claimants(&[("one", "a", "")]));
        assert!(plan.target.holds);
        assert_eq!(plan.broker, Some(Key::new("shop", "default")));
        assert_eq!(injected(&plan).name, "capstan");
    }

    #[test]
    fn two_consumers_of_a_workload_share_one_and_the_oldest_decides() {
        let first = claimants(&[
            ("one", "a", "sidecar: {adminPort: 1111}"),
            ("two", "b", "sidecar: {adminPort: 2222}"),
        ]);
        let plan = planned(Some(&workload()), &first);
        assert_eq!(injected(&plan).ports.as_ref().unwrap()[0].container_port, 1111);
        let one = claimants(&[("one", "a", "sidecar: {adminPort: 1111}")]);
        assert_eq!(planned(Some(&workload()), &one), plan, "a second Consumer changes nothing");
    }

    #[test]
    fn what_nobody_names_any_more_is_given_back() {
        assert_eq!(planned(Some(&ours()), &[]).action, Action::Remove);
        assert_eq!(planned(Some(&workload()), &[]).action, Action::Leave);
        let foreign = Workload { owns_sidecar: false, sidecar: None, ..ours() };
        assert_eq!(planned(Some(&foreign), &[]).action, Action::Leave);
    }

    #[test]
    fn a_consumer_without_a_queue_changes_nothing() {
        let lost = claimants(&[("one", "missing", "")]);
        assert_eq!(planned(Some(&workload()), &lost).action, Action::Leave);
        assert_eq!(planned(Some(&ours()), &lost).action, Action::Leave);
    }

    #[test]
    fn the_oldest_accepted_consumer_decides_the_broker() {
        let plan = planned(
            Some(&workload()),
            &claimants(&[("one", "missing", ""), ("two", "elsewhere", ""), ("three", "a", "")]),
        );
        assert_eq!(plan.broker, Some(Key::new("shop", "other")));
    }

    #[test]
    fn a_workload_that_does_not_exist_is_not_found() {
        let plan = planned(None, &claimants(&[("one", "a", "")]));
        assert_eq!((plan.action, plan.target.reason), (Action::Leave, "TargetNotFound"));
    }

    #[test]
    fn a_workload_that_cannot_be_injected_says_why() {
        let other = Container { name: "capstan".into(), ..Container::default() };
        let named = Workload { sidecar: Some(other), ..workload() };
        let port = Workload { ports: vec![("app".into(), 9798)], ..workload() };
        let gateway = Workload { ports: vec![("app".into(), 8080), ("web".into(), 9797)], ..workload() };
        let owned = Workload { controller: Some("Rollout/web".into()), ..workload() };
        let host = Workload { host_network: true, ..workload() };
        for (workload, reason, text) in [
            (named, "NameTaken", "rename"),
            (port, "NameTaken", "container app listens on port 9798: set sidecar.adminPort"),
            (gateway, "NameTaken", "container web listens on port 9797: set sidecar.gatewayPort"),
            (owned, "TargetControlled", "Rollout/web"),
            (host, "HostNetwork", "hostNetwork"),
        ] {
            let plan = planned(Some(&workload), &claimants(&[("one", "a", "")]));
            assert_eq!((plan.action, plan.target.reason), (Action::Leave, reason));
            assert!(plan.target.message.contains(text), "{}", plan.target.message);
        }
        let host = Workload { host_network: true, ..ours() };
        assert_eq!(planned(Some(&host), &claimants(&[("one", "a", "")])).action, Action::Remove);
    }

    #[test]
    fn an_earlier_sidecar_whose_gateways_port_is_taken_stays_as_it_is() {
        let earlier = Container { image: Some("capstan/sidecar:0.0.9".into()), ..ours().sidecar.unwrap() };
        let taken = Workload { ports: vec![("web".into(), 9797)], ..ours() };
        let same = planned(Some(&taken), &claimants(&[("one", "a", "")]));
        assert_eq!(same.target.reason, "NameTaken", "of this version: both would listen there");
        let taken = Workload { sidecar: Some(earlier), ..taken };
        let plan = planned(Some(&taken), &claimants(&[("one", "a", "")]));
        assert_eq!((&plan.action, plan.target.holds), (&Action::Leave, true));
        assert!(plan.target.message.contains("set sidecar.gatewayPort"), "{}", plan.target.message);
        let moved = claimants(&[("one", "a", "sidecar: {gatewayPort: 9000}")]);
        injected(&planned(Some(&taken), &moved));
    }

    #[test]
    fn a_sidecar_in_the_manifest_is_left_alone() {
        let rendered = Workload { owns_sidecar: false, ..ours() };
        let plan = planned(Some(&rendered), &claimants(&[("one", "a", "")]));
        assert_eq!((&plan.action, plan.target.holds, plan.is_manual), (&Action::Leave, true, true));
        let moved = claimants(&[("one", "a", "sidecar: {gatewayPort: 9000}")]);
        let plan = planned(Some(&rendered), &moved);
        assert_eq!((plan.target.holds, plan.target.reason), (false, "RenderedDiffers"));
        for part in ["CAPSTAN_GATEWAY_PORT 9797 instead of 9000", "capstan inject"] {
            assert!(plan.target.message.contains(part), "{}", plan.target.message);
        }
        // What the operator had applied before goes; the manifest's own stays.
        let both = Workload { is_rendered: true, ..ours() };
        let plan = planned(Some(&both), &claimants(&[("one", "a", "")]));
        assert_eq!((plan.action, plan.is_manual), (Action::Remove, true));
    }

    #[test]
    fn hooks_are_given_to_containers_that_have_none_of_their_own() {
        let containers =
            vec![("a".into(), Hook::None), ("b".into(), Hook::Quiesce(1)), ("c".into(), Hook::Other)];
        let workload = Workload { containers, ..workload() };
        let hooks = |more: &str| match planned(Some(&workload), &claimants(&[("one", "a", more)])).action {
            Action::Inject(injection) => injection.hooks,
            other => panic!("not injected: {other:?}"),
        };
        assert_eq!(hooks(""), []);
        assert_eq!(hooks("sidecar: {appPreStop: Inject}"), [("a".to_owned(), 9798), ("b".to_owned(), 9798)]);
    }

    #[test]
    fn the_port_of_a_younger_consumer_counts_too() {
        for (port, field) in [(9798, "adminPort"), (9797, "gatewayPort")] {
            let second = format!("endpoint: {{port: {port}}}, sidecar: {{{field}: 9000}}");
            let plan = planned(Some(&workload()), &claimants(&[("one", "a", ""), ("two", "b", &second)]));
            assert_eq!(plan.target.reason, "NameTaken");
            let message = plan.target.message;
            assert!(message.contains("Consumer two") && message.contains(field), "{message}");
        }
    }

    #[test]
    fn what_is_injected_does_not_depend_on_what_already_is() {
        let consumers = claimants(&[("one", "a", "")]);
        assert_eq!(planned(Some(&ours()), &consumers).action, planned(Some(&workload()), &consumers).action);
    }
}
