//! Playing the kubelet for the pods of Deployments, of which there is none at this level.

use e2e::cluster::{LONG, Namespace, SHORT, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Lets pods be ready, until the rollout of their Deployment has ended.
pub(super) async fn until_settled(namespace: &Namespace, name: &str) {
    until(&format!("the rollout of {name} has ended"), LONG, async || {
        get_ready(namespace, name).await;
        let deployment = namespace.api::<Deployment>().get(name).await.map_err(|error| error.to_string())?;
        let (spec, status) = (deployment.spec, deployment.status.unwrap_or_default());
        let wanted = spec.replicas.unwrap_or(1);
        let all = [status.replicas, status.updated_replicas, status.ready_replicas];
        let is_observed = status.observed_generation == deployment.metadata.generation;
        if is_observed && all.iter().all(|count| *count == Some(wanted)) {
            Ok(())
        } else {
            Err(format!("observed: {is_observed}; all, new and ready pods: {all:?}"))
        }
    })
    .await;
}

async fn get_ready(namespace: &Namespace, name: &str) {
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    for pod in namespace.pods(&format!("app={name}")).await.iter().filter(|pod| !is_ready(pod)) {
        // One that has just been replaced is not there any more.
        let patch = Patch::Strategic(&status);
        let _ = namespace.api::<Pod>().patch_status(&pod.name_any(), &PatchParams::default(), &patch).await;
    }
}

fn sidecar_image(pod: &Pod) -> Option<String> {
    let mut init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    init.find(|container| container.name == "capstan")?.image.clone()
}

/// The images of the sidecars of a Deployment's pods.
pub(super) async fn sidecar_images(namespace: &Namespace, name: &str) -> Vec<String> {
    let pods = namespace.pods(&format!("app={name}")).await;
    pods.iter().map(|pod| sidecar_image(pod).unwrap_or_else(|| "none".to_owned())).collect()
}

/// Waits until a pod of a Deployment that was made now would get a sidecar of this image: the API server sees a changed policy a
/// moment later.
pub(super) async fn until_given(namespace: &Namespace, workload: &str, image: &str) {
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{workload}-abc"), "uid": "abc",
        "controller": true});
    let pod = json!({
        "metadata": {"name": "trial", "labels": {"pod-template-hash": "abc"}, "ownerReferences": [owner]},
        "spec": {"containers": [{"name": "app", "image": "example.com/app:1"}]},
    });
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let params = PostParams { dry_run: true, ..PostParams::default() };
    until(&format!("pods get {image}"), SHORT, async || {
        let made = namespace.api::<Pod>().create(&params, &pod).await.map_err(|error| error.to_string())?;
        let found = sidecar_image(&made);
        if found.as_deref() == Some(image) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}
