//! What is applied to a workload: the sidecar's entry among the init containers, or nothing, and no other field.
//!
//! k8s-openapi's own types cannot say "only these fields": a Deployment without a selector would be one with an empty one.

use capstan_api::workload::{Workload as Reference, WorkloadKind};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Container;
use kube::{Api, Client};
use serde::Serialize;

use crate::api::{ApiError, apply_beside};
use crate::world::Workload;

/// A Deployment or StatefulSet with the operator's fields alone.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Partial<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<Spec<'a>>,
}

/// The UID makes an apply to an object that is gone fail, where it would create one.
#[derive(Debug, Serialize)]
struct Metadata<'a> {
    name: &'a str,
    uid: &'a str,
}

#[derive(Debug, Serialize)]
struct Spec<'a> {
    template: Template<'a>,
}

#[derive(Debug, Serialize)]
struct Template<'a> {
    spec: PodSpec<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec<'a> {
    init_containers: [&'a Container; 1],
}

impl<'a> Partial<'a> {
    fn new(kind: WorkloadKind, workload: &'a Workload, container: Option<&'a Container>) -> Self {
        let spec = container
            .map(|container| Spec { template: Template { spec: PodSpec { init_containers: [container] } } });
        let metadata = Metadata { name: &workload.key.name, uid: &workload.uid };
        Self { api_version: "apps/v1", kind: kind.as_str(), metadata, spec }
    }
}

/// Gives a workload this sidecar, or takes it away. A dry run only answers what it would be.
pub(super) async fn apply(
    client: &Client,
    reference: &Reference,
    workload: &Workload,
    container: Option<&Container>,
    dry_run: bool,
) -> Result<Workload, ApiError> {
    let (name, namespace) = (&workload.key.name, &workload.key.namespace);
    let partial = Partial::new(reference.kind, workload, container);
    match reference.kind {
        WorkloadKind::Deployment => {
            let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
            apply_beside(&api, name, &partial, dry_run).await.map(|object| Workload::from(&object))
        }
        WorkloadKind::StatefulSet => {
            let api: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
            apply_beside(&api, name, &partial, dry_run).await.map(|object| Workload::from(&object))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::workload;
    use super::*;

    fn json(container: Option<&Container>) -> serde_json::Value {
        serde_json::to_value(Partial::new(WorkloadKind::Deployment, &workload(), container)).unwrap()
    }

    #[test]
    fn only_the_own_entry_is_applied() {
        let container = Container { name: "capstan".into(), image: Some("i".into()), ..Container::default() };
        let expected = serde_json::json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "uid": "w"},
            "spec": {"template": {"spec": {"initContainers": [{"name": "capstan", "image": "i"}]}}},
        });
        assert_eq!(json(Some(&container)), expected);
    }

    #[test]
    fn taking_away_is_applying_nothing() {
        let expected = serde_json::json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "uid": "w"}});
        assert_eq!(json(None), expected);
    }
}
