//! A node is lost: what is said of it, what the documentation tells the user to do, and that every message is there afterwards.

use std::collections::BTreeSet;
use std::time::Duration;

use capstan_crds::{Broker, Consumer, Queue};
use e2e::cluster::{
    BrokerAccess, Cluster, Entries, LONG, Namespace, OUT_OF_SERVICE, Outage, SHORT, Turn, Undone, condition,
    is_local, tool, until,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::sync::Mutex;

use crate::fixture::{PODS, REFUNDS};
use crate::moves::{BROKER, node, until_another_serves};
use crate::subject::{
    ON_THE_FIRST_NODE, Subject, broker_may_leave, broker_stays, expendable_nodes, orders, producer,
    until_in_flight,
};
use crate::timeline::Timeline;

/// Messages that wait while the node is away.
const WAITING: usize = 1000;

#[tokio::test]
async fn a_broker_whose_node_is_lost_comes_back_elsewhere_with_every_message() {
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "broker-lost", async |namespace| {
        let _mark = expendable_nodes().await;
        namespace.apply(&broker_may_leave()).await;
        // Consumers, and with them the producers' gateways, are on the node that is not lost.
        let subject = Subject { pod: ON_THE_FIRST_NODE, ledger: ON_THE_FIRST_NODE, ..Subject::DEFAULT };
        subject.run(namespace).await;
        let mut sent = BrokerAccess::of(namespace).send("orders", &orders(WAITING, 500)).await;
        let before = namespace.api::<Pod>().get(BROKER).await.unwrap();
        let producer = producer(namespace);
        // A gateway holds sends once its broker has shown that it minds keys.
        for _ in 0..10 {
            sent.extend(producer.send(&orders(10, 0)).await);
        }
        let timeline = Mutex::default();
        let lost = async {
            *timeline.lock().await = Timeline::of(namespace, lose(namespace, &before)).await;
        };
        let load = producer.send_while(|| orders(10, 0), Duration::from_secs(1), Box::pin(lost)).await;
        assert_told(&timeline.into_inner());
        sent.extend(load.ids);
        let broker = BrokerAccess::of(namespace);
        broker.wait_until_empty("orders", LONG).await;
        let entries = until("the ledger is read", SHORT, async || Entries::read(namespace).await).await;
        entries.assert_all(&sent);
    })
    .await;
}

/// Nobody is told too late, or of more than there is.
fn assert_told(timeline: &Timeline) {
    let mut available = timeline.of_condition("Broker", "Available");
    // What it says before the node counts as lost, and while it starts elsewhere.
    available.retain(|said| said != "False NotServing");
    assert_eq!(available, ["True Serving", "False NodeLost", "True Serving"]);
    let delivering = timeline.of_condition("Queue", "Delivering");
    assert_eq!(delivering, ["True Delivering", "False BrokerUnavailable", "True Delivering"]);
    let ready = timeline.of_condition("Consumer", "Ready");
    assert_eq!(ready, ["True AsDeclared", "False QueueNotReady", "True AsDeclared"]);
    let injected = timeline.of_condition("Consumer", "SidecarsInjected");
    assert_eq!(injected, ["True Injected"], "no workload is rolled because of it");
}

/// Loses the broker's node, follows the documentation, and waits until the broker serves elsewhere and the node is back.
async fn lose(namespace: &Namespace, before: &Pod) {
    let lost = node(before);
    let mut outage = Outage::cut(&namespace.cluster, &lost);
    until_broker_says(namespace, "Available", "False").await;
    until_queue_says(namespace, "Ready", "False").await;
    until_consumer_says(namespace, "Ready", "False").await;
    outage.until_noticed().await;
    let advice = until_node_lost(namespace).await;
    let command = format!("kubectl taint node {lost} {OUT_OF_SERVICE}");
    assert!(advice.contains(&command), "{command:?} is not in: {advice}");
    // The operator forces nothing: the node may be alive, and write.
    let pod = namespace.api::<Pod>().get(BROKER).await.unwrap();
    assert_eq!(
        (pod.uid(), pod.metadata.deletion_timestamp.clone()),
        (before.uid(), None),
        "it was left alone"
    );

    outage.power_off();
    let taint = Undone::taint(&lost, OUT_OF_SERVICE).await;
    let after = until_another_serves(namespace, before).await;
    assert_ne!(node(&after), lost, "it is on another node");
    until_broker_says(namespace, "Available", "True").await;
    until_queue_says(namespace, "Ready", "True").await;
    until_consumer_says(namespace, "Ready", "True").await;

    drop(taint);
    outage.end().await;
    let pod = namespace.api::<Pod>().get(BROKER).await.unwrap();
    assert_eq!(pod.uid(), after.uid(), "the node's return moves nothing");
    assert_eq!(restarts(&pod), restarts(&after), "and disturbs nothing");
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).sum()
}

/// A user who does not wait until the node is surely off: even where both reach one disk, there is never a second writer.
#[tokio::test]
async fn a_broker_that_is_replaced_too_early_waits_until_the_old_one_has_ended() {
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "broker-forced", async |namespace| {
        let _mark = expendable_nodes().await;
        namespace.apply(&[&broker_may_leave(), REFUNDS].join("---")).await;
        let broker = BrokerAccess::of(namespace);
        let sent: BTreeSet<_> = broker.send("refunds", &orders(90, 0)).await.into_iter().collect();
        let before = namespace.api::<Pod>().get(BROKER).await.unwrap();
        let mut outage = Outage::cut(&cluster, &node(&before));
        outage.until_noticed().await;
        namespace.kubectl(&["delete", "pod", BROKER, "--grace-period=0", "--force"]).await;
        until("the new broker finds its store in use", LONG, async || {
            let log = tool::execute("kubectl", &["-n", &namespace.name, "logs", BROKER], None).await?;
            if log.contains("in use by another broker") {
                Ok(())
            } else {
                Err("its log has no such line".to_owned())
            }
        })
        .await;
        let uid = before.metadata.uid.as_deref().unwrap();
        assert!(is_local(uid, "capstan-broker"), "the old broker lives");

        outage.power_off();
        until_another_serves(namespace, &before).await;
        let kept =
            until("the messages are handed out", SHORT, async || broker.pull("refunds", 100).await).await;
        assert_eq!(kept.into_iter().map(|message| message.id).collect::<BTreeSet<_>>(), sent);
        outage.end().await;
    })
    .await;
}

/// A consumer of each node, and a broker and a ledger on the first.
#[tokio::test]
async fn what_a_lost_node_was_handling_is_handled_elsewhere_after_its_lease() {
    let subject = Subject {
        replicas: 3,
        consumer: "visibilityTimeout: 10s",
        pod: "topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, \
              labelSelector: {matchLabels: {app: orders}}, matchLabelKeys: [pod-template-hash]}]",
        ledger: ON_THE_FIRST_NODE,
        ..Subject::DEFAULT
    };
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "consumer-lost", async |namespace| {
        let _mark = expendable_nodes().await;
        namespace.apply(&broker_stays()).await;
        subject.run(namespace).await;
        let broker = BrokerAccess::of(namespace);
        let mut sent = broker.send("orders", &orders(90, 8000)).await;
        // A batch of ten in each of three pods.
        until_in_flight(&broker, 30).await;
        let pods = namespace.pods(PODS).await;
        assert!(pods.iter().any(|pod| node(pod) == "node-1"), "no consumer is on node-1");
        let outage = Outage::cut(&cluster, "node-1");
        let totals = broker.wait_until_empty("orders", LONG).await.totals;
        println!("the broker counted {totals:?}");
        // One attempt of each that was being handled there, for nobody knows how far it had got.
        assert!((1..=10).contains(&totals.lease_expired), "{totals:?}");
        assert_eq!((totals.retried, totals.dead_lettered), (0, 0), "{totals:?}");
        let entries = until("the ledger is read", SHORT, async || Entries::read(namespace).await).await;
        entries.assert_all(&sent);
        entries.assert_second_attempts(totals.lease_expired);
        outage.until_noticed().await;
        until_ready_replicas(namespace, 2).await;

        outage.end().await;
        until_ready_replicas(namespace, 3).await;
        sent.extend(broker.send("orders", &orders(90, 500)).await);
        let after = broker.wait_until_empty("orders", LONG).await.totals;
        assert_eq!((after.retried, after.dead_lettered), (0, 0), "{after:?}");
        until("the ledger is read", SHORT, async || Entries::read(namespace).await).await.assert_all(&sent);
    })
    .await;
}

async fn until_ready_replicas(namespace: &Namespace, wanted: u32) {
    namespace
        .wait_for::<Consumer>("orders", &format!("counts {wanted} ready pods"), LONG, |consumer| {
            let replicas = consumer.status.as_ref().and_then(|status| status.replicas.as_ref());
            let ready = replicas.map(|replicas| replicas.ready);
            if ready == Some(wanted) { Ok(()) } else { Err(format!("{ready:?} are ready")) }
        })
        .await;
}

async fn until_broker_says(namespace: &Namespace, type_: &str, status: &str) {
    namespace
        .wait_for::<Broker>("default", &format!("says {type_}={status}"), LONG, |broker| {
            let conditions = broker.status.as_ref().map_or(&[][..], |status| &status.conditions);
            condition(conditions, broker.metadata.generation, type_, status)
        })
        .await;
}

/// Waits for that reason, and returns the message beside it.
async fn until_node_lost(namespace: &Namespace) -> String {
    let lost = |broker: &Broker| {
        let status = broker.status.as_ref().ok_or("it has no status")?;
        let available = status.conditions.iter().find(|one| one.type_ == "Available");
        let available = available.ok_or("there is no condition Available")?;
        if available.reason == "NodeLost" {
            Ok(available.message.clone())
        } else {
            Err(available.reason.clone())
        }
    };
    let broker =
        namespace.wait_for::<Broker>("default", "says NodeLost", LONG, |broker| lost(broker).map(drop)).await;
    lost(&broker).unwrap()
}

async fn until_queue_says(namespace: &Namespace, type_: &str, status: &str) {
    namespace
        .wait_for::<Queue>("orders", &format!("says {type_}={status}"), LONG, |queue| {
            let conditions = queue.status.as_ref().map_or(&[][..], |status| &status.conditions);
            condition(conditions, queue.metadata.generation, type_, status)
        })
        .await;
}

async fn until_consumer_says(namespace: &Namespace, type_: &str, status: &str) {
    namespace
        .wait_for::<Consumer>("orders", &format!("says {type_}={status}"), LONG, |consumer| {
            let conditions = consumer.status.as_ref().map_or(&[][..], |status| &status.conditions);
            condition(conditions, consumer.metadata.generation, type_, status)
        })
        .await;
}
