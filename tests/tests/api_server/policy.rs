//! What the operator's account may change in other people's workloads, whoever uses it: its own entries.

use capstan_crds::Consumer;
use e2e::cluster::{Namespace, SHORT, until};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::fixture::{APPLICATION, CONSUMER, QUEUE, until_condition, until_injected};
use crate::stage::{Stage, on_stage};

const ONLY_INIT: &str = "nothing in pods but the init container capstan";
const ONLY_HOOK: &str = "may change nothing in containers but a preStop hook that calls the sidecar";
const ONLY_TEMPLATE: &str = "nothing in a workload but its pod template";
const ONLY_NOTES: &str = "no annotations but those of capstan.dev/";
const NO_LABELS: &str = "may not change labels, annotations, owners or finalizers";

/// A client with the operator's account.
async fn operator(stage: &Stage) -> Client {
    let kubeconfig = Kubeconfig::read_from(stage.kubeconfig()).unwrap();
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Patches the Deployment as a trial.
async fn patch(client: &Client, namespace: &Namespace, patch: &str) -> Result<(), String> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), &namespace.name);
    let patch: Value = serde_json::from_str(patch).unwrap();
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let patched = api.patch("orders", &params, &Patch::Strategic(patch)).await;
    patched.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_account_changes_nothing_of_others_workloads() {
    on_stage("policy", async |stage, namespace| {
        // The operator's own work passes.
        namespace.apply(&[QUEUE, CONSUMER, APPLICATION].join("---")).await;
        until_condition::<Consumer>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        until_injected(namespace, "orders", true).await;
        let client = operator(stage).await;
        let image = r#"{"spec":{"template":{"spec":{"containers":[{"name":"app","image":"evil"}]}}}}"#;
        until("the policy is in force", SHORT, async || match patch(&client, namespace, image).await {
            Ok(_) => Err("an image could be changed".to_owned()),
            Err(error) if error.contains(ONLY_HOOK) => Ok(()),
            Err(error) => panic!("{error}"),
        })
        .await;
        for (change, complaint) in [
            (r#"{"spec":{"replicas":3}}"#, ONLY_TEMPLATE),
            (r#"{"spec":{"paused":true}}"#, ONLY_TEMPLATE),
            (r#"{"spec":{"minReadySeconds":5}}"#, ONLY_TEMPLATE),
            (r#"{"metadata":{"labels":{"a":"b"}}}"#, NO_LABELS),
            (r#"{"metadata":{"annotations":{"capstan.dev/a":"b"}}}"#, NO_LABELS),
            (r#"{"metadata":{"finalizers":["a.example.com/b"]}}"#, NO_LABELS),
            (r#"{"metadata":{"annotations":{"example.com/owner":null}}}"#, NO_LABELS),
            (r#"{"spec":{"template":{"metadata":{"labels":{"a":"b"}}}}}"#, ONLY_NOTES),
            (r#"{"spec":{"template":{"metadata":{"annotations":{"a":"b"}}}}}"#, ONLY_NOTES),
            (r#"{"spec":{"template":{"metadata":{"annotations":{"example.com/revision":null}}}}}"#, ONLY_NOTES),
            (r#"{"spec":{"template":{"spec":{"containers":[{"name":"app","env":[{"name":"A","value":"b"}]}]}}}}"#, ONLY_HOOK),
            (r#"{"spec":{"template":{"spec":{"containers":[{"name":"more","image":"evil"}]}}}}"#, ONLY_HOOK),
            (r#"{"spec":{"template":{"spec":{"containers":[{"name":"app","lifecycle":{"preStop":{"sleep":{"seconds":1}}}}]}}}}"#, ONLY_HOOK),
            (r#"{"spec":{"template":{"spec":{"containers":[{"name":"app","lifecycle":{"preStop":{"httpGet":{"path":"/evil","port":1}}}}]}}}}"#, ONLY_HOOK),
            (r#"{"spec":{"template":{"spec":{"containers":[{"name":"app","lifecycle":{"postStart":{"exec":{"command":["evil"]}}}}]}}}}"#, ONLY_HOOK),
            (r#"{"spec":{"template":{"spec":{"volumes":[{"name":"root","hostPath":{"path":"/"}}]}}}}"#, ONLY_INIT),
            (r#"{"spec":{"template":{"spec":{"serviceAccountName":"admin"}}}}"#, ONLY_INIT),
            (r#"{"spec":{"template":{"spec":{"hostNetwork":true}}}}"#, ONLY_INIT),
            (r#"{"spec":{"template":{"spec":{"initContainers":[{"name":"more","image":"evil"}]}}}}"#, ONLY_INIT),
            (r#"{"spec":{"template":{"spec":{"initContainers":[{"name":"first","image":"evil"}]}}}}"#, ONLY_INIT),
            (r#"{"spec":{"template":{"spec":{"initContainers":[{"name":"first","$patch":"delete"}]}}}}"#, ONLY_INIT),
        ] {
            let error = patch(&client, namespace, change).await.expect_err(change);
            assert!(error.contains(complaint) && error.contains("Forbidden"), "{change}: {error}");
        }
        for change in [
            r#"{"spec":{"template":{"spec":{"initContainers":[{"name":"capstan","image":"capstan/sidecar:next"}]}}}}"#,
            r#"{"spec":{"template":{"spec":{"initContainers":[{"name":"capstan","$patch":"delete"}]}}}}"#,
            r#"{"spec":{"template":{"metadata":{"annotations":{"capstan.dev/sidecar":"abc"}}}}}"#,
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"app","lifecycle":{"preStop":{"httpGet":{"path":"/quiesce","port":9798}}}}]}}}}"#,
        ] {
            patch(&client, namespace, change).await.unwrap_or_else(|error| panic!("{change}: {error}"));
        }
        // Everybody else may do as before.
        patch(&stage.cluster.client, namespace, image).await.unwrap();
        create(&client, namespace).await;
    })
    .await;
}

/// It makes StatefulSets, but only a Broker's.
async fn create(client: &Client, namespace: &Namespace) {
    let api: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace.name);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let owner = |kind: &str, group: &str| json!([{"apiVersion": group, "kind": kind, "name": "default", "uid": "u", "controller": true}]);
    for (owners, is_allowed) in [
        (json!([]), false),
        (owner("Broker", "example.com/v1"), false),
        (owner("Queue", "capstan.dev/v1alpha1"), false),
        (owner("Broker", "capstan.dev/v1alpha1"), true),
    ] {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "more", "ownerReferences": owners},
            "spec": {"serviceName": "more", "selector": {"matchLabels": {"app": "more"}}, "template": {
                "metadata": {"labels": {"app": "more"}},
                "spec": {"containers": [{"name": "more", "image": "evil"}]},
            }},
        }))
        .unwrap();
        let created = api.create(&params, &set).await;
        assert_eq!(created.is_ok(), is_allowed, "{owners}: {created:?}");
        if let Err(error) = created {
            let complaint = "creates no workloads but the StatefulSets of its Brokers";
            assert!(error.to_string().contains(complaint), "{error}");
        }
    }
}
