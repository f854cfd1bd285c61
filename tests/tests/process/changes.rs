//! What the operator watches: the feed of changed queues, and the measurements beside it.

use std::time::{Duration, Instant};

use capstan_api::control::{Changes, DUE_SOON, QueueState};
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

/// A sleeping consumer is woken by it: ten seconds before the message, and not by one that is delayed for longer.
#[tokio::test]
async fn who_waits_learns_of_a_delayed_message_that_is_due_soon() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({})), queue("other", 3, json!({}))]).await;
    fixture.send("other", json!({ "body": 1, "delay_seconds": 3_600 })).await;
    let began = Instant::now();
    fixture.send("orders", json!({ "body": 1, "delay_seconds": 12 })).await;
    let sent = Instant::now();
    let first = fixture.control.changes("", LONG).await.unwrap();
    let counts = |changes: &Changes| {
        let of = |one: &QueueState| (one.name.to_string(), [one.delayed, one.due_soon, one.ready]);
        changes.queues.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(counts(&first), [("orders".to_owned(), [1, 0, 0]), ("other".to_owned(), [1, 0, 0])]);
    let next = async |version: &str| {
        tokio::time::timeout(DEADLINE, fixture.control.changes(version, LONG)).await.unwrap().unwrap()
    };
    let mut news = next(&first.version).await;
    while news.queues.iter().all(|one| one.due_soon == 0) {
        // What looks have moved.
        assert!(sent.elapsed() < DEADLINE, "it is not told: {news:?}");
        news = next(&news.version).await;
    }
    assert_eq!(counts(&news), [("orders".to_owned(), [1, 1, 0])]);
    let (second, near) = (Duration::from_secs(1), Duration::from_secs(12) - DUE_SOON);
    // The broker's time may differ a little; on a machine that is busy it is told later.
    assert!(began.elapsed() + second / 2 >= near, "told early, after {:?}", began.elapsed());
    assert!(sent.elapsed() < near + 5 * second, "told late, after {:?}", sent.elapsed());
    assert_eq!(fixture.queue("orders").await.due_soon, 1);

    // Then it is ready, which is told at once, and waits.
    news = next(&news.version).await;
    while news.queues.iter().all(|one| one.ready == 0) {
        news = next(&news.version).await;
    }
    assert_eq!(counts(&news), [("orders".to_owned(), [0, 0, 1])]);
    assert!(sent.elapsed() < 12 * second + 5 * second, "{:?}", sent.elapsed());
    let age = news.queues[0].oldest_ready_age_ms.expect("it waits");
    assert!(age < 5_000, "{age}: since it is ready, not since it was sent");
    let leased = fixture.pull("orders", 1).await.messages;
    let state = fixture.queue("orders").await;
    assert_eq!((state.leased, state.batches, leased.len()), (1, 1, 1));
    assert_eq!(fixture.metric("capstan_queue_batches{namespace=\"shop\",queue=\"orders\"}").await, 1.0);

    // Nothing of it is left, also when it is purged before it is due.
    news = next(&news.version).await;
    fixture.send("orders", json!({ "body": 2, "delay_seconds": 5 })).await;
    while news.queues.iter().all(|one| one.due_soon == 0) {
        news = next(&news.version).await;
    }
    let purge = format!("{}/accounts/shop/queues/orders/purge", fixture.base_url());
    let body = json!({ "delete_messages_permanently": true }).to_string();
    reqwest::Client::new().post(purge).body(body).send().await.unwrap().error_for_status().unwrap();
    while news.queues.iter().any(|one| one.due_soon > 0) {
        news = next(&news.version).await;
    }
    assert_eq!(fixture.queue("orders").await.due_soon, 0);
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
