//! A Broker whose node is lost.

use capstan_crds::Broker;
use e2e::cluster::{Namespace, SHORT, until};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::play;
use crate::fixture::{message, until_condition};
use crate::stage::on_stage;

/// A node that does not report, and the Broker's pod on it.
async fn lose(namespace: &Namespace, pod: &str) -> Api<Node> {
    let nodes: Api<Node> = Api::all(namespace.cluster.client.clone());
    let node = json!({"metadata": {"name": namespace.name}});
    nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
    let ready = json!({"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"});
    let status = json!({"status": {"conditions": [ready]}});
    nodes.patch_status(&namespace.name, &PatchParams::default(), &Patch::Strategic(&status)).await.unwrap();
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod},
        "target": {"apiVersion": "v1", "kind": "Node", "name": namespace.name},
    });
    let pods = namespace.api::<Pod>();
    let bound: Result<serde_json::Value, _> =
        pods.create_subresource("binding", pod, &PostParams::default(), &binding).await;
    bound.unwrap();
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_on_a_lost_node_says_what_to_run() {
    on_stage("lost", async |stage, namespace| {
        play::broker(namespace, "main", "{}").await;
        let pod = play::pod(namespace, "main", None).await;
        until_condition::<Broker>(namespace, "main", ("Available", "True", "Serving")).await;
        let nodes = lose(namespace, "capstan-main-0").await;
        stage.restart_operator(&[("CAPSTAN_BROKER_CONTROL_URL", "http://127.0.0.1:1")]).await;
        let lost: Broker = until_condition(namespace, "main", ("Available", "False", "NodeLost")).await;
        let taint = format!(
            "kubectl taint node {} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute",
            namespace.name
        );
        let force =
            format!("kubectl -n {} delete pod capstan-main-0 --force --grace-period=0", namespace.name);
        for command in [&taint, &force] {
            assert!(message(&lost, "Available").contains(command), "{}", message(&lost, "Available"));
        }
        until_condition::<Broker>(namespace, "main", ("Ready", "False", "NodeLost")).await;
        let same: Pod = namespace.api().get("capstan-main-0").await.unwrap();
        assert_eq!(same.metadata.uid, pod.metadata.uid);
        assert_eq!(same.metadata.deletion_timestamp, None, "nothing is forced");
        nodes.delete(&namespace.name, &DeleteParams::default()).await.unwrap();
        until("the Broker says that the node is gone", SHORT, async || {
            let broker = namespace.api::<Broker>().get("main").await.map_err(|error| error.to_string())?;
            let said = message(&broker, "Available");
            // Kubernetes takes the pod away from there, after which the next one has no node yet.
            let is_so = said.contains("is gone from the cluster") || said.contains("does not run");
            if is_so { Ok(()) } else { Err(said) }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_answers_is_available_whatever_its_node_says() {
    on_stage("answers", async |_, namespace| {
        play::broker(namespace, "main", "{}").await;
        play::pod(namespace, "main", None).await;
        let nodes = lose(namespace, "capstan-main-0").await;
        // One more look, at a new generation.
        play::change(namespace, "main", json!({"service": {"annotations": {"a": "b"}}})).await;
        until_condition::<Broker>(namespace, "main", ("Available", "True", "Serving")).await;
        nodes.delete(&namespace.name, &DeleteParams::default()).await.unwrap();
    })
    .await;
}
