//! The watches: every change goes into the world, then to the units it concerns.

use std::fmt::Debug;
use std::sync::Arc;

use capstan_crds::{Broker, Consumer, Key, Queue, label};
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Service;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tracing::warn;

use super::scope::{self, Scope};
use super::units::{
    all_units, is_same_broker, is_same_consumer, is_same_queue, of_broker, of_consumer, of_deployment,
    of_queue, of_service, of_stateful_set,
};
use super::{Objects, State, Unit, Workload, World};
use crate::metrics::Metrics;
use crate::work::WorkQueue;

/// How one kind is watched, in all namespaces or in one.
struct Kind<K, V> {
    api: Api<K>,
    config: Config,
    shared: Shared,
    /// What is kept of an object.
    keep: fn(K) -> V,
    /// Where it is kept.
    slot: fn(&mut State) -> &mut Objects<V>,
    /// What a change of it concerns.
    units: fn(&State, &V) -> Vec<Unit>,
    /// Whether a change is of no concern to anything.
    is_same: fn(&V, &V) -> bool,
}

/// What the watches of a scope have in common.
#[derive(Clone)]
struct Shared {
    client: Client,
    scope: Arc<Scope>,
    world: Arc<World>,
    queue: Arc<WorkQueue<Unit>>,
    metrics: Arc<Metrics>,
}

/// Starts all watches: everywhere, or in each of some namespaces. The future ends when it is known what there is: before that,
/// what is missing cannot be told from what is gone. Namespaces that must not be watched are told of, and hold nobody up.
pub(crate) fn watch_all(
    client: &Client,
    scopes: Vec<Option<String>>,
    world: &Arc<World>,
    queue: &Arc<WorkQueue<Unit>>,
    metrics: &Arc<Metrics>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> impl Future<Output = ()> + use<> {
    let mut settled = Vec::new();
    for namespace in scopes {
        let (scope, receiver) = Scope::new(namespace);
        settled.push(receiver);
        let shared = Shared {
            client: client.clone(),
            scope: Arc::new(scope),
            world: Arc::clone(world),
            queue: Arc::clone(queue),
            metrics: Arc::clone(metrics),
        };
        watch_scope(&shared, tasks);
    }
    scope::until_known(settled)
}

fn watch_scope(shared: &Shared, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let brokers = kind::<Broker, _>(shared, without_managers, |s| &mut s.brokers, of_broker, is_same_broker);
    let queues = kind::<Queue, _>(shared, without_managers, |s| &mut s.queues, of_queue, is_same_queue);
    let consumers =
        kind::<Consumer, _>(shared, without_managers, |s| &mut s.consumers, of_consumer, is_same_consumer);
    let keep = |deployment| Workload::from(&deployment);
    let deployments =
        kind::<Deployment, _>(shared, keep, |s| &mut s.deployments, of_deployment, Workload::eq);
    let keep = |stateful_set| Workload::from(&stateful_set);
    let stateful_sets =
        kind::<StatefulSet, _>(shared, keep, |s| &mut s.stateful_sets, of_stateful_set, Workload::eq);
    let mut services =
        kind::<Service, _>(shared, without_managers, |s| &mut s.services, of_service, Service::eq);
    services.config = Config::default().labels(&format!("{}=capstan,{}", label::MANAGED_BY, label::BROKER));
    tasks.spawn(run(brokers));
    tasks.spawn(run(queues));
    tasks.spawn(run(consumers));
    tasks.spawn(run(deployments));
    tasks.spawn(run(stateful_sets));
    tasks.spawn(run(services));
}

fn kind<K, V>(
    shared: &Shared,
    keep: fn(K) -> V,
    slot: fn(&mut State) -> &mut Objects<V>,
    units: fn(&State, &V) -> Vec<Unit>,
    is_same: fn(&V, &V) -> bool,
) -> Kind<K, V>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let client = shared.client.clone();
    let api = match shared.scope.namespace() {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    Kind { api, config: Config::default(), shared: shared.clone(), keep, slot, units, is_same }
}

/// The managers of fields take much memory, and nobody looks at them.
fn without_managers<K: Resource>(mut object: K) -> K {
    object.managed_fields_mut().clear();
    object
}

async fn run<K, V>(kind: Kind<K, V>) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let name = K::kind(&());
    let mut listed = Objects::default();
    let mut events = watcher(kind.api.clone(), kind.config.clone()).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = Objects::default(),
            Ok(Event::InitApply(object)) => {
                let key = Key::of(object.meta());
                listed.insert(key, Arc::new((kind.keep)(object)));
            }
            Ok(Event::InitDone) => kind.replace(&std::mem::take(&mut listed), &name),
            Ok(Event::Apply(object)) => kind.apply(object),
            Ok(Event::Delete(object)) => kind.delete(&Key::of(object.meta())),
            Err(error) => {
                warn!(kind = %name, namespace = kind.shared.scope.namespace(), %error, "watch interrupted; trying again");
                kind.shared.metrics.watch_broke(&name);
                if is_denied(&error) {
                    kind.shared.scope.denied();
                }
            }
        }
    }
    anyhow::bail!("the watch of {name} ended")
}

fn is_denied(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => status.code == 403,
        _ => false,
    }
}

impl<K: ResourceExt, V> Kind<K, V> {
    fn apply(&self, object: K) {
        let key = Key::of(object.meta());
        let object = Arc::new((self.keep)(object));
        let mut state = self.shared.world.write();
        let old = (self.slot)(&mut state).insert(key, Arc::clone(&object));
        if old.as_ref().is_some_and(|old| (self.is_same)(old, &object)) {
            return;
        }
        // The old one too: it may have named another queue or workload.
        for object in old.iter().chain([&object]) {
            self.add_units(&state, object);
        }
    }

    fn delete(&self, key: &Key) {
        let mut state = self.shared.world.write();
        if let Some(old) = (self.slot)(&mut state).remove(key) {
            self.add_units(&state, &old);
        }
    }

    fn replace(&self, listed: &Objects<V>, name: &str) {
        let Shared { scope, world, queue, .. } = &self.shared;
        let mut state = world.write();
        let old = (self.slot)(&mut state).replace(scope.namespace(), listed.clone());
        for object in old.all().chain(listed.all()) {
            self.add_units(&state, object);
        }
        if scope.listed(name) {
            all_units(&state, scope.namespace()).into_iter().for_each(|unit| queue.add(unit));
        }
    }

    /// Nothing is done about a namespace of which not everything is known: what is missing may just not be listed yet.
    fn add_units(&self, state: &State, object: &V) {
        if self.shared.scope.is_complete() {
            for unit in (self.units)(state, object) {
                self.shared.queue.add(unit);
            }
        }
    }
}
