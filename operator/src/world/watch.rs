//! The watches of all kinds, begun anew when they are interrupted.

use std::fmt::Debug;
use std::sync::Arc;

use capstan_crds::{Key, label};
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

use super::keeper::{Keeper, Own};
use super::units::{
    is_same_broker, is_same_consumer, is_same_queue, of_broker, of_consumer, of_deployment, of_labelled,
    of_policy, of_queue, of_stateful_set,
};
use super::{Learned, Objects, Policy, Set, State, Unit, Workload, World};
use crate::work::WorkQueue;

/// How one kind is watched.
struct Kind<K, V> {
    api: Api<K>,
    config: Config,
    /// What is kept of an object.
    keep: fn(K) -> V,
    keeper: Keeper<V>,
}

/// Starts all watches. The future ends when each has listed once: before that, what is missing cannot be told from what
/// is gone.
pub fn watch_all(
    client: &Client,
    world: &Arc<World>,
    queue: &Arc<WorkQueue<Unit>>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> impl Future<Output = ()> + use<> {
    let keeper = (Arc::clone(world), Arc::clone(queue));
    let brokers = kind(client, &keeper, without_managers, |s| &mut s.brokers, of_broker, is_same_broker);
    let queues = kind(client, &keeper, without_managers, |s| &mut s.queues, of_queue, is_same_queue);
    let consumers =
        kind(client, &keeper, without_managers, |s| &mut s.consumers, of_consumer, is_same_consumer);
    let keep = |deployment: Deployment| Workload::from(&deployment);
    let deployments = kind(client, &keeper, keep, |s| &mut s.deployments, of_deployment, Workload::eq);
    let keep = |stateful_set: StatefulSet| Set::from(&stateful_set);
    let stateful_sets = kind(client, &keeper, keep, |s| &mut s.stateful_sets, of_stateful_set, Set::eq);
    let mut services = kind(client, &keeper, without_managers, |s| &mut s.services, of_labelled, Service::eq);
    let mut accounts =
        kind(client, &keeper, without_managers, |s| &mut s.service_accounts, of_labelled, ServiceAccount::eq);
    let keep = |policy: NetworkPolicy| Policy::from(&policy);
    let policies = kind(client, &keeper, keep, |s| &mut s.policies, of_policy, Policy::eq);
    let own = Config::default().labels(&format!("{}=capstan,{}", label::MANAGED_BY, label::BROKER));
    services.config = own.clone();
    accounts.config = own;
    let loaded = [
        start(brokers.own(), tasks),
        start(queues.own(), tasks),
        start(consumers.own(), tasks),
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
    (world, queue): &(Arc<World>, Arc<WorkQueue<Unit>>),
    keep: fn(K) -> V,
    slot: fn(&mut State) -> &mut Objects<V>,
    units: fn(&State, &V) -> Vec<Unit>,
    is_same: fn(&V, &V) -> bool,
) -> Kind<K, V>
where
    K: Resource<DynamicType = ()>,
{
    let (world, queue) = (Arc::clone(world), Arc::clone(queue));
    let keeper = Keeper { world, queue, slot, units, is_same, own: None };
    Kind { api: Api::all(client.clone()), config: Config::default(), keep, keeper }
}

impl<K, V: Learned> Kind<K, V> {
    /// A kind whose statuses the operator writes.
    fn own(mut self) -> Self {
        self.keeper.own = Some(Own::new());
        self
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
                kind.keeper.replace(&std::mem::take(&mut listed));
                if let Some(loaded) = loaded.take() {
                    let _ = loaded.send(());
                }
            }
            Ok(Event::Apply(object)) => {
                let key = Key::of(object.meta());
                kind.keeper.apply(key, (kind.keep)(object));
            }
            Ok(Event::Delete(object)) => kind.keeper.delete(&Key::of(object.meta())),
            Err(error) => warn!(kind = %K::kind(&()), %error, "watch interrupted; trying again"),
        }
    }
    anyhow::bail!("the watch of {} ended", K::kind(&()))
}
