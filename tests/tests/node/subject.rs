//! An application that behaves as a test asks, its Consumer, and orders on their way to it.

use std::time::Duration;

use e2e::cluster::{APPLICATION_IMAGE, BrokerAccess, Entries, LONG, Namespace, SHORT, ledger, order, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::fixture::{PODS, QUEUE, is_rolled_out, until_consuming};

/// How the application's Deployment and its Consumer look.
pub(crate) struct Subject {
    pub(crate) replicas: usize,
    /// Variables of `tests/app`.
    pub(crate) env: &'static [(&'static str, &'static str)],
    pub(crate) grace_seconds: u32,
    /// More of the container, as YAML in one line, such as `lifecycle: {…}`.
    pub(crate) container: &'static str,
    /// More of the Consumer's spec, in the same way.
    pub(crate) consumer: &'static str,
    /// Where the sidecar POSTs.
    pub(crate) path: &'static str,
}

impl Default for Subject {
    fn default() -> Self {
        Self { replicas: 2, env: &[], grace_seconds: 30, container: "", consumer: "", path: "/" }
    }
}

impl Subject {
    /// Applies queue, Consumer, application and ledger, and waits until all of them run.
    pub(crate) async fn run(&self, namespace: &Namespace) {
        self.apply(namespace).await;
        until_consuming(namespace, "orders", "orders").await;
        namespace.wait_for::<Deployment>("ledger", "runs", LONG, is_rolled_out).await;
    }

    /// Applies them.
    pub(crate) async fn apply(&self, namespace: &Namespace) {
        namespace.apply(&[QUEUE, &ledger(), &self.consumer(), &self.application()].join("---\n")).await;
    }

    pub(crate) fn consumer(&self) -> String {
        let Self { consumer, path, .. } = self;
        format!(
            "
apiVersion: capstan.dev/v1alpha1
kind: Consumer
metadata: {{name: orders}}
spec:
  queueRef: {{name: orders}}
  targetRef: {{kind: Deployment, name: orders}}
  endpoint: {{port: 8080, path: {path}}}
  maxBatchSize: 10
  maxWaitTime: 100ms
  maxRetries: 3
  {consumer}
"
        )
    }

    fn application(&self) -> String {
        let Self { replicas, env, grace_seconds, container, .. } = self;
        let env: Vec<_> =
            env.iter().map(|(name, value)| format!("{{name: {name}, value: '{value}'}}")).collect();
        format!(
            "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: orders}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: orders}}}}
  template:
    metadata: {{labels: {{app: orders}}}}
    spec:
      terminationGracePeriodSeconds: {grace_seconds}
      securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
      - name: orders
        image: {APPLICATION_IMAGE}
        env: [{{name: LEDGER, value: 'http://ledger'}}, {}]
        readinessProbe: {{httpGet: {{path: /readyz, port: 8080}}, periodSeconds: 1}}
        securityContext: {{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
        {container}
",
            env.join(", ")
        )
    }
}

/// The first pod of the application, by name.
pub(crate) async fn first_pod(namespace: &Namespace) -> Pod {
    let mut pods = namespace.pods(PODS).await;
    pods.sort_by_key(ResourceExt::name_any);
    pods.into_iter().next().expect("the application has no pod")
}

/// So many orders that take so long.
pub(crate) fn orders(count: usize, takes_ms: u64) -> Vec<serde_json::Value> {
    (0..count).map(|number| order(number, takes_ms)).collect()
}

/// Waits until so many messages are being handled.
pub(crate) async fn until_in_flight(broker: &BrokerAccess<'_>, least: u64) {
    until(&format!("{least} messages are in flight"), SHORT, async || {
        let leased = broker.state("orders").await?.leased;
        if leased >= least { Ok(()) } else { Err(format!("{leased} are")) }
    })
    .await;
}

/// Waits until nothing is left; what the broker counted must tell of no spent attempt. Returns the ledger.
pub(crate) async fn until_handled(namespace: &Namespace, broker: &BrokerAccess<'_>) -> Entries {
    let totals = broker.wait_until_empty("orders", LONG).await.totals;
    println!("the broker counted {totals:?}");
    assert_eq!((totals.retried, totals.lease_expired, totals.dead_lettered), (0, 0, 0), "{totals:?}");
    until("the ledger is read", SHORT, async || Entries::read(namespace).await).await
}

/// Sends orders at a steady rate until `work` is done: `count` of them every `every`. Returns their ids.
pub(crate) async fn send_while(
    broker: &BrokerAccess<'_>,
    (count, every): (usize, Duration),
    takes_ms: u64,
    work: impl Future<Output = ()>,
) -> Vec<String> {
    let (mut work, mut sent) = (std::pin::pin!(work), Vec::new());
    let mut ticks = tokio::time::interval(every);
    loop {
        tokio::select! {
            () = &mut work => return sent,
            _ = ticks.tick() => sent.extend(broker.send_now("orders", &orders(count, takes_ms)).await),
        }
    }
}
