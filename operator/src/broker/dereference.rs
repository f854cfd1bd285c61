//! Looking up everything that concerns a Broker, in the world alone.

use std::sync::Arc;

use capstan_crds::{Broker, Key, Queue, Resolution};
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use kube::Resource;

use crate::world::{Policy, State, Workload};

/// A Broker and what is around it.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) key: Key,
    /// Not when it is being deleted.
    pub(super) broker: Option<Arc<Broker>>,
    /// Whether it is being deleted.
    pub(super) is_ending: bool,
    /// Of its namespace.
    pub(super) resolution: Resolution,
    /// The Queues that name it and are not being deleted.
    pub(super) queues: Vec<Arc<Queue>>,
    /// Dead-letter queues that are to be created in it.
    pub(super) missing: Vec<Queue>,
    pub(super) stateful_set: Option<Arc<Workload>>,
    pub(super) service: Option<Arc<Service>>,
    pub(super) pods_service: Option<Arc<Service>>,
    pub(super) service_account: Option<Arc<ServiceAccount>>,
    pub(super) network_policy: Option<Arc<Policy>>,
    /// Whether a NetworkPolicy that is not the operator's says who may reach the pod.
    pub(super) is_guarded: bool,
}

impl Scene {
    /// Whether there is nothing to do: no Broker, and nobody who needs one.
    pub(super) fn is_unused(&self) -> bool {
        self.broker.is_none() && self.queues.is_empty()
    }
}

/// Looks around.
pub(super) fn dereference(state: &State, key: &Key) -> Scene {
    let broker = state.brokers.get(key);
    let is_ending = broker.as_ref().is_some_and(|broker| broker.meta().deletion_timestamp.is_some());
    let resolution = state.resolve(&key.namespace);
    let is_mine = |queue: &Arc<Queue>| {
        queue.spec.broker_ref.name == key.name && queue.meta().deletion_timestamp.is_none()
    };
    let missing =
        resolution.missing().into_iter().filter(|queue| queue.spec.broker_ref.name == key.name).collect();
    let names = crate::names::names(&key.name);
    let (policies, labels) = (state.policies.of(&key.namespace), super::build::labels(&key.name));
    Scene {
        broker: broker.filter(|_| !is_ending),
        is_ending,
        queues: state.queues.of(&key.namespace).into_iter().filter(is_mine).collect(),
        missing,
        stateful_set: state.stateful_sets.get(&key.sibling(&names.stateful_set)),
        service: state.services.get(&key.sibling(&names.service)),
        pods_service: state.services.get(&key.sibling(&names.pods_service)),
        service_account: state.service_accounts.get(&key.sibling(&names.service_account)),
        network_policy: state.policies.get(&key.sibling(&names.network_policy)),
        is_guarded: policies.iter().any(|policy| policy.broker.is_none() && policy.guards(&labels)),
        resolution,
        key: key.clone(),
    }
}
