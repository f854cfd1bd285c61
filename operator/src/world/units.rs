//! Which units of work a change concerns.

use std::collections::BTreeSet;
use std::sync::Arc;

use capstan_api::workload::{Workload as Reference, WorkloadKind};
use capstan_crds::{Broker, Consumer, Key, Queue, label};
use kube::ResourceExt;

use super::{Autoscaler, Policy, Set, State, Workload};

/// What is reconciled as a whole, by one worker at a time. None of it needs to exist. Ordered so that what others wait for
/// comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// A Broker, its objects, and the Queues that it stores.
    Broker(Key),
    /// A workload and the push consumers that name it.
    Workload(String, Reference),
    /// A pull consumer.
    Consumer(Key),
}

/// Everything there is, everywhere or in one namespace.
#[must_use]
pub fn all_units(state: &State, namespace: Option<&str>) -> BTreeSet<Unit> {
    let mut units = BTreeSet::new();
    let mut add = |more: Vec<Unit>| units.extend(more);
    state.brokers.within(namespace).for_each(|broker| add(of_broker(state, broker)));
    state.queues.within(namespace).for_each(|queue| add(of_queue(state, queue)));
    state.consumers.within(namespace).for_each(|consumer| add(of_consumer(state, consumer)));
    state.deployments.within(namespace).for_each(|deployment| add(of_deployment(state, deployment)));
    state.stateful_sets.within(namespace).for_each(|set| add(of_stateful_set(state, set)));
    state.services.within(namespace).for_each(|service| add(of_labelled(state, service.as_ref())));
    units
}

/// A change of a Broker.
pub(super) fn of_broker(_: &State, broker: &Broker) -> Vec<Unit> {
    vec![Unit::Broker(Key::of(&broker.metadata))]
}

/// A change of a Queue: its Broker is told, and its Consumers are accepted or not.
pub(super) fn of_queue(state: &State, queue: &Queue) -> Vec<Unit> {
    let key = Key::of(&queue.metadata);
    let mut units = units_of_consumers(state, queue);
    units.push(Unit::Broker(key.sibling(&queue.spec.broker_ref.name)));
    // The Broker of a queue whose dead-letter queue it is says where dead letters go.
    units.extend(named_by(state, &key).iter().filter_map(|consumer| broker_of(state, consumer)));
    units
}

/// The units of the Consumers that name a Queue, also as their dead-letter queue.
#[must_use]
pub fn units_of_consumers(state: &State, queue: &Queue) -> Vec<Unit> {
    named_by(state, &Key::of(&queue.metadata)).iter().map(|consumer| own_unit(consumer)).collect()
}

fn named_by(state: &State, queue: &Key) -> Vec<Arc<Consumer>> {
    let names = |consumer: &Arc<Consumer>| {
        let dead_letters = consumer.spec.dead_letter_queue_ref.as_ref();
        consumer.spec.queue_ref.name == queue.name || dead_letters.is_some_and(|r| r.name == queue.name)
    };
    state.consumers.of(&queue.namespace).into_iter().filter(names).collect()
}

/// A change of a Consumer: its queue's Broker is told, and so are its rivals.
pub(super) fn of_consumer(state: &State, consumer: &Consumer) -> Vec<Unit> {
    let mut units = vec![own_unit(consumer)];
    units.extend(broker_of(state, consumer));
    for rival in state.consumers.of(&Key::of(&consumer.metadata).namespace) {
        if rival.spec.queue_ref == consumer.spec.queue_ref {
            units.push(own_unit(&rival));
        }
    }
    units
}

/// A change of a Deployment.
pub(super) fn of_deployment(state: &State, workload: &Workload) -> Vec<Unit> {
    of_target(state, WorkloadKind::Deployment, workload)
}

/// A change of a StatefulSet: a target, or a Broker's own.
pub(super) fn of_stateful_set(state: &State, set: &Set) -> Vec<Unit> {
    let mut units = of_target(state, WorkloadKind::StatefulSet, set);
    let owner = set.controller.as_deref().and_then(|owner| owner.strip_prefix("Broker/"));
    units.extend(owner.map(|broker| Unit::Broker(set.key.sibling(broker))));
    units
}

/// A change of an object that the operator made for a Broker.
pub(super) fn of_labelled<K: ResourceExt>(_: &State, object: &K) -> Vec<Unit> {
    let broker = object.labels().get(label::BROKER);
    let unit = |broker: &String| Unit::Broker(Key::of(object.meta()).sibling(broker));
    broker.map(unit).into_iter().collect()
}

/// A change of a NetworkPolicy: a Broker's own, or one that may guard Brokers' pods.
pub(super) fn of_policy(state: &State, policy: &Policy) -> Vec<Unit> {
    match &policy.broker {
        Some(broker) => vec![Unit::Broker(policy.key.sibling(broker))],
        None => {
            let brokers = state.brokers.of(&policy.key.namespace);
            brokers.iter().map(|broker| Unit::Broker(Key::of(&broker.metadata))).collect()
        }
    }
}

/// A change of a HorizontalPodAutoscaler: two must not set the number of a workload's pods.
pub(super) fn of_autoscaler(state: &State, autoscaler: &Autoscaler) -> Vec<Unit> {
    let Some(target) = &autoscaler.target else { return Vec::new() };
    let consumers = state.consumers.of(&autoscaler.key.namespace);
    let names =
        |consumer: &Consumer| consumer.spec.target_ref.as_ref().is_some_and(|one| one.workload() == *target);
    let is_named = consumers.iter().any(|consumer| names(consumer));
    is_named.then(|| Unit::Workload(autoscaler.key.namespace.clone(), target.clone())).into_iter().collect()
}

/// Most workloads of a cluster are none of our business.
fn of_target(state: &State, kind: WorkloadKind, workload: &Workload) -> Vec<Unit> {
    let consumers = state.consumers.of(&workload.key.namespace);
    let names = |consumer: &Consumer| {
        let target = consumer.spec.target_ref.as_ref();
        target.is_some_and(|target| target.name == workload.key.name && target.workload().kind == kind)
    };
    if workload.is_ours() || consumers.iter().any(|consumer| names(consumer)) {
        let reference = Reference { kind, name: workload.key.name.clone() };
        vec![Unit::Workload(workload.key.namespace.clone(), reference)]
    } else {
        Vec::new()
    }
}

fn own_unit(consumer: &Consumer) -> Unit {
    let key = Key::of(&consumer.metadata);
    match &consumer.spec.target_ref {
        Some(target) => Unit::Workload(key.namespace, target.workload()),
        None => Unit::Consumer(key),
    }
}

fn broker_of(state: &State, consumer: &Consumer) -> Option<Unit> {
    let key = Key::of(&consumer.metadata).sibling(&consumer.spec.queue_ref.name);
    let queue = state.queues.get(&key)?;
    Some(Unit::Broker(key.sibling(&queue.spec.broker_ref.name)))
}

/// A status that the operator wrote itself is no news.
pub(super) fn is_same_broker(old: &Broker, new: &Broker) -> bool {
    old.spec == new.spec && is_same_object(old, new)
}

/// Counts change all the time; a claim and conditions concern Consumers.
pub(super) fn is_same_queue(old: &Queue, new: &Queue) -> bool {
    let parts = |queue: &Queue| queue.status.as_ref().map(|s| (s.consumer.clone(), s.conditions.clone()));
    old.spec == new.spec && parts(old) == parts(new) && is_same_object(old, new)
}

/// A status that the operator wrote itself is no news.
pub(super) fn is_same_consumer(old: &Consumer, new: &Consumer) -> bool {
    old.spec == new.spec && is_same_object(old, new)
}

fn is_same_object<K: ResourceExt>(old: &K, new: &K) -> bool {
    let parts =
        |object: &K| (object.uid(), object.meta().generation, object.meta().deletion_timestamp.clone());
    parts(old) == parts(new)
}

#[cfg(test)]
mod tests {
    use capstan_crds::{Object, parse};

    use super::*;

    fn state(yaml: &str) -> State {
        let mut state = State::default();
        for object in parse(yaml).unwrap() {
            match object {
                Object::Queue(queue) => {
                    state.queues.insert(Key::of(&queue.metadata), Arc::new(*queue));
                }
                Object::Consumer(consumer) => {
                    state.consumers.insert(Key::of(&consumer.metadata), Arc::new(*consumer));
                }
                other => panic!("not expected here: {other:?}"),
            }
        }
        state
    }

    fn object(kind: &str, name: &str, spec: &str) -> String {
        format!(
            "---\napiVersion: capstan.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
        )
    }

    fn shop() -> State {
        let push = |queue: &str| {
            format!(
                "{{queueRef: {{name: {queue}}}, targetRef: {{kind: Deployment, name: web}}, deadLetterQueueRef: {{name: dead}}}}"
            )
        };
        state(
            &[
                object("Queue", "orders", "{brokerRef: {name: main}}"),
                object("Queue", "dead", "{brokerRef: {name: main}}"),
                object("Consumer", "push", &push("orders")),
                object("Consumer", "rival", "{queueRef: {name: orders}}"),
                object("Consumer", "other", "{queueRef: {name: elsewhere}}"),
            ]
            .concat(),
        )
    }

    fn key(name: &str) -> Key {
        Key::new("shop", name)
    }

    fn web() -> Unit {
        Unit::Workload("shop".into(), "Deployment/web".parse().unwrap())
    }

    fn set(units: Vec<Unit>) -> BTreeSet<Unit> {
        units.into_iter().collect()
    }

    #[test]
    fn a_queue_concerns_its_broker_and_its_consumers() {
        let state = shop();
        let units = set(of_queue(&state, &state.queues.get(&key("orders")).unwrap()));
        assert_eq!(units, set(vec![Unit::Broker(key("main")), web(), Unit::Consumer(key("rival"))]));
        let units = set(of_queue(&state, &state.queues.get(&key("dead")).unwrap()));
        assert_eq!(units, set(vec![Unit::Broker(key("main")), web()]), "as a dead-letter queue");
    }

    #[test]
    fn a_consumer_concerns_its_workload_its_rivals_and_the_broker() {
        let state = shop();
        let units = set(of_consumer(&state, &state.consumers.get(&key("rival")).unwrap()));
        assert_eq!(units, set(vec![Unit::Broker(key("main")), web(), Unit::Consumer(key("rival"))]));
        let units = set(of_consumer(&state, &state.consumers.get(&key("other")).unwrap()));
        assert_eq!(units, set(vec![Unit::Consumer(key("other"))]));
    }

    #[test]
    fn a_workload_concerns_us_when_a_consumer_names_it_or_it_has_our_sidecar() {
        let state = shop();
        let workload =
            |name: &str, owns_sidecar| Workload { key: key(name), owns_sidecar, ..Workload::default() };
        assert_eq!(of_deployment(&state, &workload("web", false)), [web()]);
        assert_eq!(of_deployment(&state, &workload("unknown", false)), []);
        let left = Unit::Workload("shop".into(), "Deployment/left".parse().unwrap());
        assert_eq!(of_deployment(&state, &workload("left", true)), [left]);
        let set = |workload| Set { workload: Arc::new(workload), broker: None };
        assert_eq!(of_stateful_set(&state, &set(workload("web", false))), [], "another kind");
        let own = Workload { controller: Some("Broker/main".into()), ..workload("capstan-main", false) };
        assert_eq!(of_stateful_set(&state, &set(own)), [Unit::Broker(key("main"))]);
    }

    #[test]
    fn everything_is_each_unit_once_and_of_one_namespace() {
        let state = shop();
        let all = all_units(&state, None);
        assert_eq!(
            all,
            set(vec![
                Unit::Broker(key("main")),
                web(),
                Unit::Consumer(key("other")),
                Unit::Consumer(key("rival")),
            ])
        );
        assert_eq!(all_units(&state, Some("shop")), all);
        assert_eq!(all_units(&state, Some("bank")), BTreeSet::new());
    }

    #[test]
    fn counts_of_a_queue_are_no_news_but_conditions_are() {
        let queue = |status: &str| {
            let yaml = format!(
                "{{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {{name: q}}, spec: {{}}, status: {status}}}"
            );
            serde_yaml::from_str::<Queue>(&yaml).unwrap()
        };
        let counts = |ready: u32| {
            format!(
                "{{messages: {{ready: {ready}, leased: 0, delayed: 0, dead: 0, bytes: 0, observedAt: '2026-01-01T00:00:00Z'}}}}"
            )
        };
        assert!(is_same_queue(&queue(&counts(1)), &queue(&counts(2))));
        let claimed = "{consumer: {name: c, uid: u}}";
        assert!(!is_same_queue(&queue("{}"), &queue(claimed)));
    }
}
