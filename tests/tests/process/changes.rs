//! What the operator watches: the feed of changed queues, and the measurements beside it.

use std::time::{Duration, Instant};

use e2e::process::Broker;
use serde_json::json;

use crate::fixture::{DEADLINE, Fixture, queue};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_change_wakes_who_waits_for_it_and_tells_that_queue_alone() {
    let queues = [queue("orders", 3, json!({})), queue("other", 3, json!({}))];
    let fixture = Fixture::new(&queues).await;
    let first = fixture.control.changes("", LONG).await.unwrap();
    assert!(first.whole);
    assert_eq!(first.queues.len(), 2);
    // What the look itself has moved is seen, and then there is nothing.
    let seen = fixture.control.changes(&first.version, Duration::ZERO).await.unwrap();
    let control = fixture.control.clone();
    let version = seen.version.clone();
    let waiting = tokio::spawn(async move { control.changes(&version, LONG).await });
    let began = Instant::now();
    fixture.send("orders", json!({ "body": 1 })).await;
    let news = tokio::time::timeout(DEADLINE / 2, waiting).await.expect("it is woken").unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "woken by the change, not by the end of its time");
    assert!(!news.whole);
    let told: Vec<_> = news.queues.iter().map(|one| (one.name.as_str(), one.ready)).collect();
    assert_eq!(told, [("orders", 1)]);

    // Nothing happens: the time passes, and nothing is told.
    let still = fixture.control.changes(&news.version, Duration::from_millis(200)).await.unwrap();
    assert_eq!((still.whole, still.queues.len()), (false, 0), "{still:?}");

    // A declaration and a new start tell everything.
    fixture.declare("2", &queues[..1]).await;
    let declared = fixture.control.changes(&still.version, LONG).await.unwrap();
    assert_eq!((declared.whole, declared.queues.len()), (true, 1));
    let fixture = fixture.again(Broker::kill);
    let restarted = fixture.control.changes(&declared.version, LONG).await.unwrap();
    assert_eq!((restarted.whole, restarted.queues.len()), (true, 1));
    for nonsense in ["x", "1-", "-", "zzzzzzzz-1"] {
        assert!(fixture.control.changes(nonsense, Duration::ZERO).await.unwrap().whole, "{nonsense}");
    }
}

#[tokio::test]
async fn metrics_say_how_the_store_does() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let synced = fixture.metric("capstan_store_commit_seconds_count{durability=\"synced\"}").await;
    for n in 0..5 {
        fixture.send("orders", json!({ "body": n })).await;
    }
    assert_eq!(fixture.pull("orders", 5).await.messages.len(), 5);
    let after = fixture.metric("capstan_store_commit_seconds_count{durability=\"synced\"}").await;
    assert!(after >= synced + 5.0, "each send here is a commit: {synced}, {after}");
    assert!(fixture.metric("capstan_store_commit_seconds_count{durability=\"buffered\"}").await >= 1.0);
    assert!(fixture.metric("capstan_store_commit_requests_sum").await >= 5.0);
    assert!(fixture.metric("capstan_store_recovery_seconds").await > 0.0);
    let offset = fixture.metric("capstan_clock_offset_seconds").await;
    assert!(offset.abs() < 1.0, "{offset}");
    for waiting in ["capstan_verdicts_waiting", "capstan_work_waiting", "capstan_work_waiting_bytes"] {
        assert_eq!(fixture.metric(waiting).await, 0.0, "{waiting}");
    }
    let url = format!("{}/accounts/shop/queues/nothing/messages", fixture.base_url());
    let refused = reqwest::Client::new().post(url).body("{}").send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 404);
    assert_eq!(fixture.metric("capstan_refusals_total{code=\"10104\"}").await, 1.0);
}

#[tokio::test]
async fn the_document_names_every_metric_and_no_other() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let missing = format!("{}/accounts/shop/queues/nothing/messages", fixture.base_url());
    reqwest::Client::new().post(missing).body("{}").send().await.unwrap();
    let url = format!("{}/metrics", fixture.broker.admin_url());
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let compared = e2e::document::check(include_str!("../../../docs/metrics.md"), "The broker", &text);
    assert!(compared > 12, "{compared}");
}
