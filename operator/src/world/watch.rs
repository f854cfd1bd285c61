//! The watches of all kinds, begun anew when they are interrupted.

use std::fmt::Debug;
use std::sync::Arc;

use capstan_crds::{Key, label};
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tracing::warn;

use super::keeper::{Keeper, Own};
use super::scope::{self, Scope};
use super::units::{
    is_same_broker, is_same_consumer, is_same_queue, of_autoscaler, of_broker, of_consumer, of_deployment,
    of_labelled, of_policy, of_queue, of_stateful_set,
};
use super::{Autoscaler, Learned, Objects, Policy, Set, State, Unit, Workload, World};
use crate::metrics::Metrics;
use crate::work::WorkQueue;

/// How one kind is watched, in all namespaces or in one.
struct Kind<K, V> {
    api: Api<K>,
    config: Config,
    shared: Shared,
    /// What is kept of an object.
    keep: fn(K) -> V,
    keeper: Keeper<V>,
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
    config: &crate::config::Config,
    world: &Arc<World>,
    queue: &Arc<WorkQueue<Unit>>,
    metrics: &Arc<Metrics>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> impl Future<Output = ()> + use<> {
    let mut settled = Vec::new();
    for namespace in config.scopes() {
        let (scope, receiver) = Scope::new(namespace);
        settled.push(receiver);
        let shared = Shared {
            client: client.clone(),
            scope: Arc::new(scope),
            world: Arc::clone(world),
            queue: Arc::clone(queue),
            metrics: Arc::clone(metrics),
        };
        watch_scope(&shared, config.scaling, tasks);
    }
    scope::until_known(settled)
}

fn watch_scope(shared: &Shared, has_scaling: bool, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let brokers = kind(shared, without_managers, |s| &mut s.brokers, of_broker, is_same_broker);
    let queues = kind(shared, without_managers, |s| &mut s.queues, of_queue, is_same_queue);
    let consumers = kind(shared, without_managers, |s| &mut s.consumers, of_consumer, is_same_consumer);
    let keep = |deployment: Deployment| Workload::from(&deployment);
    let deployments = kind(shared, keep, |s| &mut s.deployments, of_deployment, Workload::is_same);
    let keep = |stateful_set: StatefulSet| Set::from(&stateful_set);
    let stateful_sets = kind(shared, keep, |s| &mut s.stateful_sets, of_stateful_set, Set::is_same);
    let mut services = kind(shared, without_managers, |s| &mut s.services, of_labelled, Service::eq);
    let mut accounts =
        kind(shared, without_managers, |s| &mut s.service_accounts, of_labelled, ServiceAccount::eq);
    let keep = |policy: NetworkPolicy| Policy::from(&policy);
    let policies = kind(shared, keep, |s| &mut s.policies, of_policy, Policy::eq);
    let keep = |autoscaler: HorizontalPodAutoscaler| Autoscaler::from(&autoscaler);
    let autoscalers = kind(shared, keep, |s| &mut s.autoscalers, of_autoscaler, Autoscaler::eq);
    let own = Config::default().labels(&format!("{}=capstan,{}", label::MANAGED_BY, label::BROKER));
    services.config = own.clone();
    accounts.config = own;
    tasks.spawn(run(brokers.own()));
    tasks.spawn(run(queues.own()));
    tasks.spawn(run(consumers.own()));
    tasks.spawn(run(deployments));
    tasks.spawn(run(stateful_sets));
    tasks.spawn(run(services));
    tasks.spawn(run(accounts));
    tasks.spawn(run(policies));
    if has_scaling {
        tasks.spawn(run(autoscalers));
    } else {
        // Nobody asks, and what is not asked for is not waited for.
        shared.scope.listed(&HorizontalPodAutoscaler::kind(&()));
    }
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
    let Shared { scope, world, queue, .. } = shared.clone();
    let keeper = Keeper { scope, world, queue, slot, units, is_same, own: None };
    Kind { api, config: Config::default(), shared: shared.clone(), keep, keeper }
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
            Ok(Event::InitDone) => kind.keeper.replace(&std::mem::take(&mut listed), &name),
            Ok(Event::Apply(object)) => {
                let key = Key::of(object.meta());
                kind.keeper.apply(key, (kind.keep)(object));
            }
            Ok(Event::Delete(object)) => kind.keeper.delete(&Key::of(object.meta())),
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
