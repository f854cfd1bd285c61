//! A broker that is away for longer than its leases: what was handled is not delivered again, and no attempt is lost.

use std::time::Duration;

use e2e::process::{Broker, Sidecar, Starting};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::application::{Application, done, pushed};
use crate::fixture::{Fixture, until};

/// The length of leases; Consumers have 30 s.
const LEASE: Duration = Duration::from_secs(3);

/// What the messages in a batch ask for.
fn word(batch: &Value) -> String {
    batch["messages"][0]["body"].as_str().unwrap().to_owned()
}

async fn survives(end: impl FnOnce(Broker)) {
    // What may be answered now.
    let (allow, allowed) = watch::channel(Vec::new());
    let app = Application::start(move |batch| {
        let mut allowed = allowed.clone();
        async move {
            allowed.wait_for(|words| words.contains(&word(&batch))).await.unwrap();
            done()
        }
    })
    .await;
    let push = json!({"max_batch_size": 1, "concurrency_per_pod": 2});
    let visibility = u64::try_from(LEASE.as_millis()).unwrap();
    let consumer = json!({"push": push, "visibility_timeout_ms": visibility});
    let fixture = Fixture::new(&[pushed("orders", app.port, consumer)]).await;
    let address = fixture.broker.address();
    for word in ["during", "after", "waiting", "waiting"] {
        fixture.send("orders", json!({ "body": word })).await;
    }
    let sidecar = Sidecar::start(&fixture.broker.url(), "Deployment/shop", "shop-1", &[]);
    app.until("two calls are open", |seen| seen.len() == 2).await;

    let folder = fixture.leave(end);
    let since = tokio::time::Instant::now();
    // One call ends while the broker is away, and its verdict waits.
    allow.send_modify(|words| words.push("during".to_owned()));
    let waits = async || {
        let metrics = reqwest::get(sidecar.url("/metrics")).await.unwrap().text().await.unwrap();
        metrics.contains(r#"capstan_sidecar_broker_errors_total{request="settle"}"#).then_some(())
    };
    until("the verdict cannot be sent", waits).await;
    // Twice as long as the leases: time is what this is about.
    tokio::time::sleep_until(since + 2 * LEASE).await;
    let fixture = Fixture::over(folder, |data| Starting::at(data, address));
    // The other call ends after it is back.
    let acknowledged =
        async |count| (fixture.queue("orders").await.totals.acknowledged == count).then_some(());
    until("what was handled is acknowledged", async || acknowledged(1).await).await;
    allow.send_modify(|words| words.extend(["after", "waiting"].map(str::to_owned)));
    until("all is acknowledged", async || acknowledged(4).await).await;
    let state = fixture.queue("orders").await;
    assert_eq!((state.ready, state.leased, state.delayed), (0, 0, 0));
    assert_eq!((state.totals.retried, state.totals.lease_expired, state.totals.released), (0, 0, 0));
    let deliveries = app.deliveries();
    assert_eq!(deliveries.len(), 4);
    assert!(
        deliveries.values().all(|attempts| attempts == &[1]),
        "each once, at the first attempt: {deliveries:?}"
    );
    sidecar.terminate();
    let (status, log) = sidecar.ended();
    assert!(status.success(), "{status}\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_killed_loses_no_verdict_and_spends_no_attempt() {
    survives(Broker::kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_does_one_that_was_stopped() {
    survives(Broker::stop).await;
}
