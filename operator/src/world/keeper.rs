//! Takes in what the watch of one kind tells: into the world, then to the units it concerns.

use std::sync::Arc;

use capstan_crds::Key;
use kube::ResourceExt;

use super::scope::Scope;
use super::units::all_units;
use super::{Learned, Objects, State, Unit, World, is_older, version};
use crate::work::WorkQueue;

/// How the objects of one kind are kept.
pub(super) struct Keeper<V> {
    /// Where they are watched.
    pub(super) scope: Arc<Scope>,
    pub(super) world: Arc<World>,
    pub(super) queue: Arc<WorkQueue<Unit>>,
    /// Where they are kept.
    pub(super) slot: fn(&mut State) -> &mut Objects<V>,
    /// What a change of one concerns.
    pub(super) units: fn(&State, &V) -> Vec<Unit>,
    /// Whether a change is of no concern to anything.
    pub(super) is_same: fn(&V, &V) -> bool,
    /// Of a kind whose statuses the operator writes.
    pub(super) own: Option<Own<V>>,
}

/// What there is to know of a kind whose statuses the operator writes.
pub(super) struct Own<V> {
    /// Whether the first is an older state of the second.
    is_older: fn(&V, &V) -> bool,
    /// Whether the same follows from both.
    is_resolved_alike: fn(&V, &V) -> bool,
}

impl<V: Learned> Own<V> {
    pub(super) fn new() -> Self {
        let is_older =
            |one: &V, other: &V| one.uid() == other.uid() && is_older(version(one), version(other));
        Self { is_older, is_resolved_alike: V::is_resolved_alike }
    }
}

impl<V> Keeper<V> {
    /// An object came, or changed.
    pub(super) fn apply(&self, key: Key, object: V) {
        let object = Arc::new(object);
        let mut state = self.world.write();
        let old = (self.slot)(&mut state).get(&key);
        if let (Some(own), Some(old)) = (&self.own, &old)
            && (own.is_older)(&object, old)
        {
            // The answer to a write of a status came before this event, and had nothing else that was new.
            return;
        }
        if old.as_ref().is_none_or(|old| !self.is_resolved_alike(old, &object)) {
            state.forget_resolution(&key.namespace);
        }
        (self.slot)(&mut state).insert(key, Arc::clone(&object));
        if old.as_ref().is_some_and(|old| (self.is_same)(old, &object)) {
            return;
        }
        // The old one too: it may have named another queue or workload.
        for object in old.iter().chain([&object]) {
            self.add_units(&state, object);
        }
    }

    /// An object went.
    pub(super) fn delete(&self, key: &Key) {
        let mut state = self.world.write();
        if let Some(old) = (self.slot)(&mut state).remove(key) {
            state.forget_resolution(&key.namespace);
            self.add_units(&state, &old);
        }
    }

    /// These are all objects of the scope, of the kind called `name`.
    pub(super) fn replace(&self, listed: &Objects<V>, name: &str) {
        let mut state = self.world.write();
        let old = (self.slot)(&mut state).replace(self.scope.namespace(), listed.clone());
        for objects in [&old, listed] {
            objects.namespaces().for_each(|namespace| state.forget_resolution(namespace));
            objects.all().for_each(|object| self.add_units(&state, object));
        }
        if self.scope.listed(name) {
            all_units(&state, self.scope.namespace()).into_iter().for_each(|unit| self.queue.add(unit));
        }
    }

    /// What is not the operator's own is no part of what follows.
    fn is_resolved_alike(&self, old: &V, new: &V) -> bool {
        self.own.as_ref().is_none_or(|own| (own.is_resolved_alike)(old, new))
    }

    /// Nothing is done about a namespace of which not everything is known: what is missing may just not be listed yet.
    fn add_units(&self, state: &State, object: &V) {
        if !self.scope.is_complete() {
            return;
        }
        for unit in (self.units)(state, object) {
            self.queue.add(unit);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use capstan_crds::{Consumer, ConsumerFinding, Queue};

    use super::super::units::{is_same_consumer, is_same_queue, of_consumer, of_queue};
    use super::*;
    use crate::metrics::WATCHED;
    use crate::work::Outcome;

    const LONG: Duration = Duration::from_secs(3600);

    struct Fixture {
        queues: Keeper<Queue>,
        consumers: Keeper<Consumer>,
    }

    impl Fixture {
        fn new() -> Self {
            let (world, queue) = (Arc::new(World::default()), Arc::new(WorkQueue::default()));
            let (scope, _) = Scope::new(None);
            WATCHED.iter().for_each(|kind| {
                scope.listed(kind);
            });
            let scope = Arc::new(scope);
            let (more, own) = ((Arc::clone(&world), Arc::clone(&queue)), Some(Own::new()));
            Self {
                queues: Keeper {
                    scope: Arc::clone(&scope),
                    world,
                    queue,
                    slot: |s| &mut s.queues,
                    units: of_queue,
                    is_same: is_same_queue,
                    own,
                },
                consumers: Keeper {
                    scope,
                    world: more.0,
                    queue: more.1,
                    slot: |s| &mut s.consumers,
                    units: of_consumer,
                    is_same: is_same_consumer,
                    own: Some(Own::new()),
                },
            }
        }

        /// The units that are due, which are then done.
        async fn units(&self) -> Vec<Unit> {
            let mut units = Vec::new();
            while let Ok(unit) = tokio::time::timeout(LONG, self.queues.queue.next()).await {
                self.queues.queue.finish(unit.clone(), Outcome::Done, 0.5);
                units.push(unit);
            }
            units
        }

        fn consumer(&self) -> Arc<Consumer> {
            self.consumers.world.read().consumers.get(&key()).unwrap()
        }

        fn finding(&self) -> ConsumerFinding {
            self.consumers.world.read().resolve("shop").consumers[&key()].finding.clone()
        }
    }

    fn key() -> Key {
        Key::new("shop", "orders")
    }

    fn queue(version: u32, status: &str) -> Queue {
        let yaml = format!(
            "{{metadata: {{name: orders, namespace: shop, uid: q, generation: 1, resourceVersion: '{version}'}}, spec: {{}}, status: {status}}}"
        );
        serde_yaml::from_str(&yaml).unwrap()
    }

    fn consumer(version: u32, generation: u32, status: &str) -> Consumer {
        let yaml = format!(
            "{{metadata: {{name: orders, namespace: shop, uid: c, generation: {generation}, resourceVersion: '{version}'}},
              spec: {{queueRef: {{name: orders}}, maxRetries: {generation}}}, status: {status}}}"
        );
        serde_yaml::from_str(&yaml).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_is_resolved_again_when_an_object_changes() {
        let fixture = Fixture::new();
        fixture.consumers.apply(key(), consumer(1, 1, "{}"));
        assert_eq!(fixture.finding(), ConsumerFinding::QueueNotFound);
        fixture.queues.apply(key(), queue(2, "{}"));
        assert_eq!(fixture.finding(), ConsumerFinding::Accepted);
        let known = fixture.queues.world.read().resolve("shop");
        fixture.queues.apply(key(), queue(3, "{observedGeneration: 1}"));
        fixture.queues.world.learn(queue(4, "{observedGeneration: 1}"));
        assert!(Arc::ptr_eq(&known, &fixture.queues.world.read().resolve("shop")), "a status is no change");
        fixture.queues.world.learn(queue(5, "{consumer: {name: other, uid: o}}"));
        assert!(!Arc::ptr_eq(&known, &fixture.queues.world.read().resolve("shop")), "a claim is one");
        fixture.queues.delete(&key());
        assert_eq!(fixture.finding(), ConsumerFinding::QueueNotFound);
        fixture.queues.apply(key(), queue(6, "{}"));
        assert_eq!(fixture.finding(), ConsumerFinding::Accepted);
        fixture.queues.replace(&Objects::default(), "Queue");
        assert_eq!(fixture.finding(), ConsumerFinding::QueueNotFound);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_spec_is_news_also_when_a_status_was_written_over_it() {
        let fixture = Fixture::new();
        fixture.consumers.apply(key(), consumer(1, 1, "{}"));
        assert_eq!(fixture.units().await, [Unit::Consumer(key())]);
        // The user's change is version 2; the answer to the status has it too, and comes before its event.
        fixture.consumers.world.learn(consumer(3, 2, "{observedGeneration: 1}"));
        fixture.consumers.apply(key(), consumer(2, 2, "{}"));
        assert_eq!(fixture.units().await, [Unit::Consumer(key())]);
        fixture.consumers.apply(key(), consumer(3, 2, "{observedGeneration: 1}"));
        assert!(fixture.units().await.is_empty());
        assert_eq!(fixture.consumer().spec.max_retries, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_older_than_an_answer_is_nothing_new() {
        let fixture = Fixture::new();
        fixture.consumers.apply(key(), consumer(1, 1, "{}"));
        assert_eq!(fixture.units().await.len(), 1);
        fixture.consumers.world.learn(consumer(3, 1, "{observedGeneration: 1}"));
        fixture.consumers.apply(key(), consumer(2, 1, "{}"));
        assert_eq!(fixture.consumer().metadata.resource_version.as_deref(), Some("3"));
        let other = |version| {
            let mut other = consumer(version, 1, "{}");
            other.metadata.uid = Some("another".into());
            other
        };
        fixture.consumers.apply(key(), other(2));
        assert_eq!(
            fixture.consumer().metadata.uid.as_deref(),
            Some("another"),
            "made anew, by an older history"
        );
        assert_eq!(fixture.units().await, [Unit::Consumer(key())]);
    }
}
