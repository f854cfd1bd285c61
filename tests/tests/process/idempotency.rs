//! Sends that are repeated with their idempotency key: answered as the first, and stored once.

use capstan_api::message::Sent;
use e2e::process::Broker;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::fixture::{Fixture, NAMESPACE, queue};

/// Sends a body with a key, as it is given to the header; answers status and envelope.
async fn post(fixture: &Fixture, path: &str, key: &str, body: &Value) -> (u16, Value) {
    let url = format!("{}/accounts/{NAMESPACE}/queues/{path}", fixture.base_url());
    let request = reqwest::Client::new().post(url).header("Idempotency-Key", key).body(body.to_string());
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// The answer to a send that is taken.
async fn sent(fixture: &Fixture, path: &str, key: &str, body: &Value) -> Sent {
    let (status, envelope) = post(fixture, path, key, body).await;
    assert_eq!(status, 200, "{envelope}");
    serde_json::from_value(envelope["result"].clone()).unwrap()
}

async fn duplicates(fixture: &Fixture) -> f64 {
    let labels = format!("event=\"duplicate_sends\",namespace=\"{NAMESPACE}\",queue=\"orders\"");
    fixture.metric(&format!("capstan_queue_events_total{{{labels}}}")).await
}

async fn remembered(fixture: &Fixture) -> f64 {
    let labels = format!("namespace=\"{NAMESPACE}\",queue=\"orders\"");
    fixture.metric(&format!("capstan_queue_idempotency_keys{{{labels}}}")).await
}

#[tokio::test]
async fn a_repeated_send_is_answered_as_the_first_also_by_the_next_process() {
    let mut fixture = Fixture::new(&[queue("orders", 3, json!({})), queue("others", 3, json!({}))]).await;
    let body = json!({"messages": [{"body": {"order": 1}}, {"body": "two", "content_type": "text"}]});
    let first = sent(&fixture, "orders/messages/batch", "a-1", &body).await;
    assert_eq!((first.ids.len(), first.metadata.metrics.backlog_count), (2, 2));
    assert_eq!(sent(&fixture, "orders/messages/batch", "\"a-1\"", &body).await, first);
    assert_eq!((duplicates(&fixture).await, remembered(&fixture).await), (1.0, 1.0));
    for end in [Broker::kill, Broker::stop] {
        fixture = fixture.again(end);
        assert_eq!(sent(&fixture, "orders/messages/batch", "a-1", &body).await, first);
        assert_eq!((duplicates(&fixture).await, remembered(&fixture).await), (1.0, 1.0));
    }
    // Also when its messages are gone by then.
    let pulled = fixture.pull("orders", 10).await.messages;
    let leases: Vec<&str> = pulled.iter().map(|one| one.lease_id.as_str()).collect();
    assert_eq!(fixture.ack("orders", &leases).await.ack_count, 2);
    assert_eq!(sent(&fixture, "orders/messages/batch", "a-1", &body).await.ids, first.ids);
    assert_eq!(fixture.queue("orders").await.ready, 0);
    // Of another queue it is another key.
    assert_ne!(sent(&fixture, "others/messages/batch", "a-1", &body).await.ids, first.ids);
}

#[tokio::test]
async fn one_message_alone_and_in_a_batch_is_the_same_and_another_one_is_refused() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({ "max_messages": 1 }))]).await;
    let first = sent(&fixture, "orders/messages", "k", &json!({"body": 1})).await;
    // The queue is full by now.
    let batch = json!({"messages": [{"body": 1}]});
    assert_eq!(sent(&fixture, "orders/messages/batch", "k", &batch).await, first);
    for other in [
        json!({"body": 2}),
        json!({"body": 1, "delay_seconds": 1}),
        json!({"body": 1, "attributes": {"a": "b"}}),
    ] {
        let (status, envelope) = post(&fixture, "orders/messages", "k", &other).await;
        let error = &envelope["errors"][0];
        assert_eq!((status, &error["code"]), (422, &json!(10280)), "{other}: {envelope}");
        assert_eq!(error["source"], json!({"header": "idempotency-key"}));
    }
    // What is refused is not remembered.
    let (status, _) = post(&fixture, "orders/messages", "next", &json!({"body": 2})).await;
    assert_eq!(status, 429);
    fixture.declare("2", &[queue("orders", 3, json!({}))]).await;
    sent(&fixture, "orders/messages", "next", &json!({"body": 3})).await;
    assert_eq!(fixture.queue("orders").await.ready, 2);
}

#[tokio::test]
async fn of_many_at_the_same_time_one_is_stored() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let body = json!({"body": "x"});
    let answers = join_all((0..50).map(|_| sent(&fixture, "orders/messages", "same", &body))).await;
    assert!(answers.iter().all(|answer| answer.ids == answers[0].ids), "{answers:?}");
    assert_eq!(fixture.queue("orders").await.ready, 1);
    assert_eq!(duplicates(&fixture).await, 49.0);
}

#[tokio::test]
async fn a_trace_that_differs_is_no_other_content() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let url = format!("{}/accounts/{NAMESPACE}/queues/orders/messages", fixture.base_url());
    for span in ["00f067aa0ba902b7", "b7ad6b7169203331"] {
        let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{span}-01");
        let request = reqwest::Client::new().post(&url).header("idempotency-key", "k");
        let answer = request.header("traceparent", parent).body(r#"{"body": 1}"#).send().await.unwrap();
        assert_eq!(answer.headers().get("idempotency-key").unwrap(), "k", "it says that it minds keys");
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }
    assert_eq!(fixture.queue("orders").await.ready, 1);
    let answer = reqwest::Client::new().post(&url).body(r#"{"body": 1}"#).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().get("idempotency-key")), (200, None));
}
