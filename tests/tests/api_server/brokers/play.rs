//! Playing the kubelet and the volumes' driver, of which there are none at this level.

use capstan_crds::Broker;
use e2e::cluster::{Namespace, SHORT, until};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

/// The pod of a Broker, once it is there and has another UID than `not`.
pub(super) async fn pod(namespace: &Namespace, broker: &str, not: Option<&Pod>) -> Pod {
    let is_other = |pod: &Pod| {
        let is_old = not.is_some_and(|not| not.metadata.uid == pod.metadata.uid);
        if is_old { Err("it is the old one".to_owned()) } else { Ok(()) }
    };
    namespace.wait_for::<Pod>(&format!("capstan-{broker}-0"), "is there", SHORT, is_other).await
}

/// Lets a pod be ready, as its StatefulSet sees it.
pub(super) async fn get_ready(namespace: &Namespace, pod: &Pod) {
    let ready = json!({"type": "Ready", "status": "True"});
    let status = json!({"status": {"phase": "Running", "conditions": [ready]}});
    let (api, name) = (namespace.api::<Pod>(), pod.name_any());
    api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&status)).await.unwrap();
    let is_counted = |set: &StatefulSet| {
        let ready = set.status.as_ref().and_then(|status| status.ready_replicas);
        if ready == Some(1) { Ok(()) } else { Err(format!("{ready:?} are ready")) }
    };
    namespace
        .wait_for::<StatefulSet>(name.trim_end_matches("-0"), "has a ready pod", SHORT, is_counted)
        .await;
}

/// A Broker of a namespace, with a spec.
pub(super) async fn broker(namespace: &Namespace, name: &str, spec: &str) {
    let object =
        format!("apiVersion: capstan.dev/v1alpha1\nkind: Broker\nmetadata: {{name: {name}}}\nspec: {spec}\n");
    namespace.apply(&object).await;
}

/// Changes the spec of a Broker.
pub(super) async fn change(namespace: &Namespace, name: &str, spec: Value) {
    let patch = json!({"spec": spec});
    namespace.api::<Broker>().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

/// The claim of a Broker, once it is there.
pub(super) async fn claim(namespace: &Namespace, broker: &str) -> PersistentVolumeClaim {
    let name = format!("data-capstan-{broker}-0");
    namespace.wait_for::<PersistentVolumeClaim>(&name, "is there", SHORT, |_| Ok(())).await
}

/// A StorageClass of which nobody makes volumes, called as the namespace.
pub(super) async fn storage_class(namespace: &Namespace, may_grow: bool) {
    let classes: Api<StorageClass> = Api::all(namespace.cluster.client.clone());
    let class = json!({
        "metadata": {"name": namespace.name},
        "provisioner": "example.com/none",
        "allowVolumeExpansion": may_grow,
    });
    classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
}

/// Lets the volumes of that StorageClass grow.
pub(super) async fn allow_growth(namespace: &Namespace) {
    let classes: Api<StorageClass> = Api::all(namespace.cluster.client.clone());
    let patch = json!({"allowVolumeExpansion": true});
    classes.patch(&namespace.name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

/// Makes a volume of the size that the claim asks for, and waits until they are bound.
pub(super) async fn bind(namespace: &Namespace, claim: &PersistentVolumeClaim) {
    let volumes: Api<PersistentVolume> = Api::all(namespace.cluster.client.clone());
    let spec = claim.spec.as_ref().unwrap();
    let volume = json!({
        "metadata": {"name": namespace.name},
        "spec": {
            "capacity": spec.resources.as_ref().unwrap().requests,
            "accessModes": spec.access_modes,
            "storageClassName": spec.storage_class_name,
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": "/nowhere"},
            "claimRef": {"namespace": namespace.name, "name": claim.name_any(), "uid": claim.metadata.uid},
        },
    });
    volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
    let is_bound = |claim: &PersistentVolumeClaim| {
        let phase = claim.status.as_ref().and_then(|status| status.phase.clone());
        if phase.as_deref() == Some("Bound") { Ok(()) } else { Err(format!("it is {phase:?}")) }
    };
    namespace.wait_for::<PersistentVolumeClaim>(&claim.name_any(), "is bound", SHORT, is_bound).await;
}

/// Writes what a driver writes to the status of a claim.
pub(super) async fn drive(namespace: &Namespace, claim: &str, status: Value) {
    let patch = json!({"status": status});
    let claims = namespace.api::<PersistentVolumeClaim>();
    claims.patch_status(claim, &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
}

/// What a claim asks for.
pub(super) fn asked(claim: &PersistentVolumeClaim) -> String {
    let resources = claim.spec.as_ref().unwrap().resources.as_ref().unwrap();
    resources.requests.as_ref().unwrap()["storage"].0.clone()
}

/// How a claim may be mounted.
pub(super) fn access_mode(claim: &PersistentVolumeClaim) -> String {
    claim.spec.as_ref().unwrap().access_modes.as_ref().unwrap()[0].clone()
}

/// What the StatefulSet of a Broker says of its claim: size and access mode.
pub(super) fn claim_template(set: &StatefulSet) -> (String, String) {
    let template = &set.spec.volume_claim_templates.as_ref().unwrap()[0];
    (asked(template), access_mode(template))
}

/// Takes away what belongs to no namespace.
pub(super) async fn clear(namespace: &Namespace) {
    let client = &namespace.cluster.client;
    let params = DeleteParams::default();
    let _ = Api::<StorageClass>::all(client.clone()).delete(&namespace.name, &params).await;
    let _ = Api::<PersistentVolume>::all(client.clone()).delete(&namespace.name, &params).await;
}

/// Waits until an object is gone.
pub(super) async fn until_gone<K>(namespace: &Namespace, name: &str)
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api = namespace.api::<K>();
    until(&format!("{} {name} is gone", K::kind(&())), SHORT, async || {
        match api.get_metadata_opt(name).await.map_err(|error| error.to_string())? {
            None => Ok(()),
            Some(found) => Err(format!("it is there, deleted at {:?}", found.metadata.deletion_timestamp)),
        }
    })
    .await;
}
