//! Somebody else who writes the sidecar's fields: said, and then left alone.

use capstan_crds::Consumer;
use e2e::cluster::{Namespace, SHORT, tool};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::fixture::{APPLICATION, CONSUMER, QUEUE, message, until_condition, until_injected};
use crate::stage::on_stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_keeps_taking_the_sidecar_out_wins_in_the_end_and_is_told_of() {
    on_stage("contest", async |_, namespace| {
        namespace.apply(&[QUEUE, CONSUMER, APPLICATION].join("---")).await;
        until_condition::<Consumer>(namespace, "orders", ("InjectionContested", "False", "Uncontested"))
            .await;
        until_condition::<Consumer>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        for _ in 0..2 {
            replace(namespace).await;
            until_injected(namespace, "orders", true).await;
        }
        replace(namespace).await;
        let consumer: Consumer =
            until_condition(namespace, "orders", ("InjectionContested", "True", "Conflict")).await;
        assert!(message(&consumer, "InjectionContested").contains("three times"));
        until_condition::<Consumer>(namespace, "orders", ("Ready", "False", "Conflict")).await;
        until_injected(namespace, "orders", false).await;
    })
    .await;
}

/// kubectl reads, then writes; it fails when the Deployment's own controller writes in between.
async fn replace(namespace: &Namespace) {
    let is_settled = |deployment: &Deployment| {
        let observed = deployment.status.as_ref().and_then(|status| status.observed_generation);
        if observed == deployment.metadata.generation { Ok(()) } else { Err(format!("{observed:?}")) }
    };
    namespace.wait_for::<Deployment>("orders", "was seen by its controller", SHORT, is_settled).await;
    let arguments = ["-n", &namespace.name, "replace", "-f", "-"];
    tool::execute("kubectl", &arguments, Some(APPLICATION)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_another_manager_are_not_taken_back() {
    on_stage("manager", async |_, namespace| {
        namespace.apply(&[QUEUE, CONSUMER, APPLICATION].join("---")).await;
        until_condition::<Consumer>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        let patch = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "orders"},
            "spec": {"template": {"spec": {"initContainers": [{"name": "capstan", "livenessProbe": {"periodSeconds": 77}}]}}},
        });
        let params = PatchParams::apply("other").force();
        namespace.api::<Deployment>().patch("orders", &params, &Patch::Apply(&patch)).await.unwrap();
        let consumer: Consumer =
            until_condition(namespace, "orders", ("InjectionContested", "True", "Conflict")).await;
        assert!(message(&consumer, "InjectionContested").contains("\"other\""));
        let deployment = until_injected(namespace, "orders", true).await;
        let containers = deployment.spec.template.spec.unwrap().init_containers.unwrap();
        assert_eq!(containers[1].liveness_probe.as_ref().unwrap().period_seconds, Some(77));
    })
    .await;
}
