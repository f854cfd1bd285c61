//! What the operator keeps of a Deployment or StatefulSet.

use capstan_crds::{Key, label};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, StatefulSet};
use k8s_openapi::api::core::v1::{Container, ContainerPort, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::container::QUIESCE_PATH;
use crate::managers::Managers;

/// A Deployment or StatefulSet, as far as injection and readiness go.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Workload {
    pub key: Key,
    pub uid: String,
    pub generation: i64,
    /// Which state of the object this is: later ones have larger numbers.
    pub version: Option<u64>,
    /// The controller that owns the workload, as `Kind/name`.
    pub controller: Option<String>,
    pub selector: LabelSelector,
    /// Pods asked for.
    pub replicas: u32,
    /// Whether the operator set that number, and nobody has changed it since.
    pub owns_replicas: bool,
    /// The number in the name of the first pod, of a StatefulSet.
    pub first_ordinal: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// Pods there are.
    pub current: u32,
    /// Pods made from the current template.
    pub updated: u32,
    /// Whether the workload's own controller has seen its current generation.
    pub is_observed: bool,
    /// Whether the workload's own controller replaces pods by itself, all of them, when the template changes.
    pub replaces_pods: bool,
    /// Whether changes of the template wait until somebody resumes the rollout.
    pub is_paused: bool,
    pub host_network: bool,
    /// How long a pod may take to end.
    pub grace_seconds: u64,
    /// The container with the sidecar's name, wherever it stands.
    pub sidecar: Option<Container>,
    /// Whether that is an init container the operator applied, now or in an earlier template that was brought back.
    pub owns_sidecar: bool,
    /// Whether it was brought back by `kubectl rollout undo`, which is its owner then.
    pub is_restored: bool,
    /// Whether someone else applied it too, or alone.
    pub is_rendered: bool,
    /// The pod template's annotation that starts rollouts.
    pub mark: Option<String>,
    /// Whether the operator applied that.
    pub owns_mark: bool,
    /// The application's containers, without the sidecar, and the preStop hook of each.
    pub containers: Vec<(String, Hook)>,
    /// Why the workload's controller cannot make pods.
    pub failure: Option<String>,
    /// Container names and the TCP ports they declare, without the sidecar's.
    pub ports: Vec<(String, i32)>,
}

/// The preStop hook of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hook {
    #[default]
    None,
    /// It calls this port of the sidecar.
    Quiesce(i32),
    /// Somebody else's.
    Other,
}

impl From<&Deployment> for Workload {
    fn from(object: &Deployment) -> Self {
        let mut workload = from_meta(&object.metadata);
        let spec = &object.spec;
        workload.replicas = count(spec.replicas.or(Some(1)));
        workload.selector = spec.selector.clone();
        workload.is_paused = spec.paused == Some(true);
        workload.replaces_pods = !workload.is_paused;
        workload.read_template(&spec.template, &object.metadata);
        if let Some(status) = &object.status {
            workload.ready = count(status.ready_replicas);
            workload.current = count(status.replicas);
            workload.updated = count(status.updated_replicas);
            workload.is_observed = status.observed_generation >= Some(workload.generation);
            let failed = |one: &&DeploymentCondition| {
                one.type_.as_deref() == Some("ReplicaFailure") && one.status.as_deref() == Some("True")
            };
            let failure = status.conditions.iter().flatten().find(failed);
            workload.failure = failure.and_then(|one| one.message.clone());
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
        workload.first_ordinal = count(spec.ordinals.as_ref().and_then(|ordinals| ordinals.start));
        let strategy = spec.update_strategy.as_ref();
        let is_on_delete = strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("OnDelete"));
        let partition = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition);
        workload.replaces_pods = !is_on_delete && partition.unwrap_or_default() == 0;
        workload.read_template(&spec.template, &object.metadata);
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
        version: meta.resource_version.as_deref().and_then(|version| version.parse().ok()),
        owns_replicas: Managers::of(meta).own_replicas(),
        controller: controller.map(|owner| format!("{}/{}", owner.kind, owner.name)),
        ..Workload::default()
    }
}

impl Workload {
    /// How long a pod may take to end where nobody says so: Kubernetes' own default.
    pub const GRACE_SECONDS_DEFAULT: u64 = 30;

    /// Whether the operator applied something that is there.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.owns_sidecar || self.owns_mark
    }

    /// Whether nothing follows from the change of one to the other.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let other_version = Self { version: self.version, ..other.clone() };
        *self == other_version
    }

    /// Whether every pod there is was made from the current template.
    #[must_use]
    pub fn is_rolled_out(&self) -> bool {
        self.is_observed && self.updated == self.current && self.current == self.replicas
    }

    /// Whether every pod was made from the current template, and is ready.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_rolled_out() && self.ready >= self.replicas
    }

    fn read_template(&mut self, template: &PodTemplateSpec, meta: &ObjectMeta) {
        let managers = Managers::of(meta);
        let annotations = template.metadata.as_ref().and_then(|meta| meta.annotations.as_ref());
        self.mark = annotations.and_then(|all| all.get(label::SIDECAR_MARK)).cloned();
        self.owns_mark = self.mark.is_some() && (managers.own_mark() || managers.restored_mark());
        let Some(pod) = &template.spec else { return };
        let init = pod.init_containers.iter().flatten();
        let is_sidecar = |container: &&Container| container.name == label::SIDECAR;
        let among_init = init.clone().find(is_sidecar);
        self.is_restored = among_init.is_some() && managers.restored_sidecar();
        self.owns_sidecar = among_init.is_some() && (managers.own_sidecar() || self.is_restored);
        self.is_rendered = among_init.is_some() && managers.others_own_sidecar();
        self.sidecar = among_init.or_else(|| pod.containers.iter().find(is_sidecar)).cloned();
        self.host_network = pod.host_network == Some(true);
        let grace = pod.termination_grace_period_seconds.and_then(|grace| u64::try_from(grace).ok());
        self.grace_seconds = grace.unwrap_or(Self::GRACE_SECONDS_DEFAULT);
        let applications = pod.containers.iter().filter(|container| !is_sidecar(container));
        self.containers = applications.map(|container| (container.name.clone(), hook(container))).collect();
        let others = init.chain(&pod.containers).filter(|container| !is_sidecar(container));
        self.ports = others.flat_map(ports).collect();
    }
}

fn hook(container: &Container) -> Hook {
    let Some(handler) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else {
        return Hook::None;
    };
    match &handler.http_get {
        Some(get) if get.path.as_deref() == Some(QUIESCE_PATH) => match get.port {
            IntOrString::Int(port) => Hook::Quiesce(port),
            IntOrString::String(_) => Hook::Other,
        },
        _ => Hook::Other,
    }
}

fn ports(container: &Container) -> impl Iterator<Item = (String, i32)> {
    // The sidecar listens on TCP: another protocol's port of the same number is another port.
    let is_tcp = |port: &&ContainerPort| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
    let ports = container.ports.iter().flatten().filter(is_tcp);
    ports.map(|port| (container.name.clone(), port.container_port))
}

fn count(replicas: Option<i32>) -> u32 {
    u32::try_from(replicas.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "
      selector: {matchLabels: {app: web}}
      replicas: 3
      template:
        metadata: {labels: {app: web}}
        spec:
          terminationGracePeriodSeconds: 90
          initContainers: [{name: capstan, image: s, restartPolicy: Always}]
          containers: [{name: app, image: a, ports: [{containerPort: 8080}, {containerPort: 9000}, {containerPort: 9797, protocol: UDP}]}]";

    fn deployment(manager: &str, template: &str) -> Workload {
        let yaml = format!(
            "{{metadata: {{name: web, namespace: shop, uid: u, generation: 4, managedFields: [{manager}]}}, spec: {{}}}}"
        );
        let mut object: serde_json::Value = serde_yaml::from_str(&yaml).unwrap();
        object["spec"] = serde_yaml::from_str(template).unwrap();
        object["status"] = serde_json::json!({"observedGeneration": 4, "replicas": 3, "updatedReplicas": 2});
        Workload::from(&serde_json::from_value::<Deployment>(object).unwrap())
    }

    #[test]
    fn a_sidecar_is_ours_when_we_applied_it() {
        for (manager, expected) in [
            ("{manager: capstan, operation: Apply}", true),
            ("{manager: capstan, operation: Update}", false),
            ("{manager: capstan, operation: Apply, subresource: status}", false),
            ("{manager: kubectl, operation: Apply}", false),
            ("", false),
        ] {
            let workload = deployment(manager, TEMPLATE);
            assert_eq!(workload.is_ours(), expected, "{manager}");
            assert!(workload.sidecar.is_some());
        }
        // Something of ours elsewhere in the object is no sidecar.
        let elsewhere = deployment(
            "{manager: capstan, operation: Apply}",
            &TEMPLATE.replace("name: capstan", "name: other"),
        );
        assert_eq!((elsewhere.is_ours(), elsewhere.sidecar), (false, None));
        let container = deployment(
            "{manager: capstan, operation: Apply}",
            &TEMPLATE.replace("name: capstan", "name: x").replace("name: app", "name: capstan"),
        );
        assert!(!container.is_ours() && container.sidecar.is_some());
    }

    #[test]
    fn what_injection_needs_is_read() {
        let workload = deployment("", TEMPLATE);
        assert_eq!(workload.key, Key::new("shop", "web"));
        assert_eq!((workload.uid.as_str(), workload.generation, workload.replicas), ("u", 4, 3));
        assert_eq!(workload.grace_seconds, 90);
        assert_eq!(workload.ports, [("app".to_owned(), 8080), ("app".to_owned(), 9000)]);
        let plain = TEMPLATE
            .replace("terminationGracePeriodSeconds: 90", "hostNetwork: true")
            .replace("replicas: 3", "paused: true");
        let workload = deployment("", &plain);
        assert_eq!(
            (workload.grace_seconds, workload.host_network, workload.is_paused, workload.replicas),
            (30, true, true, 1)
        );
    }

    #[test]
    fn a_rollout_is_over_when_every_pod_is_new() {
        let rolling = deployment("", TEMPLATE);
        assert!(!rolling.is_rolled_out());
        assert!(Workload { updated: 3, ..rolling.clone() }.is_rolled_out());
        assert!(!Workload { updated: 3, is_observed: false, ..rolling.clone() }.is_rolled_out());
        assert!(!Workload { updated: 3, current: 4, ..rolling }.is_rolled_out(), "an old pod is left");
    }
}
