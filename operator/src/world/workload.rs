//! What the operator keeps of a Deployment or StatefulSet.

use capstan_crds::{Key, label};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

/// Kubernetes' own default.
const GRACE_SECONDS_DEFAULT: u64 = 30;

/// A Deployment or StatefulSet, as far as injection and readiness go.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Workload {
    pub key: Key,
    pub uid: String,
    pub generation: i64,
    /// The controller that owns the workload, as `Kind/name`.
    pub controller: Option<String>,
    pub selector: LabelSelector,
    /// Pods asked for.
    pub replicas: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// Pods there are.
    pub current: u32,
    /// Pods made from the current template.
    pub updated: u32,
    /// Whether the workload's own controller has seen its current generation.
    pub is_observed: bool,
    /// Whether changes of the template wait until somebody resumes the rollout.
    pub is_paused: bool,
    pub host_network: bool,
    /// How long a pod may take to end.
    pub grace_seconds: u64,
    /// The container with the sidecar's name, wherever it stands.
    pub sidecar: Option<Container>,
    /// Whether that is an init container the operator applied.
    pub is_ours: bool,
    /// Container names and the ports they declare, without the sidecar's.
    pub ports: Vec<(String, i32)>,
}

impl From<&Deployment> for Workload {
    fn from(object: &Deployment) -> Self {
        let mut workload = from_meta(&object.metadata);
        let spec = &object.spec;
        workload.replicas = count(spec.replicas.or(Some(1)));
        workload.selector = spec.selector.clone();
        workload.is_paused = spec.paused == Some(true);
        workload.read_pod(spec.template.spec.as_ref());
        if let Some(status) = &object.status {
            workload.ready = count(status.ready_replicas);
            workload.current = count(status.replicas);
            workload.updated = count(status.updated_replicas);
            workload.is_observed = status.observed_generation >= Some(workload.generation);
        }
        workload
    }
}

impl From<&StatefulSet> for Workload {
    fn from(object: &StatefulSet) -> Self {
        let mut workload = from_meta(&object.metadata);
        let spec = &object.spec;
        workload.replicas = count(spec.replicas.or(Some(1)));
        workload.selector = spec.selector.clone();
        workload.read_pod(spec.template.spec.as_ref());
        if let Some(status) = &object.status {
            workload.ready = count(status.ready_replicas);
            workload.current = count(Some(status.replicas));
            workload.updated = count(status.updated_replicas);
            workload.is_observed = status.observed_generation >= Some(workload.generation);
        }
        workload
    }
}

fn from_meta(meta: &ObjectMeta) -> Workload {
    let owners = meta.owner_references.iter().flatten();
    let controller = owners.clone().find(|owner| owner.controller == Some(true));
    Workload {
        key: Key::of(meta),
        uid: meta.uid.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
        controller: controller.map(|owner| format!("{}/{}", owner.kind, owner.name)),
        is_ours: is_applied_by_us(meta),
        ..Workload::default()
    }
}

/// Whether the operator's field manager owns something of the object itself, not of a subresource.
fn is_applied_by_us(meta: &ObjectMeta) -> bool {
    meta.managed_fields.iter().flatten().any(|fields| {
        fields.manager.as_deref() == Some(label::FIELD_MANAGER)
            && fields.operation.as_deref() == Some("Apply")
            && fields.subresource.as_deref().unwrap_or_default().is_empty()
    })
}

impl Workload {
    /// Whether every pod there is was made from the current template.
    #[must_use]
    pub fn is_rolled_out(&self) -> bool {
        self.is_observed && self.updated == self.current && self.current == self.replicas
    }

    fn read_pod(&mut self, pod: Option<&PodSpec>) {
        let Some(pod) = pod else { return };
        let init = pod.init_containers.iter().flatten();
        let is_sidecar = |container: &&Container| container.name == label::SIDECAR;
        let ours = init.clone().find(is_sidecar);
        self.is_ours &= ours.is_some();
        self.sidecar = ours.or_else(|| pod.containers.iter().find(is_sidecar)).cloned();
        self.host_network = pod.host_network == Some(true);
        let grace = pod.termination_grace_period_seconds.and_then(|grace| u64::try_from(grace).ok());
        self.grace_seconds = grace.unwrap_or(GRACE_SECONDS_DEFAULT);
        let others = init.chain(&pod.containers).filter(|container| !is_sidecar(container));
        self.ports = others.flat_map(ports).collect();
    }
}

fn ports(container: &Container) -> impl Iterator<Item = (String, i32)> {
    let ports = container.ports.iter().flatten();
    ports.map(|port| (container.name.clone(), port.container_port))
}

fn count(replicas: Option<i32>) -> u32 {
    u32::try_from(replicas.unwrap_or_default()).unwrap_or_default()
}
