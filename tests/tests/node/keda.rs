//! KEDA itself asks the operator's external scaler, and scales a Consumer's workload from nothing and back.

use std::time::{Duration, Instant};

use e2e::cluster::{BrokerAccess, Cluster, Keda, LONG, Namespace, Turn, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::Value;

use crate::fixture::PODS;
use crate::subject::{Subject, orders, until_handled};

/// Messages of the burst: for KEDA's HPA as many pods as it may have.
const BURST: usize = 300;
/// Of a batch of ten: so long that one pod alone would take a minute and a half.
const TAKES_MS: u64 = 3000;
/// For what KEDA does in its own time: its back-off after a stream that broke is up to a minute.
const KEDA_TIME: Duration = Duration::from_secs(120);

/// One pod for each 50 messages. KEDA looks every five seconds whether the last pods may go, when they had nothing to do for as long.
const SCALED: &str = "
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: orders}
spec:
  scaleTargetRef: {name: orders}
  pollingInterval: 5
  cooldownPeriod: 5
  minReplicaCount: 0
  maxReplicaCount: 4
  advanced: {horizontalPodAutoscalerConfig: {behavior: {scaleDown: {stabilizationWindowSeconds: 5}}}}
  triggers:
  - type: external-push
    metadata:
      scalerAddress: capstan-operator-scaler.capstan-system.svc:9799
      consumer: orders
      backlogPerReplica: '50'
";

#[tokio::test]
async fn keda_scales_from_nothing_to_many_pods_and_back() {
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "keda", async |namespace| {
        Subject { replicas: 0, ..Subject::DEFAULT }.run(namespace).await;
        let _keda = Keda::install(namespace).await;
        let example = ["apply", "--dry-run=server", "-f", "examples/scaling/keda.yaml"];
        assert!(namespace.kubectl(&example).await.contains("scaledobject.keda.sh/orders created"));
        namespace.apply(SCALED).await;
        until_ready(namespace).await;
        let start = Instant::now();
        let broker = BrokerAccess::of(namespace);
        let sent = broker.send("orders", &orders(BURST, TAKES_MS)).await;
        for (what, least) in [("one pod is wanted", 1), ("two pods or more are", 2)] {
            until_replicas(namespace, what, |replicas| replicas >= least).await;
            println!("{what} {:.1} s after the burst", start.elapsed().as_secs_f64());
        }
        until_handled(namespace, &broker).await.assert_once(&sent);
        println!("all was handled {:.1} s after the burst", start.elapsed().as_secs_f64());
        until_replicas(namespace, "no pod is wanted", |replicas| replicas == 0).await;
        println!("no pod was wanted {:.1} s after the burst", start.elapsed().as_secs_f64());
        until_asleep(namespace).await;
        wakes(namespace, sent).await;
    })
    .await;
}

/// One message is enough.
async fn wakes(namespace: &Namespace, mut sent: Vec<String>) {
    let (broker, start) = (BrokerAccess::of(namespace), Instant::now());
    sent.extend(broker.send("orders", &orders(1, 0)).await);
    until_replicas(namespace, "one pod is wanted again", |replicas| replicas > 0).await;
    println!("a pod was wanted {:.1} s after one message", start.elapsed().as_secs_f64());
    until_handled(namespace, &broker).await.assert_once(&sent);
    println!("it was handled {:.1} s after it was sent", start.elapsed().as_secs_f64());
}

/// Waits until no pod is left, not even one that ends.
async fn until_asleep(namespace: &Namespace) {
    until("no pod is left", LONG, async || {
        let pods = namespace.api::<Pod>().list(&ListParams::default().labels(PODS)).await;
        match pods.map_err(|error| error.to_string())?.items.len() {
            0 => Ok(()),
            left => Err(format!("{left} are")),
        }
    })
    .await;
}

/// Waits until KEDA has the ScaledObject, and its HPA.
async fn until_ready(namespace: &Namespace) {
    until("KEDA takes the ScaledObject", KEDA_TIME, async || {
        let object = namespace.kubectl(&["get", "scaledobject", "orders", "-o", "json"]).await;
        let object: Value = serde_json::from_str(&object).map_err(|error| error.to_string())?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is_ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
        let has_hpa = object["status"]["hpaName"].is_string();
        if is_ready && has_hpa { Ok(()) } else { Err(format!("{conditions:?}")) }
    })
    .await;
}

async fn until_replicas(namespace: &Namespace, what: &str, check: impl Fn(i32) -> bool) {
    namespace
        .wait_for::<Deployment>("orders", what, KEDA_TIME, |deployment| {
            let replicas = deployment.spec.replicas.unwrap_or(1);
            if check(replicas) { Ok(()) } else { Err(format!("{replicas} are")) }
        })
        .await;
}
