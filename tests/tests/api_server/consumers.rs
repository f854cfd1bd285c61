//! Consumers that cannot have what they ask for, until they can.

use std::time::{SystemTime, UNIX_EPOCH};

use capstan_crds::{Consumer, Queue};
use e2e::cluster::{SHORT, until};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::fixture::{APPLICATION, CONSUMER, QUEUE, message, until_condition, until_injected};
use crate::stage::on_stage;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_consumer_has_the_queue_until_it_is_gone() {
    on_stage("claim", async |_, namespace| {
        let pull = |name: &str| {
            format!("apiVersion: capstan.dev/v1alpha1\nkind: Consumer\nmetadata: {{name: {name}}}\nspec: {{queueRef: {{name: orders}}}}\n")
        };
        namespace.apply(&pull("second")).await;
        until_condition::<Consumer>(namespace, "second", ("Ready", "False", "QueueNotFound")).await;
        namespace.apply(QUEUE).await;
        until_condition::<Consumer>(namespace, "second", ("Ready", "True", "AsDeclared")).await;
        until_condition::<Queue>(namespace, "orders", ("Delivering", "True", "Pull")).await;
        namespace.apply(&pull("another")).await;
        let late: Consumer = until_condition(namespace, "another", ("Ready", "False", "QueueAlreadyConsumed")).await;
        assert!(message(&late, "Ready").contains("Consumer second"));
        namespace.kubectl(&["delete", "consumer.capstan.dev", "second"]).await;
        until_condition::<Consumer>(namespace, "another", ("Ready", "True", "AsDeclared")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_comes_later_is_injected_then() {
    on_stage("later", async |_, namespace| {
        namespace.apply(&[QUEUE, CONSUMER].join("---")).await;
        let consumer: Consumer =
            until_condition(namespace, "orders", ("Ready", "False", "TargetNotFound")).await;
        assert!(message(&consumer, "Ready").contains("Deployment/orders"));
        namespace.apply(APPLICATION).await;
        until_injected(namespace, "orders", true).await;
        until_condition::<Consumer>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        namespace.kubectl(&["delete", "deployment", "orders"]).await;
        until_condition::<Consumer>(namespace, "orders", ("Ready", "False", "TargetNotFound")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_cannot_be_injected_says_why_and_is_left_alone() {
    on_stage("obstacle", async |_, namespace| {
        namespace.apply(QUEUE).await;
        let spec = "    spec:\n      initContainers:";
        let cases = [
            (
                "host",
                "HostNetwork",
                APPLICATION
                    .replace(spec, "    spec:\n      hostNetwork: true\n      initContainers:")
                    .replace("containerPort: 8080", "containerPort: 8080, hostPort: 8080"),
            ),
            ("taken", "NameTaken", APPLICATION.replace("name: first", "name: capstan")),
            ("port", "NameTaken", APPLICATION.replace("containerPort: 8080", "containerPort: 9798")),
            ("gateway", "NameTaken", APPLICATION.replace("containerPort: 8080", "containerPort: 9797")),
        ];
        for (name, reason, application) in cases {
            let application = application.replace("name: orders\n", &format!("name: {name}\n"));
            namespace.apply(&application).await;
            let before = namespace.api::<Deployment>().get(name).await.unwrap();
            let consumer =
                CONSUMER.replace("metadata: {name: orders}", &format!("metadata: {{name: {name}}}"));
            namespace
                .apply(&consumer.replace("Deployment, name: orders", &format!("Deployment, name: {name}")))
                .await;
            until_condition::<Consumer>(namespace, name, ("TargetResolved", "False", reason)).await;
            let after = namespace.api::<Deployment>().get(name).await.unwrap();
            assert_eq!(after.spec, before.spec);
            namespace.kubectl(&["delete", "consumer.capstan.dev", name]).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_of_a_controller_is_left_to_it() {
    on_stage("owned", async |_, namespace| {
        namespace.apply(&[QUEUE, APPLICATION].join("---")).await;
        let queue = namespace.api::<Queue>().get("orders").await.unwrap();
        // Any object will do as a controller.
        let owner = json!({"apiVersion": "capstan.dev/v1alpha1", "kind": "Queue", "name": "orders",
            "uid": queue.metadata.uid, "controller": true});
        let patch = json!({"metadata": {"ownerReferences": [owner]}});
        namespace
            .api::<Deployment>()
            .patch("orders", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
        namespace.apply(CONSUMER).await;
        let consumer: Consumer =
            until_condition(namespace, "orders", ("Ready", "False", "TargetControlled")).await;
        assert!(message(&consumer, "Ready").contains("Queue/orders"));
        until_injected(namespace, "orders", false).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_consumers_of_a_workload_share_a_sidecar_of_one_broker() {
    on_stage("shared", async |_, namespace| {
        let object = |kind: &str, name: &str, spec: &str| {
            format!(
                "apiVersion: capstan.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
            )
        };
        let target = "targetRef: {kind: Deployment, name: orders}";
        namespace
            .apply(
                &[
                    QUEUE,
                    &object("Queue", "invoices", "{}"),
                    &object("Queue", "far", "{brokerRef: {name: far}}"),
                    &object("Broker", "far", "{}"),
                    CONSUMER,
                    APPLICATION,
                ]
                .join("---\n"),
            )
            .await;
        let oldest: Consumer = until_condition(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        let before = until_injected(namespace, "orders", true).await;
        until_younger(&oldest).await;
        namespace
            .apply(&object("Consumer", "invoices", &format!("{{queueRef: {{name: invoices}}, {target}}}")))
            .await;
        until_condition::<Consumer>(namespace, "invoices", ("SidecarsInjected", "True", "Injected")).await;
        namespace.apply(&object("Consumer", "far", &format!("{{queueRef: {{name: far}}, {target}}}"))).await;
        let far: Consumer =
            until_condition(namespace, "far", ("TargetResolved", "False", "BrokerMismatch")).await;
        assert!(message(&far, "TargetResolved").contains("Broker default"));
        let after = until_injected(namespace, "orders", true).await;
        assert_eq!(after.metadata.generation, before.metadata.generation, "more Consumers restart nothing");
    })
    .await;
}

/// Objects of one second are of the same age to the API, and the UID would decide between them.
async fn until_younger(oldest: &Consumer) {
    let created = oldest.metadata.creation_timestamp.as_ref().unwrap().0.as_second();
    until("what is created now is younger", SHORT, async || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        if i64::try_from(now).unwrap() > created { Ok(()) } else { Err("it is the same second".to_owned()) }
    })
    .await;
}
