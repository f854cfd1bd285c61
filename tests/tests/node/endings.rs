//! Pods and containers end in every orderly way: no message is lost, handled twice, or charged an attempt because of it.

use std::time::Duration;

use e2e::cluster::{BrokerAccess, Cluster, LONG, Namespace, Turn, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

use crate::fixture::{PODS, QUEUE, is_rolled_out};
use crate::subject::{Subject, first_pod, orders, send_while, until_handled, until_in_flight};

/// Long enough that a pod ends with calls open, and shorter than what it has to end.
const TAKES_MS: u64 = 2000;

async fn with(prefix: &str, subject: Subject, test: impl AsyncFnOnce(&Namespace, &BrokerAccess<'_>)) {
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, prefix, async |namespace| {
        subject.run(namespace).await;
        test(namespace, &BrokerAccess::of(namespace)).await;
    })
    .await;
}

#[tokio::test]
async fn a_rolling_update_under_load_handles_each_message_once() {
    // 400 are in flight at a time.
    let subject = Subject { replicas: 3, consumer: "concurrencyPerPod: 20", ..Subject::DEFAULT };
    with("rolling", subject, async |namespace, broker| {
        let update = async {
            namespace.kubectl(&["set", "env", "deployment/orders", "REVISION=2"]).await;
            namespace.wait_for::<Deployment>("orders", "was updated", LONG, is_rolled_out).await;
        };
        let sent = send_while(broker, (20, Duration::from_millis(100)), TAKES_MS, update).await;
        assert!(sent.len() > 1000, "there was hardly any load: {}", sent.len());
        until_handled(namespace, broker).await.assert_once(&sent);
    })
    .await;
}

#[tokio::test]
async fn a_deleted_pod_finishes_what_it_has() {
    with("deleted", Subject::DEFAULT, delete_a_busy_pod).await;
}

async fn delete_a_busy_pod(namespace: &Namespace, broker: &BrokerAccess<'_>) {
    let sent = broker.send("orders", &orders(60, TAKES_MS)).await;
    until_in_flight(broker, 20).await;
    namespace.kubectl(&["delete", "pod", &first_pod(namespace).await.name_any(), "--wait"]).await;
    until_handled(namespace, broker).await.assert_once(&sent);
}

#[tokio::test]
async fn a_drained_node_finishes_what_it_has_and_the_rest_waits() {
    with("drained", Subject::DEFAULT, async |namespace, broker| {
        let sent = broker.send("orders", &orders(60, TAKES_MS)).await;
        until_in_flight(broker, 20).await;
        let node = first_pod(namespace).await.spec.and_then(|spec| spec.node_name).unwrap();
        let drain =
            ["drain", &node, "--pod-selector", "app=orders", "--ignore-daemonsets", "--timeout", "120s"];
        namespace.kubectl(&drain).await;
        namespace.kubectl(&["uncordon", &node]).await;
        until_handled(namespace, broker).await.assert_once(&sent);
    })
    .await;
}

#[tokio::test]
async fn an_application_that_its_liveness_probe_restarts_consumes_again() {
    let probe = "livenessProbe: {httpGet: {path: /livez, port: 8080}, periodSeconds: 1, failureThreshold: 1}";
    let subject = Subject { replicas: 1, container: probe, ..Subject::DEFAULT };
    with("liveness", subject, async |namespace, broker| {
        let mut sent = broker.send("orders", &orders(10, TAKES_MS)).await;
        until_in_flight(broker, 10).await;
        let pod = first_pod(namespace).await.name_any();
        namespace.post_to_pod(&pod, "/break").await;
        until_restarted(namespace, &pod).await;
        sent.extend(broker.send("orders", &orders(20, 0)).await);
        until_handled(namespace, broker).await.assert_once(&sent);
        assert_eq!(first_pod(namespace).await.name_any(), pod, "it is the same pod, with the same sidecar");
    })
    .await;
}

async fn until_restarted(namespace: &Namespace, pod: &str) {
    namespace
        .wait_for::<Pod>(pod, "restarted its container", LONG, |pod| {
            let mut statuses =
                pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            let status = statuses.next().ok_or("it has no status")?;
            let is_so = status.restart_count > 0 && status.ready;
            if is_so {
                Ok(())
            } else {
                Err(format!("{} restarts, ready: {}", status.restart_count, status.ready))
            }
        })
        .await;
}

#[tokio::test]
async fn an_application_with_a_hook_of_its_own_finishes_what_it_has() {
    let hook = "lifecycle: {preStop: {sleep: {seconds: 5}}}";
    with("hook", Subject { container: hook, ..Subject::DEFAULT }, delete_a_busy_pod).await;
}

/// It ends by SIGKILL when its grace period is over. What it was still handling goes to another pod, at no attempt.
#[tokio::test]
async fn an_application_that_ignores_sigterm_costs_no_attempt() {
    let subject = Subject { env: &[("IGNORE_TERM", "1")], grace_seconds: 10, ..Subject::DEFAULT };
    with("stubborn", subject, async |namespace, broker| {
        let mut sent = broker.send("orders", &orders(10, 25_000)).await;
        until_in_flight(broker, 10).await;
        sent.extend(broker.send("orders", &orders(20, TAKES_MS)).await);
        for pod in namespace.pods("app=orders").await {
            namespace.kubectl(&["delete", "pod", &pod.name_any(), "--wait"]).await;
        }
        let entries = until_handled(namespace, broker).await;
        entries.assert_all(&sent);
        entries.assert_no_attempt_spent();
    })
    .await;
}

#[tokio::test]
async fn an_application_that_listens_late_gets_its_messages_in_their_first_attempt() {
    let subject = Subject { replicas: 1, env: &[("LISTEN_AFTER_MS", "20000")], ..Subject::DEFAULT };
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "late", async |namespace| {
        // Before the application, so that the sidecar has messages and finds nobody.
        namespace.apply(QUEUE).await;
        let broker = BrokerAccess::of(namespace);
        let sent = broker.send("orders", &orders(30, 0)).await;
        subject.apply(namespace).await;
        until("the sidecar runs, and the application does not listen", LONG, async || {
            // There may be one from before the sidecar was added.
            let pods = namespace.pods(PODS).await;
            let mut statuses = pods.iter().filter_map(|pod| pod.status.as_ref());
            let found = statuses.find(|status| status.init_container_statuses.is_some());
            let found = found.ok_or("there is no pod with a sidecar")?;
            let started = |statuses: &Option<Vec<ContainerStatus>>| {
                statuses.iter().flatten().any(|status| status.started == Some(true))
            };
            let is_ready = found.container_statuses.iter().flatten().any(|status| status.ready);
            assert!(!is_ready, "the application listens already: nothing can be said of before");
            if started(&found.init_container_statuses) && started(&found.container_statuses) {
                Ok(())
            } else {
                Err("they have not started".to_owned())
            }
        })
        .await;
        assert_eq!(
            broker.state("orders").await.unwrap().totals.acknowledged,
            0,
            "who could have handled any?"
        );
        until_handled(namespace, &broker).await.assert_once(&sent);
    })
    .await;
}
