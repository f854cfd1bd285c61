//! The broker's pod ends, in every way: what it answered for is there afterwards.

use std::collections::BTreeSet;

use capstan_crds::Broker;
use e2e::cluster::{
    BrokerAccess, Cluster, Handled, LONG, Namespace, SHORT, Turn, handled, is_local, kill_container, order,
    tool, until,
};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};

use crate::fixture::{PODS, QUEUE, apply_all, is_serving, until_consuming};

const POD: &str = "capstan-default-0";
const WAITING: usize = 1000;
/// As many as all slots take: two pods, two calls each, ten messages a call.
const SLOW: usize = 40;
/// Long enough for the broker to end while they are in flight.
const SLOW_MS: u64 = 10_000;

#[tokio::test]
async fn nothing_is_lost_when_the_broker_is_killed() {
    lose_the_broker("broker-killed", async |_, pod| {
        let uid = pod.metadata.uid.as_deref().unwrap();
        assert!(
            is_local(uid, "capstan-broker"),
            "the broker's process is not on this machine, so it cannot be killed: choose other tests by a filter"
        );
        kill_container(uid, "capstan-broker");
    })
    .await;
}

#[tokio::test]
async fn nothing_is_lost_when_the_brokers_pod_is_deleted_by_force() {
    lose_the_broker("broker-forced", async |namespace, pod| {
        namespace.kubectl(&["delete", "pod", &pod.name_any(), "--grace-period=0", "--force"]).await;
    })
    .await;
}

/// Ends the broker while 1,000 messages wait and others are in flight; then every one of them must reach the application.
async fn lose_the_broker(prefix: &str, end: impl AsyncFnOnce(&Namespace, &Pod)) {
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, prefix, async |namespace| {
        apply_all(namespace).await;
        until_consuming(namespace, "orders", "orders").await;
        let broker = BrokerAccess::of(namespace);
        let mut sent = warm_up(namespace, &broker).await;
        sent.extend(broker.send("orders", &orders(SLOW, SLOW_MS)).await);
        sent.extend(broker.send("orders", &orders(WAITING, 0)).await);
        until("messages wait and others are in flight", SHORT, async || {
            let state = broker.state("orders").await?;
            let is_so = state.leased >= SLOW as u64 && state.ready >= WAITING as u64;
            if is_so { Ok(()) } else { Err(format!("{state:?}")) }
        })
        .await;
        let before = namespace.api::<Pod>().get(POD).await.unwrap();
        end(namespace, &before).await;
        until_another_runs(namespace, &before).await;
        let state = broker.wait_until_empty("orders", LONG).await;
        println!("the broker counted, since it came back: {:?}", state.totals);
        let sum = Handled::sum(&handled(namespace, PODS).await);
        let lost: Vec<_> = sent.iter().filter(|id| !sum.ids.contains(*id)).collect();
        assert!(lost.is_empty(), "{} messages were accepted and never handled: {lost:?}", lost.len());
        let sent: BTreeSet<_> = sent.into_iter().collect();
        let strange: Vec<_> = sum.ids.difference(&sent).collect();
        assert!(strange.is_empty(), "handled, but never sent: {strange:?}");
        assert_eq!(sum.failed, 0);
        let dead = broker.state("orders-dlq").await.unwrap();
        assert_eq!(dead.ready, 0, "an outage of the broker costs no attempt: {dead:?}");
    })
    .await;
}

fn orders(count: usize, takes_ms: u64) -> Vec<serde_json::Value> {
    (0..count).map(|number| order(number, takes_ms)).collect()
}

/// Sends orders until every pod has handled some, so that none is still finding out whether its application answers.
async fn warm_up(namespace: &Namespace, broker: &BrokerAccess<'_>) -> Vec<String> {
    let mut sent = Vec::new();
    until("every pod handles orders", LONG, async || {
        sent.extend(broker.send("orders", &orders(SLOW, 50)).await);
        broker.wait_until_empty("orders", SHORT).await;
        let reports = handled(namespace, PODS).await;
        let is_so = reports.len() == 2 && reports.iter().all(|report| report.handled > 0);
        if is_so { Ok(()) } else { Err(format!("{} pods answer", reports.len())) }
    })
    .await;
    sent
}

/// Another container runs: in the same pod, or in a new one of the same name.
async fn until_another_runs(namespace: &Namespace, before: &Pod) {
    let containers = |pod: &Pod| -> Vec<_> {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        statuses.map(|status| (status.container_id.clone(), status.ready)).collect()
    };
    let old = containers(before);
    namespace
        .wait_for::<Pod>(POD, "runs again", LONG, |pod| {
            let new = containers(pod);
            let is_new = !new.is_empty()
                && new.iter().all(|(id, is_ready)| *is_ready && old.iter().all(|(old, _)| old != id));
            if is_new { Ok(()) } else { Err(format!("its containers are {new:?}")) }
        })
        .await;
}

#[tokio::test]
async fn a_deleted_broker_comes_back_with_its_messages() {
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "broker-deleted", async |namespace| {
        namespace.apply(QUEUE).await;
        let broker = BrokerAccess::of(namespace);
        let sent = broker.send("orders", &orders(3, 0)).await;
        let before = namespace.api::<Broker>().get("default").await.unwrap();
        namespace.api::<Broker>().delete("default", &DeleteParams::default()).await.unwrap();
        let what = "is there anew, because a Queue uses it";
        let new = namespace
            .wait_for::<Broker>("default", what, SHORT, |broker| {
                if broker.metadata.uid == before.metadata.uid {
                    Err("it is the old one".to_owned())
                } else {
                    Ok(())
                }
            })
            .await;
        namespace
            .wait_for::<StatefulSet>("capstan-default", "belongs to it and serves", LONG, |set| {
                let owner = set.metadata.owner_references.iter().flatten().next();
                if owner.map(|owner| &owner.uid) == new.metadata.uid.as_ref() {
                    is_serving(set)
                } else {
                    Err(format!("it belongs to {owner:?}"))
                }
            })
            .await;
        let claims = namespace.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.unwrap();
        assert_eq!(claims.items.len(), 1, "the claim outlived the StatefulSet, and was taken again");
        let kept = until("the messages are there", SHORT, async || broker.peek("orders").await).await;
        assert_eq!(kept.into_iter().map(|message| message.id).collect::<Vec<_>>(), sent);
        // What a user reads.
        print!("{}", tool::run("kubectl", &["-n", &namespace.name, "get", "capb,pvc"]).await);
    })
    .await;
}
