//! An application that behaves as a test asks, its Consumer, and orders on their way to it.

use std::time::Duration;

use e2e::cluster::{
    APPLICATION_IMAGE, BrokerAccess, Entries, LONG, Namespace, Producer, SHORT, Undone, is_existing,
    ledger_with, order, until,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::fixture::{PODS, QUEUE, is_rolled_out, until_consuming};

/// How the application's Deployment and its Consumer look.
pub(crate) struct Subject {
    pub(crate) replicas: usize,
    /// Most messages of a call.
    pub(crate) batch: u16,
    /// Variables of `tests/app`.
    pub(crate) env: &'static [(&'static str, &'static str)],
    pub(crate) grace_seconds: u32,
    /// More of the container, as YAML in one line, such as `lifecycle: {…}`.
    pub(crate) container: &'static str,
    /// More of the Consumer's spec, in the same way.
    pub(crate) consumer: &'static str,
    /// More of the pod's spec, in the same way.
    pub(crate) pod: &'static str,
    /// More of the pod's spec of the ledger, in the same way.
    pub(crate) ledger: &'static str,
    /// Where the sidecar POSTs.
    pub(crate) path: &'static str,
}

impl Subject {
    /// Two pods that behave.
    pub(crate) const DEFAULT: Self = Self {
        replicas: 2,
        batch: 10,
        env: &[],
        grace_seconds: 30,
        container: "",
        consumer: "",
        pod: "",
        ledger: "",
        path: "/",
    };

    /// Applies queue, Consumer, application and ledger, and waits until all of them run.
    pub(crate) async fn run(&self, namespace: &Namespace) {
        self.apply(namespace).await;
        until_consuming(namespace, "orders", "orders").await;
        namespace.wait_for::<Deployment>("ledger", "runs", LONG, is_rolled_out).await;
    }

    /// Applies them.
    pub(crate) async fn apply(&self, namespace: &Namespace) {
        let ledger = ledger_with(self.ledger);
        namespace.apply(&[QUEUE, &ledger, &self.consumer(), &self.application()].join("---\n")).await;
    }

    pub(crate) fn consumer(&self) -> String {
        let Self { consumer, path, batch, .. } = self;
        format!(
            "
apiVersion: capstan.dev/v1alpha1
kind: Consumer
metadata: {{name: orders}}
spec:
  queueRef: {{name: orders}}
  targetRef: {{kind: Deployment, name: orders}}
  endpoint: {{port: 8080, path: {path}}}
  maxBatchSize: {batch}
  maxWaitTime: 100ms
  maxRetries: 3
  {consumer}
"
        )
    }

    fn application(&self) -> String {
        let Self { replicas, env, grace_seconds, container, pod, .. } = self;
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
      {pod}
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

/// The label of nodes that a test may take away or empty. The first is none: the control plane and the tests are there.
const MAY_LEAVE: &str = "capstan.test/node=expendable";
/// Keeps pods where no test takes their node away: the ledger, for one, which remembers only while it lives.
pub(crate) const ON_THE_FIRST_NODE: &str = "nodeSelector: {kubernetes.io/hostname: node-0}";

/// Sees to it that there are three nodes, of which two have that label while the result lives.
pub(crate) async fn expendable_nodes() -> Undone {
    assert!(
        !is_existing(),
        "this test needs the nodes of a cluster of the tests' own: choose others by a filter"
    );
    Undone::label(&["node-1", "node-2"], MAY_LEAVE).await
}

/// The Broker `default`, on a node with that label.
pub(crate) fn broker_may_leave() -> String {
    broker(&MAY_LEAVE.replace('=', ": "))
}

/// The Broker `default`, on the first node.
pub(crate) fn broker_stays() -> String {
    broker("kubernetes.io/hostname: node-0")
}

fn broker(node: &str) -> String {
    format!(
        "
apiVersion: capstan.dev/v1alpha1
kind: Broker
metadata: {{name: default}}
spec: {{pod: {{nodeSelector: {{{node}}}}}}}
"
    )
}

/// Sends through the gateways of the application.
pub(crate) fn producer(namespace: &Namespace) -> Producer<'_> {
    Producer { namespace, pods: PODS, queue: "orders" }
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
