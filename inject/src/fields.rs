//! What is applied to a workload: own entries of its pod template, and no other field.
//!
//! k8s-openapi's own types cannot say "only these fields": a Deployment without a selector would be one with an empty one.

use std::collections::BTreeMap;

use capstan_api::workload::WorkloadKind;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Lifecycle, LifecycleHandler};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use crate::Workload;
use crate::container::QUIESCE_PATH;
use crate::identity::{ANNOTATION, Mark};

/// The fields of a pod template that are Capstan's. None at all takes away what was applied before.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Fields {
    /// The annotation that starts a rollout.
    pub mark: Option<String>,
    /// The sidecar, among the init containers.
    pub sidecar: Option<Container>,
    /// Containers that get a hook, and the port that it calls.
    pub hooks: Vec<(String, u16)>,
}

impl Fields {
    /// Those of the mode Admission.
    #[must_use]
    pub fn of_mark(mark: &Mark) -> Self {
        Self { mark: Some(mark.to_string()), ..Self::default() }
    }

    /// Whether nothing is applied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mark.is_none() && self.sidecar.is_none() && self.hooks.is_empty()
    }
}

/// The hook that holds back a container's SIGTERM until the sidecar's calls have ended.
pub(crate) fn hook(port: u16) -> Lifecycle {
    let get = HTTPGetAction {
        path: Some(QUIESCE_PATH.to_owned()),
        port: IntOrString::Int(port.into()),
        ..HTTPGetAction::default()
    };
    let handler = LifecycleHandler { http_get: Some(get), ..LifecycleHandler::default() };
    Lifecycle { pre_stop: Some(handler), ..Lifecycle::default() }
}

/// A Deployment or StatefulSet with these fields alone, as the body of a server-side apply.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Partial<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<Spec<'a>>,
}

/// The UID makes an apply to an object that is gone fail, where it would create one.
#[derive(Debug, Clone, Serialize)]
struct Metadata<'a> {
    name: &'a str,
    uid: &'a str,
}

#[derive(Debug, Clone, Serialize)]
struct Spec<'a> {
    template: Template<'a>,
}

#[derive(Debug, Clone, Serialize)]
struct Template<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<TemplateMetadata<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<PodSpec<'a>>,
}

#[derive(Debug, Clone, Serialize)]
struct TemplateMetadata<'a> {
    annotations: BTreeMap<&'static str, &'a str>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    init_containers: Option<[&'a Container; 1]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Hooked<'a>>,
}

#[derive(Debug, Clone, Serialize)]
struct Hooked<'a> {
    name: &'a str,
    lifecycle: Lifecycle,
}

impl<'a> Partial<'a> {
    /// Of a workload that exists.
    #[must_use]
    pub fn new(kind: WorkloadKind, workload: &'a Workload, fields: &'a Fields) -> Self {
        let metadata = Metadata { name: &workload.key.name, uid: &workload.uid };
        let spec = (!fields.is_empty()).then(|| Spec { template: template(fields) });
        Self { api_version: "apps/v1", kind: kind.as_str(), metadata, spec }
    }
}

fn template(fields: &Fields) -> Template<'_> {
    let annotations = |mark| TemplateMetadata { annotations: [(ANNOTATION, mark)].into() };
    let containers: Vec<Hooked<'_>> =
        fields.hooks.iter().map(|(name, port)| Hooked { name, lifecycle: hook(*port) }).collect();
    let has_spec = fields.sidecar.is_some() || !containers.is_empty();
    Template {
        metadata: fields.mark.as_deref().map(annotations),
        spec: has_spec.then(|| PodSpec {
            init_containers: fields.sidecar.as_ref().map(|sidecar| [sidecar]),
            containers,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::workload;

    fn json(fields: &Fields) -> serde_json::Value {
        serde_json::to_value(Partial::new(WorkloadKind::Deployment, &workload(), fields)).unwrap()
    }

    #[test]
    fn only_the_own_entries_are_applied() {
        let container = Container { name: "capstan".into(), image: Some("i".into()), ..Container::default() };
        let fields = Fields { sidecar: Some(container), ..Fields::default() };
        let head = serde_json::json!({"name": "web", "uid": "w"});
        let expected = serde_json::json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": head,
            "spec": {"template": {"spec": {"initContainers": [{"name": "capstan", "image": "i"}]}}},
        });
        assert_eq!(json(&fields), expected);
        let fields = Fields { mark: Some("m".into()), ..Fields::default() };
        let expected = serde_json::json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": head,
            "spec": {"template": {"metadata": {"annotations": {"capstan.dev/sidecar": "m"}}}},
        });
        assert_eq!(json(&fields), expected);
        let fields = Fields { hooks: vec![("app".into(), 9798)], ..Fields::default() };
        let hook = serde_json::json!({"preStop": {"httpGet": {"path": "/quiesce", "port": 9798}}});
        assert_eq!(
            json(&fields)["spec"]["template"]["spec"],
            serde_json::json!({"containers": [{"name": "app", "lifecycle": hook}]})
        );
    }

    #[test]
    fn taking_away_is_applying_nothing() {
        let expected = serde_json::json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "uid": "w"}});
        assert_eq!(json(&Fields::default()), expected);
    }
}
