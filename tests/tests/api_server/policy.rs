//! What the operator's account may change in other people's workloads, whoever uses it: its own entries.

use capstan_crds::Consumer;
use e2e::cluster::{Namespace, SHORT, until};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::fixture::{APPLICATION, CONSUMER, QUEUE, until_condition, until_injected};
use crate::stage::{SYSTEM, Stage, on_stage};

const ONLY_INIT: &str = "nothing in pods but the init container capstan";
const ONLY_HOOK: &str = "nothing in containers but a preStop hook that calls the sidecar";
const ONLY_TEMPLATE: &str = "nothing in a workload but its pod template";
const ONLY_NOTES: &str = "no annotations but those of capstan.dev/";
const ONLY_BROKERS: &str = "creates and deletes no workloads but the StatefulSets of its Brokers";
const ONLY_COST: &str = "nothing in pods but the annotation controller.kubernetes.io/pod-deletion-cost";
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
        pods(&client, namespace).await;
        create(&client, namespace).await;
        delete(&client, namespace).await;
    })
    .await;
}

/// Of pods it has the deletion cost alone.
async fn pods(client: &Client, namespace: &Namespace) {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "one", "labels": {"a": "b"}, "annotations": {"example.com/a": "b"}},
        "spec": {"containers": [{"name": "app", "image": "example.com/app:1"}]},
    }))
    .unwrap();
    namespace.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace.name);
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    for (change, is_allowed) in [
        (json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1"}}}), true),
        (json!({"metadata": {"annotations": {"example.com/a": "c"}}}), false),
        (json!({"metadata": {"annotations": {"example.com/a": null}}}), false),
        (json!({"metadata": {"labels": {"a": "c"}}}), false),
        (json!({"metadata": {"finalizers": ["a.example.com/b"]}}), false),
        (json!({"spec": {"containers": [{"name": "app", "image": "evil"}]}}), false),
    ] {
        let patched = api.patch("one", &params, &Patch::Strategic(&change)).await.map_err(|e| e.to_string());
        match patched {
            Ok(_) => assert!(is_allowed, "{change}"),
            Err(error) => assert!(!is_allowed && error.contains(ONLY_COST), "{change}: {error}"),
        }
    }
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
            assert!(error.to_string().contains(ONLY_BROKERS), "{error}");
        }
    }
}

const USERS_SET: &str = "apiVersion: apps/v1
kind: StatefulSet
metadata: {name: theirs}
spec:
  replicas: 0
  serviceName: theirs
  selector: {matchLabels: {app: theirs}}
  template:
    metadata: {labels: {app: theirs}}
    spec: {containers: [{name: app, image: app}]}
";

/// It deletes StatefulSets, but only a Broker's.
async fn delete(client: &Client, namespace: &Namespace) {
    namespace.apply(USERS_SET).await;
    let params = DeleteParams { dry_run: true, ..DeleteParams::default() };
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace.name);
    let error = sets.delete("theirs", &params).await.expect_err("a user's").to_string();
    assert!(error.contains(ONLY_BROKERS), "{error}");
    sets.delete("capstan-default", &params).await.expect("a Broker's");
    // Deployments it may not delete by its role; nor if it had the right.
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace.name);
    let error = deployments.delete("orders", &params).await.expect_err("no such right").to_string();
    assert!(error.contains("cannot delete resource"), "{error}");
    let role = json!({"metadata": {"name": "more"},
        "rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["delete"]}]});
    let binding = json!({"metadata": {"name": "more"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "more"},
        "subjects": [{"kind": "ServiceAccount", "name": "capstan", "namespace": SYSTEM}]});
    let (role, binding): (Role, RoleBinding) =
        (serde_json::from_value(role).unwrap(), serde_json::from_value(binding).unwrap());
    namespace.api::<Role>().create(&PostParams::default(), &role).await.unwrap();
    namespace.api::<RoleBinding>().create(&PostParams::default(), &binding).await.unwrap();
    until("the policy refuses what the role allows", SHORT, async || {
        match deployments.delete("orders", &params).await {
            Ok(_) => panic!("a user's Deployment could be deleted"),
            Err(error) if error.to_string().contains(ONLY_BROKERS) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    // Everybody else may do as before.
    namespace.api::<StatefulSet>().delete("theirs", &params).await.unwrap();
}
