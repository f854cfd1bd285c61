//! The quickstart: what a user applies, what Cloudflare's SDK sends, and what becomes of it.

use capstan_crds::Consumer;
use e2e::cluster::{BrokerAccess, Cluster, Handled, LONG, Namespace, Turn, handled, tool, until};
use serde_json::{Value, json};

use crate::fixture::{PODS, until_consuming};

const ORDERS: u64 = 1000;

#[tokio::test]
async fn every_order_of_cloudflares_sdk_is_handled_and_a_failing_one_is_set_aside() {
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "quickstart", async |namespace| {
        namespace.kubectl(&["apply", "-f", "examples/quickstart/"]).await;
        until_consuming(namespace, "orders", "orders").await;
        let broker = BrokerAccess::of(namespace);
        let failing = broker.send("orders", &[json!({"id": "broken", "fail": true})]).await;
        send_by_sdk(namespace, &broker).await;
        assert_handled(namespace, &broker).await;
        assert_set_aside(namespace, &broker, &failing[0]).await;
        // With everything in it, and with an operator that would rather have it all.
        namespace.delete().await;
    })
    .await;
}

/// Nothing is changed but the base URL.
async fn send_by_sdk(namespace: &Namespace, broker: &BrokerAccess<'_>) {
    let url = format!("{}/client/v4", broker.address().await.unwrap());
    let script = "tests/clients/npm/send.mjs";
    let printed = tool::run("node", &[script, &url, &namespace.name, "orders", &ORDERS.to_string()]).await;
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(report["accepted"], ORDERS, "{report}");
}

async fn assert_handled(namespace: &Namespace, broker: &BrokerAccess<'_>) {
    let state = broker.wait_until_empty("orders", LONG).await;
    let reports = handled(namespace, PODS).await;
    println!("handled, by pod: {:?}", reports.iter().map(|report| report.handled).collect::<Vec<_>>());
    let sum = Handled::sum(&reports);
    assert_eq!(sum.ids.len() as u64, ORDERS, "each order reached an application pod");
    assert_eq!(sum.handled, ORDERS, "nothing went wrong, so nothing came twice");
    assert_eq!((state.totals.sent, state.totals.acknowledged), (ORDERS + 1, ORDERS), "{state:?}");
    assert_eq!((state.totals.lease_expired, state.totals.dead_lettered), (0, 1), "{state:?}");
}

async fn assert_set_aside(namespace: &Namespace, broker: &BrokerAccess<'_>, id: &str) {
    let consumer = namespace.api::<Consumer>().get("orders").await.unwrap();
    let deliveries = u64::from(consumer.spec.max_retries) + 1;
    let dead = until("the failing order is in the dead-letter queue", LONG, async || {
        let messages = broker.peek("orders-dlq").await?;
        if messages.is_empty() { Err("it is empty".to_owned()) } else { Ok(messages) }
    })
    .await;
    assert_eq!(dead.iter().map(|message| message.id.as_str()).collect::<Vec<_>>(), [id]);
    assert_eq!(dead[0].metadata["capstan-dead-letter-queue"], "orders");
    assert_eq!(dead[0].metadata["capstan-dead-letter-attempts"], deliveries.to_string(), "{dead:?}");
    assert_eq!(dead[0].attempts, 0, "attempts begin anew in the dead-letter queue");
    let failed = Handled::sum(&handled(namespace, PODS).await).failed;
    assert_eq!(failed, deliveries, "the application saw the failing order maxRetries + 1 times");
}
