//! `max_concurrency`: so many batches are leased at once and no more, whoever asks.

use capstan_api::message::Pull;
use capstan_api::number::Whole;
use e2e::process::Broker;
use serde_json::json;

use crate::fixture::{DEADLINE, Fixture, NAMESPACE, name, queue};

async fn fixture(most: u64) -> Fixture {
    let fixture = Fixture::new(&[queue("orders", 3, json!({"consumer": {"max_concurrency": most}}))]).await;
    for n in 0..10 {
        fixture.send("orders", json!({ "body": n })).await;
    }
    fixture
}

#[tokio::test]
async fn a_batch_more_waits_until_one_is_over() {
    let fixture = fixture(2).await;
    let (first, second) = (fixture.pull("orders", 2).await, fixture.pull("orders", 3).await);
    assert_eq!((first.messages.len(), second.messages.len()), (2, 3));
    assert!(fixture.pull("orders", 2).await.messages.is_empty(), "two are open");
    let client = fixture.client.clone();
    let pull = Pull { idle_ms: Some(Whole(60_000)), wait_ms: Some(Whole(0)), ..Pull::default() };
    let waiting = tokio::spawn(async move { client.pull(&name(NAMESPACE), &name("orders"), &pull).await });
    fixture.ack("orders", &[&first.messages[0].lease_id]).await;
    assert!(fixture.pull("orders", 2).await.messages.is_empty(), "one of the first is still leased");
    assert!(!waiting.is_finished());
    // A retry ends it as an ack does, even one that leaves nothing ready.
    fixture.retry("orders", &first.messages[1].lease_id, Some(600)).await;
    let third = tokio::time::timeout(DEADLINE, waiting).await.expect("it is woken").unwrap().unwrap();
    assert_eq!(third.messages.len(), 5);
}

#[tokio::test]
async fn the_batches_are_counted_over_a_crash() {
    let fixture = fixture(1).await;
    let first = fixture.pull("orders", 2).await;
    let fixture = fixture.again(Broker::kill);
    assert!(fixture.pull("orders", 1).await.messages.is_empty(), "it is still open");
    let leases: Vec<&str> = first.messages.iter().map(|one| one.lease_id.as_str()).collect();
    assert_eq!(fixture.ack("orders", &leases).await.ack_count, 2);
    assert_eq!(fixture.pull("orders", 1).await.messages.len(), 1);
}

#[tokio::test]
async fn a_raised_limit_counts_at_once() {
    let fixture = fixture(1).await;
    assert_eq!(fixture.pull("orders", 1).await.messages.len(), 1);
    assert!(fixture.pull("orders", 1).await.messages.is_empty());
    fixture.declare("2", &[queue("orders", 3, json!({"consumer": {"max_concurrency": 2}}))]).await;
    assert_eq!(fixture.pull("orders", 1).await.messages.len(), 1);
    fixture.declare("3", &[queue("orders", 3, json!({}))]).await;
    assert_eq!(fixture.pull("orders", 1).await.messages.len(), 1, "without a limit");
}
