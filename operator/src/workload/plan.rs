//! What is to be done with a workload, from it and the Consumers that name it. Pure.

use std::sync::Arc;

use capstan_api::workload::Workload as Reference;
use capstan_crds::condition::reason;
use capstan_crds::consumer::Sidecar;
use capstan_crds::{Consumer, ConsumerFinding, Key, ResolvedConsumer};
use k8s_openapi::api::core::v1::Container;
use kube::ResourceExt;

use super::container::{GATEWAY_PORT, sidecar};
use crate::condition::Verdict;
use crate::config::Config;
use crate::world::Workload;

/// A Consumer that names the workload.
#[derive(Debug, Clone)]
pub(super) struct Claimant {
    pub(super) consumer: Arc<Consumer>,
    pub(super) resolved: ResolvedConsumer,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// Leave the workload as it is.
    Leave,
    /// Give it this container.
    Inject(Box<Container>),
    /// Take away what was given.
    Remove,
}

/// What is to be done, and why.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) action: Action,
    /// Whether the workload can be injected.
    pub(super) target: Verdict,
    /// The Broker of the sidecar: that of the oldest accepted Consumer.
    pub(super) broker: Option<Key>,
}

/// Sorts the Consumers of a workload: the oldest, which decides what only one can decide, first.
pub(super) fn sort(claimants: &mut [Claimant]) {
    claimants.sort_by_key(|claimant| {
        let created = claimant.consumer.creation_timestamp().map(|time| time.0);
        (created, claimant.consumer.uid(), claimant.consumer.name_any())
    });
}

/// Plans. `claimants` are sorted; `workload` is what the cluster has, if anything.
pub(super) fn plan(
    namespace: &str,
    reference: &Reference,
    workload: Option<&Workload>,
    claimants: &[Claimant],
    config: &Config,
) -> Plan {
    let broker = claimants.iter().filter(|one| is_accepted(one)).find_map(|one| one.resolved.broker.clone());
    let Some(workload) = workload else {
        return Plan { action: Action::Leave, target: not_found(namespace, reference), broker };
    };
    let Some(oldest) = claimants.first() else {
        let action = if workload.is_ours { Action::Remove } else { Action::Leave };
        return Plan { action, target: Verdict::yes(reason::RESOLVED, ""), broker };
    };
    let settings = &oldest.consumer.spec.sidecar;
    if let Some((action, target)) = obstacle(workload, claimants, settings, config) {
        return Plan { action, target, broker };
    }
    let inject =
        |broker: &Key| sidecar(namespace, reference, broker, settings, workload.grace_seconds, config);
    Plan {
        // Without an accepted Consumer nothing is decided, and pods should not restart because a Queue is away for a moment.
        action: broker.as_ref().map_or(Action::Leave, |broker| Action::Inject(Box::new(inject(broker)))),
        target: Verdict::yes(reason::RESOLVED, format!("{reference} exists")),
        broker,
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
    workload: &Workload,
    claimants: &[Claimant],
    settings: &Sidecar,
    config: &Config,
) -> Option<(Action, Verdict)> {
    let withdraw = if workload.is_ours { Action::Remove } else { Action::Leave };
    if let Some(controller) = &workload.controller {
        let message = format!(
            "{controller} owns the workload and would take the sidecar out: name a workload without an owner"
        );
        return Some((Action::Leave, Verdict::no(reason::TARGET_CONTROLLED, message)));
    }
    if workload.host_network {
        let message =
            "the pods use hostNetwork, where the sidecar's ports would be open to the node: set it to false";
        return Some((withdraw, Verdict::no(reason::HOST_NETWORK, message)));
    }
    if workload.sidecar.is_some() && !workload.is_ours {
        let message = "the pod template has a container called capstan that is not ours: rename or remove it";
        return Some((Action::Leave, Verdict::no(reason::NAME_TAKEN, message)));
    }
    if let Some(message) = taken(workload, claimants, "sidecar.adminPort", settings.admin_port) {
        return Some((Action::Leave, Verdict::no(reason::NAME_TAKEN, message)));
    }
    let message = taken(workload, claimants, "sidecar.gatewayPort", settings.gateway_port)?;
    if is_earlier(workload, config) {
        // It may be of a version without a gateway, and delivers: it is left alone instead of being called broken.
        let message = format!("the sidecar stays as it is: {message}, and it becomes a newer one");
        return Some((Action::Leave, Verdict::yes(reason::RESOLVED, message)));
    }
    Some((Action::Leave, Verdict::no(reason::NAME_TAKEN, message)))
}

/// Whether an earlier operator injected the sidecar, and nobody has said which port its gateway has.
fn is_earlier(workload: &Workload, config: &Config) -> bool {
    let says_port = |sidecar: &Container| sidecar.env.iter().flatten().any(|env| env.name == GATEWAY_PORT);
    workload
        .sidecar
        .as_ref()
        .filter(|_| workload.is_ours)
        .is_some_and(|sidecar| sidecar.image.as_ref() != Some(&config.sidecar_image) && !says_port(sidecar))
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
pub(super) mod tests {
    use capstan_crds::{Object, Queue, parse, resolve};

    use super::*;
    use crate::config::tests::config;

    pub(crate) const QUEUES: &str = "apiVersion: capstan.dev/v1alpha1\nkind: Queue\nmetadata: {name: a, namespace: shop}\nspec: {}\n---\n\
        apiVersion: capstan.dev/v1alpha1\nkind: Queue\nmetadata: {name: b, namespace: shop}\nspec: {}\n---\n\
        apiVersion: capstan.dev/v1alpha1\nkind: Queue\nmetadata: {name: elsewhere, namespace: shop}\nspec: {brokerRef: {name: other}}\n";

    /// Consumers as `(name, queue, more of the spec)`, each a second younger than the one before.
    pub(crate) fn claimants(consumers: &[(&str, &str, &str)]) -> Vec<Claimant> {
        let one = |(at, (name, queue, more)): (usize, &(&str, &str, &str))| {
            format!(
                "---\napiVersion: capstan.dev/v1alpha1\nkind: Consumer\nmetadata: {{name: {name}, namespace: shop, uid: {name}, \
                 generation: 3, creationTimestamp: '2026-01-01T00:00:0{at}Z'}}\n\
                 spec: {{queueRef: {{name: {queue}}}, targetRef: {{kind: Deployment, name: web}}, {more}}}\n"
            )
        };
        let yaml = format!("{QUEUES}{}", consumers.iter().enumerate().map(one).collect::<String>());
        let (mut queues, mut all): (Vec<Queue>, Vec<Arc<Consumer>>) = (Vec::new(), Vec::new());
        for object in parse(&yaml).unwrap() {
            match object {
                Object::Queue(queue) => queues.push(queue.as_ref().clone()),
                Object::Consumer(consumer) => all.push(Arc::new(consumer.as_ref().clone())),
                other => panic!("not expected here: {other:?}"),
            }
        }
        let resolution = resolve(&queues, all.iter().map(AsRef::as_ref));
        let claim = |consumer: Arc<Consumer>| Claimant {
            resolved: resolution.consumers[&Key::of(&consumer.metadata)].clone(),
            consumer,
        };
        let mut claimants: Vec<Claimant> = all.into_iter().map(claim).collect();
        sort(&mut claimants);
        claimants
    }

    pub(crate) fn reference() -> Reference {
        "Deployment/web".parse().unwrap()
    }

    pub(crate) fn workload() -> Workload {
        Workload {
            key: Key::new("shop", "web"),
            uid: "w".into(),
            replicas: 2,
            grace_seconds: 30,
            ..Workload::default()
        }
    }

    fn planned(workload: Option<&Workload>, claimants: &[Claimant]) -> Plan {
        plan("shop", &reference(), workload, claimants, &config())
    }

    fn injected(plan: &Plan) -> &Container {
        match &plan.action {
            Action::Inject(container) => container,
            other => panic!("not injected: {other:?}"),
        }
    }

    fn ours() -> Workload {
        let plan = planned(Some(&workload()), &claimants(&[("one", "a", "")]));
        Workload { is_ours: true, sidecar: Some(injected(&plan).clone()), ..workload() }
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
        let foreign = Workload { is_ours: false, ..ours() };
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
        let named = Workload { sidecar: ours().sidecar, ..workload() };
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
