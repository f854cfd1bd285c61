//! What goes wrong beside the application: its sidecar is killed, or its endpoint is not where the Consumer says.

use std::time::{Duration, Instant};

use capstan_crds::Consumer;
use e2e::cluster::{
    BrokerAccess, Cluster, Entries, LONG, Namespace, SHORT, Turn, condition, is_local, kill_container, until,
};
use kube::ResourceExt;

use crate::subject::{Subject, first_pod, orders, until_handled, until_in_flight};

/// The kernel ends a process that is out of memory in the same way.
#[tokio::test]
async fn what_a_killed_sidecar_had_comes_back_after_its_lease() {
    let subject = Subject { replicas: 1, consumer: "visibilityTimeout: 5s", ..Subject::DEFAULT };
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "sidecar-killed", async |namespace| {
        subject.run(namespace).await;
        let broker = BrokerAccess::of(namespace);
        let sent = broker.send("orders", &orders(30, 3000)).await;
        until_in_flight(&broker, 10).await;
        let pod = first_pod(namespace).await;
        let uid = pod.metadata.uid.as_deref().unwrap();
        assert!(
            is_local(uid, "capstan-sidecar"),
            "the sidecar's process is not on this machine: choose other tests"
        );
        kill_container(uid, "capstan-sidecar");
        let totals = broker.wait_until_empty("orders", LONG).await.totals;
        println!("the broker counted {totals:?}");
        // One attempt of each that was in flight, for nobody knows how far it had got.
        assert!((1..=10).contains(&totals.lease_expired), "{totals:?}");
        assert_eq!((totals.retried, totals.dead_lettered), (0, 0), "{totals:?}");
        until("the ledger is read", SHORT, async || Entries::read(namespace).await).await.assert_all(&sent);
        assert_eq!(first_pod(namespace).await.name_any(), pod.name_any(), "the pod lives on");
    })
    .await;
}

/// For so long the endpoint is wrong.
const WRONG: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_wrong_path_costs_no_attempt() {
    let wrong = Subject { replicas: 1, path: "/nowhere", ..Subject::DEFAULT };
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "wrong-path", async |namespace| {
        wrong.run(namespace).await;
        let broker = BrokerAccess::of(namespace);
        let (sent, began) = (broker.send("orders", &orders(30, 0)).await, Instant::now());
        until("it was wrong for two minutes", LONG, async || {
            let left = WRONG.saturating_sub(began.elapsed());
            if left.is_zero() { Ok(()) } else { Err(format!("{} s are left", left.as_secs() / 30 * 30)) }
        })
        .await;
        let state = broker.state("orders").await.unwrap();
        println!("after two minutes: {state:?}");
        until_reachable(namespace, "False").await;
        assert!(state.totals.released > 0, "nothing was tried: {:?}", state.totals);
        assert_eq!(state.ready + state.leased, 30, "all of them wait");
        namespace.apply(&Subject { path: "/", ..wrong }.consumer()).await;
        until_handled(namespace, &broker).await.assert_once(&sent);
        until_reachable(namespace, "True").await;
    })
    .await;
}

/// Waits until the Consumer says so of its application.
async fn until_reachable(namespace: &Namespace, status: &str) {
    namespace
        .wait_for::<Consumer>("orders", &format!("says AppReachable={status}"), LONG, |consumer| {
            let conditions = consumer.status.as_ref().map_or(&[][..], |status| &status.conditions);
            condition(conditions, consumer.metadata.generation, "AppReachable", status)
        })
        .await;
}
