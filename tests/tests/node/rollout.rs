//! Rolling restarts under load: pods come and go, and no message pays for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capstan_api::Client;
use e2e::cluster::{BrokerAccess, Cluster, LONG, Namespace, Turn, order};
use k8s_openapi::api::apps::v1::Deployment;

use crate::fixture::{apply_all, is_rolled_out, until_consuming};

const RESTARTS: usize = 2;
/// Orders that take a while, so that every pod ends with some in flight.
const TAKES_MS: u64 = 100;

#[tokio::test]
async fn rolling_restarts_cost_no_attempt_and_lose_nothing() {
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "rollout", async |namespace| {
        apply_all(namespace).await;
        until_consuming(namespace, "orders").await;
        let broker = BrokerAccess::of(namespace);
        let first = broker.send("orders", &[order(0, TAKES_MS)]).await;
        let is_over = AtomicBool::new(false);
        let restarts = async {
            for _ in 0..RESTARTS {
                restart(namespace).await;
            }
            is_over.store(true, Ordering::Relaxed);
        };
        let (more, ()) = tokio::join!(send_until(&broker, &is_over), restarts);
        let sent = (first.len() + more) as u64;
        let totals = broker.wait_until_empty("orders", LONG).await.totals;
        println!("{sent} orders during {RESTARTS} restarts; the broker counted {totals:?}");
        assert!(sent > 100, "there was hardly any load: {sent}");
        assert_eq!((totals.sent, totals.acknowledged), (sent, sent), "every message was handled: {totals:?}");
        assert_eq!((totals.retried, totals.lease_expired), (0, 0), "no attempt was spent: {totals:?}");
        assert_eq!(totals.delivered, totals.acknowledged + totals.released, "{totals:?}");
    })
    .await;
}

async fn restart(namespace: &Namespace) {
    namespace.kubectl(&["rollout", "restart", "deployment/orders"]).await;
    namespace.wait_for::<Deployment>("orders", "was restarted", LONG, is_rolled_out).await;
}

/// Sends one order after the other, and counts them.
async fn send_until(broker: &BrokerAccess<'_>, is_over: &AtomicBool) -> usize {
    let client = Client::new(&broker.address().await.unwrap()).unwrap();
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        count += 1;
        broker.send_patiently(&client, "orders", &order(count, TAKES_MS)).await;
        // A load, not a flood.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    count
}
