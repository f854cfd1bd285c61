//! Sidecars by the admission policy: pods are completed when they are created, and the workload has one annotation.

use capstan_api::workload::Workload as Reference;
use capstan_crds::{Consumer, Key};
use capstan_inject::{Identity, Images, sidecar};
use e2e::cluster::{Namespace, SHORT, until};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use crate::fixture::{
    APPLICATION, CONSUMER, QUEUE, init_containers, message, until_condition, until_injected,
};
use crate::stage::{BY_ADMISSION, on_stage, on_stage_with};

/// The annotation of the pod template.
const MARK: &str = capstan_crds::label::SIDECAR_MARK;

/// A StatefulSet whose containers have hooks of every kind.
const STATEFUL: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store}
spec:
  replicas: 1
  serviceName: store
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store}}
    spec:
      terminationGracePeriodSeconds: 90
      containers:
      - {name: plain, image: 'example.com/app:1'}
      - {name: started, image: 'example.com/app:1', lifecycle: {postStart: {exec: {command: [a]}}}}
      - {name: own, image: 'example.com/app:1', lifecycle: {preStop: {exec: {command: [sleep, '5']}}}}
";

/// The Deployment with a pod. Pods are never ready here, so that an old one goes first.
fn application() -> String {
    APPLICATION.replace("replicas: 0", "replicas: 1\n  strategy: {type: Recreate}")
}

/// Waits until every pod with a label has, or has not, the sidecar, and there is one.
async fn until_pods(namespace: &Namespace, label: &str, wanted: bool) -> Pod {
    until(&format!("the pods {label} have the sidecar: {wanted}"), SHORT, async || {
        let pods = namespace.pods(label).await;
        let [pod] = &pods[..] else { return Err(format!("{} pods", pods.len())) };
        if container(pod).is_null() == wanted { Err("it is otherwise".to_owned()) } else { Ok(pod.clone()) }
    })
    .await
}

/// The sidecar of a pod as it was made.
fn container(pod: &Pod) -> Value {
    let init = pod.spec.as_ref().unwrap().init_containers.iter().flatten();
    init.clone().find(|container| container.name == "capstan").map_or(Value::Null, |found| json!(found))
}

fn mark(deployment: &Deployment) -> Option<&String> {
    deployment.spec.template.metadata.as_ref()?.annotations.as_ref()?.get(MARK)
}

async fn until_marked(namespace: &Namespace, name: &str, wanted: bool) -> Deployment {
    let check = |deployment: &Deployment| match mark(deployment) {
        found if found.is_some() == wanted => Ok(()),
        found => Err(format!("its mark is {found:?}")),
    };
    namespace.wait_for::<Deployment>(name, &format!("is marked: {wanted}"), SHORT, check).await
}

/// The container that the mode Template would apply, as an API server completes it.
async fn as_by_template(namespace: &Namespace, workload: &str, grace_seconds: u64, more: &Consumer) -> Value {
    let workload: Reference = workload.parse().unwrap();
    let broker = Key::new(&namespace.name, "default");
    let identity = Identity::new(&namespace.name, &workload, &broker, &more.spec.sidecar);
    let images = Images { sidecar: "capstan/sidecar:0.1.0".into(), pull_policy: "IfNotPresent".into() };
    let pod = json!({
        "metadata": {"name": "as-by-template"},
        "spec": {"initContainers": [sidecar(&identity, grace_seconds, &images)], "containers": [{"name": "a", "image": "a"}]},
    });
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let pod = namespace.api::<Pod>().create(&params, &serde_json::from_value(pod).unwrap()).await.unwrap();
    container(&pod)
}

/// Without the mount of the account's token, which has another name in every pod.
fn without_mounts(mut container: Value) -> Value {
    container.as_object_mut().expect("there is a sidecar").remove("volumeMounts");
    container
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_get_the_same_sidecar_as_by_template_and_the_workload_a_mark() {
    on_stage_with("admission", &[BY_ADMISSION], async |_, namespace| {
        namespace.apply(&[QUEUE, CONSUMER, &application()].join("---")).await;
        let pod = until_pods(namespace, "app=orders", true).await;
        let deployment = until_marked(namespace, "orders", true).await;
        assert_eq!(init_containers(&deployment), ["first"], "the template has no sidecar");
        let names: Vec<_> = pod.spec.as_ref().unwrap().init_containers.iter().flatten().collect();
        assert_eq!(names[0].name, "capstan", "it starts before the application's own");
        let consumer = namespace.api::<Consumer>().get("orders").await.unwrap();
        let expected = as_by_template(namespace, "Deployment/orders", 30, &consumer).await;
        assert_eq!(without_mounts(container(&pod)), without_mounts(expected));
        let status = consumer.status.unwrap();
        assert_eq!(status.sidecar.unwrap().mode, "Admission");

        namespace.api::<Consumer>().delete("orders", &DeleteParams::default()).await.unwrap();
        until_marked(namespace, "orders", false).await;
        until_pods(namespace, "app=orders", false).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stateful_sets_several_consumers_other_ports_and_hooks() {
    on_stage_with("sets", &[BY_ADMISSION], async |_, namespace| {
        let target = "targetRef: {kind: Deployment, name: orders}";
        let consumer = |name: &str, more: &str| {
            CONSUMER
                .replace("name: orders}", &format!("name: {name}}}"))
                .replace(&target.replace("orders", name), "targetRef: {kind: StatefulSet, name: store}")
                + more
        };
        let ports =
            "  sidecar: {adminPort: 9000, gatewayPort: 9001, resources: {limits: {memory: 128Mi, cpu: 1}}}\n";
        let other = QUEUE.replace("orders", "other");
        namespace.apply(&[QUEUE, &other, &consumer("orders", ports)].join("---")).await;
        until_condition::<Consumer>(namespace, "orders", ("TargetResolved", "False", "TargetNotFound")).await;
        // The oldest decides, by seconds.
        let created =
            namespace.api::<Consumer>().get("orders").await.unwrap().metadata.creation_timestamp.unwrap().0;
        until("the next Consumer is younger", SHORT, async || {
            let age = jiff::Timestamp::now().duration_since(created);
            if age.as_secs() > 1 { Ok(()) } else { Err(format!("{age:?}")) }
        })
        .await;
        // Without a kubelet the first pod is never ready, and a StatefulSet does not replace it: it has to be right at once.
        namespace
            .apply(
                &[&consumer("other", ""), &STATEFUL.replace("replicas: 1", "replicas: 0")]
                    .map(String::as_str)
                    .join("---"),
            )
            .await;
        let check = |consumer: &Consumer| {
            let told = consumer.status.as_ref().and_then(|status| status.injection.as_ref());
            told.map(|_| ()).ok_or_else(|| "it is not told".to_owned())
        };
        namespace.wait_for::<Consumer>("other", "tells the policy", SHORT, check).await;
        let marked = |set: &StatefulSet| {
            let annotations = set.spec.template.metadata.as_ref().and_then(|meta| meta.annotations.as_ref());
            annotations.and_then(|all| all.get(MARK)).map(|_| ()).ok_or_else(|| "it is not".to_owned())
        };
        namespace.wait_for::<StatefulSet>("store", "is marked", SHORT, marked).await;
        namespace.kubectl(&["scale", "statefulset/store", "--replicas=1"]).await;
        let pod = until_pods(namespace, "app=store", true).await;
        let oldest = namespace.api::<Consumer>().get("orders").await.unwrap();
        let expected = as_by_template(namespace, "StatefulSet/store", 90, &oldest).await;
        assert_eq!(without_mounts(container(&pod)), without_mounts(expected));
        let spec = pod.spec.unwrap();
        let sidecars = spec.init_containers.iter().flatten().filter(|container| container.name == "capstan");
        assert_eq!(sidecars.count(), 1);
        let hooks: Vec<Value> = spec.containers.iter().map(|container| json!(container.lifecycle)).collect();
        let quiesce = json!({"httpGet": {"path": "/quiesce", "port": 9000, "scheme": "HTTP"}});
        assert_eq!(
            hooks,
            [
                json!({"preStop": quiesce}),
                json!({"postStart": {"exec": {"command": ["a"]}}, "preStop": quiesce}),
                json!({"preStop": {"exec": {"command": ["sleep", "5"]}}}),
            ]
        );
        let statuses = [
            oldest.status.unwrap().injection,
            namespace.api::<Consumer>().get("other").await.unwrap().status.unwrap().injection,
        ];
        assert!(statuses[0].is_some() && statuses[0] == statuses[1], "{statuses:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_others_are_left_alone() {
    on_stage_with("others", &[BY_ADMISSION], async |_, namespace| {
        let other =
            application().replace("name: orders", "name: orders-2").replace("app: orders", "app: two");
        namespace.apply(&[QUEUE, CONSUMER, &application(), &other].join("---")).await;
        until_pods(namespace, "app=orders", true).await;
        let pod = until_pods(namespace, "app=two", false).await;
        assert_eq!(pod.spec.unwrap().containers[0].lifecycle, None);
        let pods = namespace.api::<Pod>().list(&ListParams::default()).await.unwrap();
        let with = pods.items.iter().filter(|pod| !container(pod).is_null()).count();
        assert_eq!(with, 1, "of {}", pods.items.len());
    })
    .await;
}

/// An upgrade of the chart by which the cluster gets the policy.
#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_in_the_template_stays_there_until_it_has_to_change() {
    on_stage("moved", async |stage, namespace| {
        namespace.apply(&[QUEUE, CONSUMER, &application()].join("---")).await;
        let before = until_injected(namespace, "orders", true).await;
        until_pods(namespace, "app=orders", true).await;
        stage.restart_operator(&[BY_ADMISSION, ("CAPSTAN_SIDECAR_IMAGE", "capstan/sidecar:next")]).await;
        stage.operator.until_logged("how sidecars get into pods").await;
        let check = |consumer: &Consumer| {
            let status = consumer.status.as_ref().ok_or("it has no status")?;
            status.injection.as_ref().ok_or("the policy is not told")?;
            let found = message(consumer, "SidecarsInjected");
            if found.starts_with("1 of 1 pods") { Ok(()) } else { Err(found) }
        };
        let consumer = namespace.wait_for::<Consumer>("orders", "tells the policy", SHORT, check).await;
        assert_eq!(consumer.status.clone().unwrap().sidecar.unwrap().mode, "Template");
        let after = namespace.api::<Deployment>().get("orders").await.unwrap();
        assert_eq!(after.metadata.generation, before.metadata.generation);
        assert_eq!(mark(&after), None);

        namespace.apply(&format!("{CONSUMER}  sidecar: {{gatewayPort: 9001}}\n")).await;
        let moved = until_marked(namespace, "orders", true).await;
        assert_eq!(init_containers(&moved), ["first"]);
        until_pods(namespace, "app=orders", true).await;
    })
    .await;
}

/// A release that is changed to `injection.mode: Template`, of which the policy stays in the cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_left_behind_does_nothing() {
    on_stage_with("behind", &[BY_ADMISSION], async |stage, namespace| {
        namespace.apply(&[QUEUE, CONSUMER, &application()].join("---")).await;
        until_pods(namespace, "app=orders", true).await;
        let before = until_marked(namespace, "orders", true).await;
        stage.restart_operator(&[]).await;
        let after = until_injected(namespace, "orders", true).await;
        assert_eq!(mark(&after), None);
        assert_eq!(after.metadata.generation, before.metadata.generation.map(|old| old + 1), "rolled once");
        let check = |consumer: &Consumer| {
            let status = consumer.status.as_ref().ok_or("it has no status")?;
            let mode = status.sidecar.as_ref().map(|sidecar| sidecar.mode.as_str());
            let is_told = status.injection.is_some();
            if !is_told && mode == Some("Template") { Ok(()) } else { Err(format!("{is_told} {mode:?}")) }
        };
        namespace.wait_for::<Consumer>("orders", "tells the policy nothing", SHORT, check).await;
        until_pods(namespace, "app=orders", true).await;

        namespace.api::<Consumer>().delete("orders", &DeleteParams::default()).await.unwrap();
        until_injected(namespace, "orders", false).await;
        until_pods(namespace, "app=orders", false).await;
    })
    .await;
}
