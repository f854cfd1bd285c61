//! The watches: every change goes into the world, then to the units it concerns.

use std::fmt::Debug;
use std::sync::Arc;

use capstan_crds::{Broker, Consumer, Key, Queue, label};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::warn;

use super::units::{
    is_same_broker, is_same_consumer, is_same_queue, of_broker, of_consumer, of_deployment, of_labelled,
    of_policy, of_queue, of_stateful_set,
};
use super::{Objects, Policy, State, Unit, Workload, World};
use crate::work::WorkQueue;

/// How one kind is watched.
struct Kind<K, V> {
    api: Api<K>,
    config: Config,
    world: Arc<World>,
    queue: Arc<WorkQueue<Unit>>,
    /// What is kept of an object.
    keep: fn(K) -> V,
    /// Where it is kept.
    slot: fn(&mut State) -> &mut Objects<V>,
    /// What a change of it concerns.
    units: fn(&State, &V) -> Vec<Unit>,
    /// Whether a change is of no concern to anything.
    is_same: fn(&V, &V) -> bool,
}

/// Starts all watches. The future ends when each has listed once: before that, what is missing cannot be told from what
/// is gone.
pub fn watch_all(
    client: &Client,
    world: &Arc<World>,
    queue: &Arc<WorkQueue<Unit>>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> impl Future<Output = ()> + use<> {
    let brokers = kind::<Broker, _>(
        client,
        world,
        queue,
        without_managers,
        |s| &mut s.brokers,
        of_broker,
        is_same_broker,
    );
    let queues =
        kind::<Queue, _>(client, world, queue, without_managers, |s| &mut s.queues, of_queue, is_same_queue);
    let consumers = kind::<Consumer, _>(
        client,
        world,
        queue,
        without_managers,
        |s| &mut s.consumers,
        of_consumer,
        is_same_consumer,
    );
    let keep = |deployment| Workload::from(&deployment);
    let deployments = kind::<Deployment, _>(
        client,
        world,
        queue,
        keep,
        |s| &mut s.deployments,
        of_deployment,
        Workload::eq,
    );
    let keep = |stateful_set| Workload::from(&stateful_set);
    let stateful_sets = kind::<StatefulSet, _>(
        client,
        world,
        queue,
        keep,
        |s| &mut s.stateful_sets,
        of_stateful_set,
        Workload::eq,
    );
    let mut services = kind::<Service, _>(
        client,
        world,
        queue,
        without_managers,
        |s| &mut s.services,
        of_labelled,
        Service::eq,
    );
    let mut accounts = kind::<ServiceAccount, _>(
        client,
        world,
        queue,
        without_managers,
        |s| &mut s.service_accounts,
        of_labelled,
        ServiceAccount::eq,
    );
    let policies = kind::<NetworkPolicy, _>(
        client,
        world,
        queue,
        |policy| Policy::from(&policy),
        |s| &mut s.policies,
        of_policy,
        Policy::eq,
    );
    let own = Config::default().labels(&format!("{}=capstan,{}", label::MANAGED_BY, label::BROKER));
    services.config = own.clone();
    accounts.config = own;
    let loaded = [
        start(brokers, tasks),
        start(queues, tasks),
        start(consumers, tasks),
        start(deployments, tasks),
        start(stateful_sets, tasks),
        start(services, tasks),
        start(accounts, tasks),
        start(policies, tasks),
    ];
    async {
        for one in loaded {
            // A dropped sender means that the watch ended, which the caller sees in `tasks`.
            let _ = one.await;
        }
    }
}

fn kind<K, V>(
    client: &Client,
    world: &Arc<World>,
    queue: &Arc<WorkQueue<Unit>>,
    keep: fn(K) -> V,
    slot: fn(&mut State) -> &mut Objects<V>,
    units: fn(&State, &V) -> Vec<Unit>,
    is_same: fn(&V, &V) -> bool,
) -> Kind<K, V>
where
    K: Resource<DynamicType = ()>,
{
    Kind {
        api: Api::all(client.clone()),
        config: Config::default(),
        world: Arc::clone(world),
        queue: Arc::clone(queue),
        keep,
        slot,
        units,
        is_same,
    }
}

/// The managers of fields take much memory, and nobody looks at them.
fn without_managers<K: Resource>(mut object: K) -> K {
    object.managed_fields_mut().clear();
    object
}

fn start<K, V>(kind: Kind<K, V>, tasks: &mut JoinSet<anyhow::Result<()>>) -> oneshot::Receiver<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    V: Send + Sync + 'static,
{
    let (loaded, receiver) = oneshot::channel();
    tasks.spawn(run(kind, loaded));
    receiver
}

async fn run<K, V>(kind: Kind<K, V>, loaded: oneshot::Sender<()>) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut loaded = Some(loaded);
    let mut listed = Objects::default();
    let mut events = watcher(kind.api.clone(), kind.config.clone()).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = Objects::default(),
            Ok(Event::InitApply(object)) => {
                let key = Key::of(object.meta());
                listed.insert(key, Arc::new((kind.keep)(object)));
            }
            Ok(Event::InitDone) => {
                kind.replace(&std::mem::take(&mut listed));
                if let Some(loaded) = loaded.take() {
                    let _ = loaded.send(());
                }
            }
            Ok(Event::Apply(object)) => kind.apply(object),
            Ok(Event::Delete(object)) => kind.delete(&Key::of(object.meta())),
            Err(error) => warn!(kind = %K::kind(&()), %error, "watch interrupted; trying again"),
        }
    }
    anyhow::bail!("the watch of {} ended", K::kind(&()))
}

impl<K: ResourceExt, V> Kind<K, V> {
    fn apply(&self, object: K) {
        let key = Key::of(object.meta());
        let object = Arc::new((self.keep)(object));
        let mut state = self.world.write();
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
        let mut state = self.world.write();
        if let Some(old) = (self.slot)(&mut state).remove(key) {
            self.add_units(&state, &old);
        }
    }

    fn replace(&self, listed: &Objects<V>) {
        let mut state = self.world.write();
        let old = std::mem::replace((self.slot)(&mut state), listed.clone());
        for object in old.all().chain(listed.all()) {
            self.add_units(&state, object);
        }
    }

    fn add_units(&self, state: &State, object: &V) {
        for unit in (self.units)(state, object) {
            self.queue.add(unit);
        }
    }
}
