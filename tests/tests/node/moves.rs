//! The broker moves because somebody wants it to: producers and consumers hardly notice, and no message does.

use std::time::Duration;

use e2e::cluster::{BrokerAccess, Cluster, Entries, LONG, Namespace, SHORT, Turn, Undone, until};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{EvictParams, ListParams};

use crate::subject::{ON_THE_FIRST_NODE, Subject, broker_may_leave, expendable_nodes, orders, producer};

/// The broker's pod.
pub(crate) const BROKER: &str = "capstan-default-0";
/// Of a batch; four are sent at a time.
const BATCH: usize = 20;
const PAUSE: Duration = Duration::from_millis(200);
/// Messages that are handled before the move, and after it, while others come.
pub(crate) const LOAD: usize = 400;
const TAKES_MS: u64 = 500;

/// One consumer on each node, so that a drain meets the broker, a consumer and maybe an operator at once.
pub(crate) const SPREAD: Subject = Subject {
    replicas: 3,
    consumer: "concurrencyPerPod: 5",
    pod: "topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, \
          labelSelector: {matchLabels: {app: orders}}, matchLabelKeys: [pod-template-hash]}]",
    ..Subject::DEFAULT
};

#[tokio::test]
async fn a_drained_node_moves_the_broker_and_no_message_notices() {
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "moved", async |namespace| {
        let _mark = expendable_nodes().await;
        namespace.apply(&broker_may_leave()).await;
        Subject { ledger: ON_THE_FIRST_NODE, ..SPREAD }.run(namespace).await;
        let before = namespace.api::<Pod>().get(BROKER).await.unwrap();
        let node = node(&before);
        let drained = async {
            let handled = until_handled(namespace, LOAD).await;
            let drained = Undone::drain(&node).await;
            let after = until_another_serves(namespace, &before).await;
            assert_ne!(self::node(&after), node, "it left the node");
            drop(drained);
            until_handled(namespace, handled + LOAD).await;
        };
        let sent = producer(namespace).send_while(|| orders(BATCH, TAKES_MS), PAUSE, Box::pin(drained)).await;
        until_all_handled(namespace, &sent.ids).await;
    })
    .await;
}

/// What `kubectl drain` asks for, of this pod alone.
#[tokio::test]
async fn an_evicted_broker_is_back_and_no_message_notices() {
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "evicted", async |namespace| {
        SPREAD.run(namespace).await;
        let before = namespace.api::<Pod>().get(BROKER).await.unwrap();
        let evicted = async {
            let handled = until_handled(namespace, LOAD).await;
            // Nothing stands in the way: one replica has no budget that could only ever say no.
            namespace.api::<Pod>().evict(BROKER, &EvictParams::default()).await.unwrap();
            until_another_serves(namespace, &before).await;
            until_handled(namespace, handled + LOAD).await;
        };
        let sent = producer(namespace).send_while(|| orders(BATCH, TAKES_MS), PAUSE, Box::pin(evicted)).await;
        until_all_handled(namespace, &sent.ids).await;
    })
    .await;
}

/// With messages that wait and others that are being handled, for longer than their pods have to end.
#[tokio::test]
async fn a_namespace_goes_with_the_messages_in_it() {
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "gone", async |namespace| {
        Subject { grace_seconds: 10, ..Subject::DEFAULT }.run(namespace).await;
        let broker = BrokerAccess::of(namespace);
        broker.send("orders", &orders(500, 60_000)).await;
        until("messages wait and others are being handled", SHORT, async || {
            let state = broker.state("orders").await?;
            if state.ready > 0 && state.leased > 0 { Ok(()) } else { Err(format!("{state:?}")) }
        })
        .await;
        namespace.delete().await;
        let pods = namespace.api::<Pod>().list(&ListParams::default()).await.unwrap();
        assert!(pods.items.is_empty(), "{} pods are left", pods.items.len());
    })
    .await;
}

pub(crate) fn node(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap()
}

/// Waits until so many messages were handled, and says how many exactly.
pub(crate) async fn until_handled(namespace: &Namespace, least: usize) -> usize {
    until(&format!("{least} messages were handled"), LONG, async || {
        let handled = Entries::read(namespace).await?.len();
        if handled >= least { Ok(handled) } else { Err(format!("{} hundred were", handled / 100)) }
    })
    .await
}

/// Waits for a new pod of the broker, ready.
pub(crate) async fn until_another_serves(namespace: &Namespace, before: &Pod) -> Pod {
    namespace
        .wait_for::<Pod>(BROKER, "is another and ready", LONG, |pod| {
            if pod.uid() == before.uid() {
                return Err("it is the old one".to_owned());
            }
            let mut statuses =
                pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            if statuses.any(|status| status.ready) { Ok(()) } else { Err("it is not ready".to_owned()) }
        })
        .await
}

/// Each of these messages was handled, in its first attempt.
pub(crate) async fn until_all_handled(namespace: &Namespace, sent: &[String]) {
    let broker = BrokerAccess::of(namespace);
    broker.wait_until_empty("orders", LONG).await;
    let entries = until("the ledger is read", SHORT, async || Entries::read(namespace).await).await;
    entries.assert_all(sent);
    entries.assert_no_attempt_spent();
}
