//! What the cluster has, kept up to date by watches.

mod objects;
mod scope;
mod units;
mod watch;
mod workload;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use capstan_api::workload::WorkloadKind;
use capstan_crds::{Broker, Consumer, Key, Queue, Resolution, resolve};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

pub use objects::Objects;
pub use units::{Unit, all_units, units_of_consumers};
pub(crate) use watch::watch_all;
pub use workload::Workload;

/// Everything that is watched.
#[derive(Debug, Default)]
pub struct State {
    pub brokers: Objects<Broker>,
    pub queues: Objects<Queue>,
    pub consumers: Objects<Consumer>,
    pub deployments: Objects<Workload>,
    pub stateful_sets: Objects<Workload>,
    /// Only the operator's own.
    pub services: Objects<Service>,
}

impl State {
    /// A workload of either kind.
    #[must_use]
    pub fn workload(&self, kind: WorkloadKind, key: &Key) -> Option<Arc<Workload>> {
        match kind {
            WorkloadKind::Deployment => self.deployments.get(key),
            WorkloadKind::StatefulSet => self.stateful_sets.get(key),
        }
    }

    /// What follows from the Queues and Consumers of a namespace: references never leave it.
    #[must_use]
    pub fn resolve(&self, namespace: &str) -> Resolution {
        let (queues, consumers) = (self.queues.of(namespace), self.consumers.of(namespace));
        resolve(queues.iter().map(AsRef::as_ref), consumers.iter().map(AsRef::as_ref))
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

    /// Takes in what the API server answered to a write, so that nobody works from what it replaced. Older than what
    /// is known, or gone meanwhile, it is nothing.
    pub fn learn<K: ResourceExt>(&self, slot: fn(&mut State) -> &mut Objects<K>, object: K) {
        let mut state = self.write();
        let objects = slot(&mut state);
        let key = Key::of(object.meta());
        let is_newer = |known: &K| {
            object.uid() == known.uid()
                && version(&object).zip(version(known)).is_some_and(|(new, old)| new > old)
        };
        if objects.get(&key).is_some_and(|known| is_newer(&known)) {
            objects.insert(key, Arc::new(object));
        }
    }
}

/// Resource versions of one kind are numbers that only grow.
fn version<K: ResourceExt>(object: &K) -> Option<u64> {
    object.resource_version()?.parse().ok()
}
