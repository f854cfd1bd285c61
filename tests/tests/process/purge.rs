//! Purge of a whole queue and of single messages: what goes, what stays, and what late verdicts meet.

use capstan_api::message::{Peek, Pull, Reference, Remove};
use capstan_api::number::Whole;
use e2e::process::Broker;
use serde_json::{Value, json};

use crate::fixture::{Fixture, NAMESPACE, json_of, name, queue, until};

async fn purge(fixture: &Fixture) -> Value {
    let url = format!("{}/accounts/{NAMESPACE}/queues/orders/purge", fixture.base_url());
    let answer = reqwest::Client::new().post(url).body(r#"{"delete_messages_permanently": true}"#).send();
    answer.await.unwrap().error_for_status().unwrap().json().await.unwrap()
}

async fn status(fixture: &Fixture) -> Value {
    let url = format!("{}/accounts/{NAMESPACE}/queues/orders/purge", fixture.base_url());
    let mut answer: Value =
        reqwest::get(url).await.unwrap().error_for_status().unwrap().json().await.unwrap();
    answer["result"].take()
}

async fn peek(fixture: &Fixture) -> Vec<(Value, Reference)> {
    let peek = Peek { batch_size: Some(Whole(100)) };
    let peeked = fixture.client.peek(&name(NAMESPACE), &name("orders"), &peek).await.unwrap();
    let one = |one: capstan_api::message::PeekedMessage| {
        (json_of(&one.body), Reference { reference: one.reference })
    };
    peeked.messages.into_iter().map(one).collect()
}

#[tokio::test]
async fn a_purge_takes_everything_and_nothing_that_comes_later() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    assert_eq!(status(&fixture).await, json!({}), "never purged");
    for n in 0..4 {
        fixture.send("orders", json!({ "body": n })).await;
    }
    fixture.send("orders", json!({ "body": "later", "delay_seconds": 1 })).await;
    let leased = fixture.pull("orders", 2).await.messages;
    let before = fixture.queue("orders").await;
    assert_eq!((before.ready, before.leased, before.delayed), (2, 2, 1));
    let shown = purge(&fixture).await;
    assert_eq!(shown["result"]["queue_name"], "orders");
    let after = fixture.queue("orders").await;
    assert_eq!((after.ready, after.leased, after.delayed, after.bytes), (0, 0, 0, 0));
    assert_eq!(after.totals.purged, 5);

    // A verdict on what was purged is a warning, also over a crash.
    let fixture = fixture.again(Broker::kill);
    let settled = fixture.ack("orders", &[&leased[0].lease_id]).await;
    assert_eq!((settled.ack_count, settled.warnings.len()), (0, 1));
    // Due after the purged one would have been.
    fixture.send("orders", json!({ "body": "new", "delay_seconds": 1 })).await;
    let pulled = until("the new message", async || fixture.pull("orders", 10).await.messages.pop()).await;
    assert_eq!((json_of(&pulled.body), pulled.attempts), (json!("new"), 1));
    let done = until("its records are gone", async || {
        Some(status(&fixture).await).filter(|status| status["completed"] == "true")
    })
    .await;
    assert!(
        done["started_at"].as_str().is_some_and(|at| at.starts_with("20") && at.ends_with('Z')),
        "{done}"
    );
    assert_eq!(done["complete"], true);
    assert!(fixture.pull("orders", 10).await.messages.is_empty());
}

#[tokio::test]
async fn messages_are_removed_by_ref_whatever_their_state() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    for n in 0..4 {
        fixture.send("orders", json!({ "body": n })).await;
    }
    fixture.send("orders", json!({ "body": 4, "delay_seconds": 600 })).await;
    let leased = fixture.pull("orders", 2).await.messages;
    assert_eq!(leased.len(), 2);
    let seen = peek(&fixture).await;
    let bodies: Vec<_> = seen.iter().map(|(body, _)| body.as_u64().unwrap()).collect();
    assert_eq!(bodies, [0, 1, 2, 3, 4]);
    // A leased one, a ready one and a delayed one.
    let refs: Vec<Reference> = [0, 2, 4].map(|n| seen[n].1.clone()).to_vec();
    let remove = async |refs: &[Reference]| {
        let remove = Remove { refs: refs.to_vec() };
        fixture.client.remove(&name(NAMESPACE), &name("orders"), &remove).await.unwrap()
    };
    // One of them is named twice.
    let twice = [&refs[..], &refs[..1]].concat();
    let removed = remove(&twice).await;
    assert_eq!((removed.purge_count, removed.warnings.len(), removed.errors.len()), (3, 0, 0));
    let again = remove(&refs).await;
    assert_eq!((again.purge_count, again.warnings.len()), (0, 3));
    assert!(again.warnings.contains_key(&refs[0].reference));
    let left: Vec<_> = peek(&fixture).await.into_iter().map(|(body, _)| body).collect();
    assert_eq!(left, [json!(1), json!(3)]);
    let settled = fixture.ack("orders", &[&leased[0].lease_id, &leased[1].lease_id]).await;
    assert_eq!((settled.ack_count, settled.warnings.len()), (1, 1), "the first one was removed");
    let pulled = fixture.pull("orders", 10).await.messages;
    assert_eq!(pulled.iter().map(|one| json_of(&one.body)).collect::<Vec<_>>(), [json!(3)]);
    let totals = fixture.queue("orders").await.totals;
    assert_eq!((totals.delivered, totals.purged), (3, 3), "a removal is no delivery");
}

#[tokio::test]
async fn a_retained_queue_shows_its_messages_and_goes_when_it_is_purged() {
    let orders = queue("orders", 3, json!({}));
    let fixture = Fixture::new(std::slice::from_ref(&orders)).await;
    fixture.send("orders", json!({ "body": "kept" })).await;
    fixture.declare("2", &[]).await;
    assert_eq!(peek(&fixture).await.len(), 1);
    let (space, orders_name) = (name(NAMESPACE), name("orders"));
    let message = crate::fixture::message_of(&json!({ "body": 1 }));
    let send = fixture.client.send(&space, &orders_name, &message).await.unwrap_err();
    let pull = fixture.client.pull(&space, &orders_name, &Pull::default()).await.unwrap_err();
    assert_eq!((send.code(), pull.code()), (Some(10104), Some(10104)));
    // Declared again, it has them still.
    fixture.declare("3", &[orders]).await;
    assert_eq!(json_of(&fixture.pull("orders", 1).await.messages[0].body), "kept");
    fixture.declare("4", &[]).await;
    purge(&fixture).await;
    let forgotten = async || fixture.control.state().await.unwrap().queues.is_empty().then_some(());
    until("the queue is forgotten", forgotten).await;
}
