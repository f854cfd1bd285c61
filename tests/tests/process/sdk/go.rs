//! Cloudflare's Go SDK, which types every number as float and every time as text.

use e2e::process::go;
use serde_json::{Value, json};

use super::shown;
use crate::fixture::{Fixture, NAMESPACE, queue};

#[tokio::test]
async fn the_go_sdk_finds_every_answer_as_it_expects_it() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({})), queue("other", 1, json!({}))]).await;
    let told = go(&["tour", &fixture.base_url(), NAMESPACE, "orders"]);
    assert_eq!(told["list"], json!(["orders", "other"]));
    assert_eq!(told["get"], json!({"queue_id": "orders", "retention": 345_600}));
    assert_eq!(told["consumer"], json!({"id": "orders", "type": "http_pull", "queue_name": "orders"}));
    assert_eq!([&told["push"], &told["push_text"], &told["bulk_push"]], [1, 2, 4]);
    assert_eq!(told["metrics"], json!({"count": 4, "oldest_is_known": true}));

    let bodies = |list: &Value| list.as_array().unwrap().iter().map(shown_owned).collect::<Vec<_>>();
    let expected = [("json", json!({"n": 1, "text": "grüße"})), ("text", json!("plain"))];
    let expected = expected.map(|(kind, body)| (kind.to_owned(), body));
    assert_eq!(bodies(&told["peek"]), expected);
    assert!(told["peek"].as_array().unwrap().iter().all(|message| message["has_ref"] == true));
    assert_eq!(bodies(&told["pull"])[..2], expected);
    assert_eq!(bodies(&told["pull"])[2..], [("json".to_owned(), json!({"n": 3}))], "the delayed one waits");
    assert!(told["pull"].as_array().unwrap().iter().all(|message| message["attempts"] == 1));
    assert_eq!(told["empty"], 0);

    assert_eq!(told["ack"], json!({"acks": 2, "retries": 1, "warnings": 0}));
    assert_eq!(told["again"], json!({"attempts": 2, "same": true}));
    assert_eq!(told["ack_again"], json!({"acks": 1, "retries": 0, "warnings": 0}));
    assert_eq!(told["ack_twice"], json!({"acks": 0, "retries": 0, "warnings": 1}));
    assert_eq!(told["after"], 1);
    assert_eq!(told["unknown_queue"], json!({"status": 404, "code": 10104}));
    assert_eq!(told["half_a_message"], json!({"status": 400, "code": 10207}));
    let left = fixture.queue("orders").await;
    assert_eq!((left.ready, left.delayed, left.leased, left.dead), (0, 1, 0, 0));
}

fn shown_owned(message: &Value) -> (String, Value) {
    let (kind, body) = shown(message);
    (kind.to_owned(), body)
}
