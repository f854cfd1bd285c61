//! What the operator keeps of a HorizontalPodAutoscaler: which workload's number of pods it sets.

use capstan_api::workload::{Workload as Reference, WorkloadKind};
use capstan_crds::Key;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::ResourceExt;

/// The label by which KEDA marks the autoscalers that it makes, with the ScaledObject's name.
const SCALED_OBJECT: &str = "scaledobject.keda.sh/name";

/// A HorizontalPodAutoscaler.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Autoscaler {
    pub key: Key,
    /// None when it scales something that no Consumer can name.
    pub target: Option<Reference>,
    /// The ScaledObject for which KEDA made it.
    pub scaled_object: Option<String>,
}

impl From<&HorizontalPodAutoscaler> for Autoscaler {
    fn from(object: &HorizontalPodAutoscaler) -> Self {
        let target = Some(&object.spec.scale_target_ref);
        let is_apps = |version: &Option<String>| version.as_ref().is_some_and(|one| one.starts_with("apps/"));
        Self {
            key: Key::of(&object.metadata),
            target: target.filter(|one| is_apps(&one.api_version)).and_then(|target| {
                let kind = match target.kind.as_str() {
                    "Deployment" => WorkloadKind::Deployment,
                    "StatefulSet" => WorkloadKind::StatefulSet,
                    _ => return None,
                };
                Some(Reference { kind, name: target.name.clone() })
            }),
            scaled_object: object.labels().get(SCALED_OBJECT).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_target_is_what_a_consumer_can_name() {
        let of = |target: &str| {
            let yaml = format!(
                "{{metadata: {{name: a, namespace: shop, labels: {{scaledobject.keda.sh/name: web}}}}, \
                 spec: {{maxReplicas: 3, scaleTargetRef: {target}}}}}"
            );
            let autoscaler = Autoscaler::from(&serde_yaml::from_str(&yaml).unwrap());
            assert_eq!(autoscaler.scaled_object.as_deref(), Some("web"));
            autoscaler.target.map(|target| target.to_string())
        };
        assert_eq!(
            of("{apiVersion: apps/v1, kind: Deployment, name: web}").as_deref(),
            Some("Deployment/web")
        );
        assert_eq!(
            of("{apiVersion: apps/v1, kind: StatefulSet, name: db}").as_deref(),
            Some("StatefulSet/db")
        );
        assert_eq!(of("{apiVersion: apps/v1, kind: ReplicaSet, name: web}"), None);
        assert_eq!(of("{apiVersion: example.com/v1, kind: Deployment, name: web}"), None);
        assert_eq!(of("{kind: Deployment, name: web}"), None);
    }
}
