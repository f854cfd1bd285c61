//! What the cluster has, kept up to date by watches.

mod autoscaler;
mod broker_set;
mod keeper;
mod objects;
mod policy;
mod resolutions;
mod scope;
mod units;
mod watch;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use capstan_api::workload::WorkloadKind;
use capstan_crds::{Broker, Consumer, Key, Queue, Resolution};
pub use capstan_inject::Workload;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};

pub use autoscaler::Autoscaler;
pub use broker_set::{BrokerSet, Set};

use self::resolutions::Resolutions;
pub use objects::Objects;
pub use policy::Policy;
pub use units::{Unit, all_units, units_of_consumers};
pub(crate) use watch::watch_all;

/// Everything that is watched.
#[derive(Debug, Default)]
pub struct State {
    pub brokers: Objects<Broker>,
    pub queues: Objects<Queue>,
    pub consumers: Objects<Consumer>,
    pub deployments: Objects<Workload>,
    pub stateful_sets: Objects<Set>,
    /// Only the operator's own.
    pub services: Objects<Service>,
    /// Only the operator's own.
    pub service_accounts: Objects<ServiceAccount>,
    /// All NetworkPolicies.
    pub policies: Objects<Policy>,
    /// All HorizontalPodAutoscalers.
    pub autoscalers: Objects<Autoscaler>,
    resolutions: Resolutions,
}

impl State {
    /// A workload of either kind.
    #[must_use]
    pub fn workload(&self, kind: WorkloadKind, key: &Key) -> Option<Arc<Workload>> {
        match kind {
            WorkloadKind::Deployment => self.deployments.get(key),
            WorkloadKind::StatefulSet => self.stateful_sets.get(key).map(|set| Arc::clone(&set.workload)),
        }
    }

    /// What follows from the Queues and Consumers of a namespace: references never leave it.
    #[must_use]
    pub fn resolve(&self, namespace: &str) -> Arc<Resolution> {
        self.resolutions.get(namespace, || (self.queues.of(namespace), self.consumers.of(namespace)))
    }

    /// A Queue or Consumer of a namespace is another than before.
    pub(crate) fn forget_resolution(&mut self, namespace: &str) {
        self.resolutions.forget(namespace);
    }
}

/// The shared state. Locks are held for look-ups only, never across a request.
#[derive(Debug, Default)]
pub struct World {
    state: RwLock<State>,
}

impl World {
    /// Looks something up.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something.
    pub fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the API server answered to a write of a status, so that nobody works from what it replaced. Older
    /// than what is known, or gone meanwhile, it is nothing. If it has a new spec too, that is for the watch to bring,
    /// which tells whom it concerns.
    pub fn learn<K: Learned>(&self, object: K) {
        let mut state = self.write();
        let key = Key::of(object.meta());
        let Some(known) = K::slot(&mut state).get(&key) else { return };
        let is_same = known.uid() == object.uid()
            && known.meta().generation == object.meta().generation
            && known.meta().deletion_timestamp == object.meta().deletion_timestamp;
        if !is_same || !is_older(version(&*known), version(&object)) {
            return;
        }
        if !K::is_resolved_alike(&known, &object) {
            state.forget_resolution(&key.namespace);
        }
        K::slot(&mut state).insert(key, Arc::new(object));
    }
}

/// What has a status that the operator writes.
pub trait Learned: Resource {
    /// Where it is kept.
    fn slot(state: &mut State) -> &mut Objects<Self>
    where
        Self: Sized;

    /// Whether the same follows from both.
    fn is_resolved_alike(_: &Self, _: &Self) -> bool {
        true
    }
}

impl Learned for Broker {
    fn slot(state: &mut State) -> &mut Objects<Self> {
        &mut state.brokers
    }
}

impl Learned for Queue {
    fn slot(state: &mut State) -> &mut Objects<Self> {
        &mut state.queues
    }

    fn is_resolved_alike(old: &Self, new: &Self) -> bool {
        let holder = |queue: &Self| {
            let consumer = queue.status.as_ref().and_then(|status| status.consumer.as_ref());
            consumer.map(|consumer| consumer.uid.clone())
        };
        is_alike(old.meta(), new.meta()) && old.spec == new.spec && holder(old) == holder(new)
    }
}

impl Learned for Consumer {
    fn slot(state: &mut State) -> &mut Objects<Self> {
        &mut state.consumers
    }

    fn is_resolved_alike(old: &Self, new: &Self) -> bool {
        is_alike(old.meta(), new.meta()) && old.spec == new.spec
    }
}

fn is_alike(old: &ObjectMeta, new: &ObjectMeta) -> bool {
    let parts = |meta: &ObjectMeta| (meta.uid.clone(), meta.deletion_timestamp.clone());
    parts(old) == parts(new)
}

/// Resource versions of one kind are numbers that only grow.
fn version<K: ResourceExt>(object: &K) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

/// Whether one is known to be older than the other.
fn is_older(one: Option<u64>, other: Option<u64>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one < other)
}
