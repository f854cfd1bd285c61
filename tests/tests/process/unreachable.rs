//! An application that takes nothing, in many pods: no message loses an attempt by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use e2e::process::Sidecar;
use serde_json::json;

use crate::application::{Application, pushed};
use crate::fixture::{Fixture, until};

const PODS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_path_in_many_pods_does_not_use_a_message_up() {
    let status = Arc::new(AtomicU16::new(404));
    let answer = Arc::clone(&status);
    let app = Application::start(move |_| {
        let status = answer.load(Ordering::SeqCst);
        async move { (status, String::new()) }
    })
    .await;
    let fixture = Fixture::new(&[pushed("orders", app.port, json!({}))]).await;
    let start =
        |number| Sidecar::start(&fixture.broker.url(), "Deployment/shop", &format!("shop-{number}"), &[]);
    let _pods: Vec<Sidecar> = (0..PODS).map(start).collect();
    let pull = async || (fixture.metric("capstan_pulls_waiting").await == PODS as f64).then_some(());
    until("all pods pull", pull).await;
    fixture.send("orders", json!({ "body": 1 })).await;
    // It went through the pods at once, and would go on through all of their trials.
    let waits = async || {
        let state = fixture.queue("orders").await;
        let application = state.application.unwrap();
        (state.totals.released > 10 && state.delayed == 1 && application.unreachable > 0).then_some(())
    };
    until("it waits", waits).await;
    status.store(200, Ordering::SeqCst);
    let acknowledged = async || (fixture.queue("orders").await.totals.acknowledged == 1).then_some(());
    until("it is handled when the path is right", acknowledged).await;
    let totals = fixture.queue("orders").await.totals;
    assert_eq!((totals.retried, totals.lease_expired, totals.dropped), (0, 0, 0), "{totals:?}");
    let deliveries = app.deliveries();
    let attempts = deliveries.values().next().unwrap();
    assert!(attempts.iter().all(|attempt| *attempt == 1), "{attempts:?}");
}
