//! The two ports, the lock on the store, and the way a process ends.

use e2e::process::{Broker, Starting};
use serde_json::json;

use crate::fixture::{Fixture, queue};

async fn get(url: &str) -> (u16, String) {
    let answer = reqwest::get(url).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn health_metrics_and_control_are_on_the_admin_port_alone() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    fixture.send("orders", json!({"body": "four"})).await;
    let (api, admin) = (fixture.broker.url(), fixture.broker.admin_url());
    for path in ["/healthz", "/readyz", "/metrics", "/control/v1/state"] {
        assert_eq!(get(&format!("{admin}{path}")).await.0, 200, "{path}");
        assert_eq!(get(&format!("{api}{path}")).await.0, 404, "{path}");
    }
    let data = "/client/v4/accounts/shop/queues";
    assert_eq!((get(&format!("{api}{data}")).await.0, get(&format!("{admin}{data}")).await.0), (200, 404));
    for (series, value) in [
        ("capstan_queue_messages{namespace=\"shop\",queue=\"orders\",state=\"ready\"}", 1.0),
        ("capstan_queue_bytes{namespace=\"shop\",queue=\"orders\"}", 6.0),
        ("capstan_queue_events_total{event=\"sent\",namespace=\"shop\",queue=\"orders\"}", 1.0),
    ] {
        assert_eq!(fixture.metric(series).await, value, "{series}");
    }
}

#[tokio::test]
async fn a_second_broker_on_the_same_store_says_why_it_ends() {
    let fixture = Fixture::new(&[]).await;
    let (status, log) = Starting::spawn(fixture.folder()).ended();
    assert!(!status.success());
    assert!(log.to_string().contains("is in use by another broker"), "{log}");
    // The first is unharmed, and the lock goes with its process, however it ends.
    fixture.control.state().await.unwrap();
    let fixture = fixture.again(Broker::kill);
    fixture.control.state().await.unwrap();
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (status, log) = Starting::spawn(file.path()).ended();
    assert!(!status.success());
    assert!(log.to_string().contains(&file.path().display().to_string()), "{log}");
}
