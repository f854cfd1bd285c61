//! An operator that starts anew: it changes nothing, and a new version restarts nobody's pods.

use std::collections::BTreeMap;

use capstan_crds::{Broker, Consumer, Queue};
use e2e::cluster::Namespace;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::fixture::{APPLICATION, CONSUMER, QUEUE, until_condition, until_injected};
use crate::stage::on_stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_operator_writes_nothing() {
    on_stage("restart", async |stage, namespace| {
        namespace.apply(&[QUEUE, CONSUMER, APPLICATION].join("---")).await;
        until_condition::<Consumer>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        until_condition::<Queue>(namespace, "orders-dlq", ("Ready", "True", "AsDeclared")).await;
        canary(namespace, "first").await;
        let before = versions(namespace).await;
        assert_eq!(before.len(), 10, "{before:?}");
        stage.restart_operator(&[]).await;
        canary(namespace, "second").await;
        canary(namespace, "third").await;
        assert_eq!(versions(namespace).await, before);
    })
    .await;
}

/// Waits until a new Consumer has gone through the operator: what was to do when it came has been begun before.
async fn canary(namespace: &Namespace, name: &str) {
    let spec = "spec: {queueRef: {name: nothing}, targetRef: {kind: Deployment, name: nothing}}";
    namespace
        .apply(&format!(
            "apiVersion: capstan.dev/v1alpha1\nkind: Consumer\nmetadata: {{name: canary-{name}}}\n{spec}\n"
        ))
        .await;
    until_condition::<Consumer>(namespace, &format!("canary-{name}"), ("Ready", "False", "QueueNotFound"))
        .await;
}

/// The resource version of everything but the canaries.
async fn versions(namespace: &Namespace) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    add::<Broker>(namespace, &mut versions).await;
    add::<Queue>(namespace, &mut versions).await;
    add::<Consumer>(namespace, &mut versions).await;
    add::<Deployment>(namespace, &mut versions).await;
    add::<StatefulSet>(namespace, &mut versions).await;
    add::<Service>(namespace, &mut versions).await;
    add::<ServiceAccount>(namespace, &mut versions).await;
    add::<NetworkPolicy>(namespace, &mut versions).await;
    versions
}

async fn add<K>(namespace: &Namespace, versions: &mut BTreeMap<String, String>)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    for object in namespace.api::<K>().list(&ListParams::default()).await.unwrap() {
        let name = object.name_any();
        // Each namespace has an account of its own, and a Broker of this name.
        if !name.starts_with("canary")
            && (name, K::kind(&()).as_ref()) != ("default".to_owned(), "ServiceAccount")
        {
            versions.insert(
                format!("{}/{}", K::kind(&()), object.name_any()),
                object.resource_version().unwrap(),
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_sidecar_image_waits_for_a_change_of_the_sidecar() {
    on_stage("upgrade", async |stage, namespace| {
        namespace.apply(&[QUEUE, CONSUMER, APPLICATION].join("---")).await;
        until_condition::<Consumer>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        let before = until_injected(namespace, "orders", true).await;
        stage.restart_operator(&[("CAPSTAN_SIDECAR_IMAGE", "capstan/sidecar:next")]).await;
        canary(namespace, "first").await;
        canary(namespace, "second").await;
        let after = until_injected(namespace, "orders", true).await;
        assert_eq!(after.metadata.generation, before.metadata.generation);
        assert!(image(&after).ends_with(":0.1.0"), "{}", image(&after));
        let limits =
            "  sidecar: {resources: {requests: {cpu: 20m, memory: 32Mi}, limits: {memory: 128Mi}}}\n";
        namespace.apply(&format!("{CONSUMER}{limits}")).await;
        namespace
            .wait_for::<Deployment>("orders", "has the new sidecar", e2e::cluster::SHORT, |deployment| {
                let image = image(deployment);
                if image == "capstan/sidecar:next" { Ok(()) } else { Err(image) }
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_sidecar_image_rolls_the_workloads_that_ask_for_it() {
    on_stage("rolling", async |stage, namespace| {
        let named = |text: &str, name: &str| text.replace("name: orders", &format!("name: {name}"));
        let rolling = format!("{CONSUMER}  sidecar: {{updatePolicy: Rolling}}\n");
        for name in ["one", "two", "three"] {
            namespace.apply(&named(&[QUEUE, &rolling, APPLICATION].join("---"), name)).await;
        }
        namespace.apply(&[QUEUE, CONSUMER, APPLICATION].join("---")).await;
        for name in ["one", "two", "three", "orders"] {
            until_condition::<Consumer>(namespace, name, ("Ready", "True", "AsDeclared")).await;
        }
        stage.restart_operator(&[("CAPSTAN_SIDECAR_IMAGE", "capstan/sidecar:next")]).await;
        for name in ["one", "two", "three"] {
            namespace
                .wait_for::<Deployment>(name, "has the new sidecar", e2e::cluster::LONG, |deployment| {
                    let image = image(deployment);
                    if image == "capstan/sidecar:next" { Ok(()) } else { Err(image) }
                })
                .await;
        }
        let other = namespace.api::<Deployment>().get("orders").await.unwrap();
        assert!(image(&other).ends_with(":0.1.0"), "it did not ask: {}", image(&other));
    })
    .await;
}

fn image(deployment: &Deployment) -> String {
    let containers = deployment.spec.template.spec.as_ref().unwrap().init_containers.iter().flatten();
    containers.into_iter().find(|container| container.name == "capstan").unwrap().image.clone().unwrap()
}
