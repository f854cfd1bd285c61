//! Cloudflare's official SDKs as clients, with nothing changed but their base URL.

mod go;
mod purge;
mod traps;

use e2e::process::{node, python};
use serde_json::{Value, json};

use crate::fixture::{Fixture, NAMESPACE, json_of, queue};

#[tokio::test]
async fn the_npm_sdk_finds_every_answer_as_it_expects_it() {
    let fixture =
        Fixture::new(&[queue("orders", 3, json!({"delivery_delay_ms": 0})), queue("other", 1, json!({}))])
            .await;
    let told = node("tour.mjs", &[&fixture.base_url(), NAMESPACE, "orders"]);

    let names: Vec<&Value> = told["list"].as_array().unwrap().iter().map(|q| &q["queue_name"]).collect();
    assert_eq!(names, ["orders", "other"]);
    assert_eq!(told["get"]["queue_id"], "orders");
    assert_eq!(told["get"]["settings"]["message_retention_period"], 345_600);
    assert_eq!(told["get"]["consumers_total_count"], 1);
    assert_eq!(told["consumers"][0]["type"], "http_pull");
    assert_eq!(told["consumer"], told["consumers"][0]);
    assert_eq!(told["consumer"]["settings"]["visibility_timeout_ms"], 30_000);

    assert_eq!(told["push"]["metadata"]["metrics"]["backlog_count"], 1);
    assert_eq!(told["bulkPush"]["metadata"]["metrics"]["backlog_count"], 5);
    assert_eq!(told["metrics"]["backlog_count"], 5);
    assert!(told["metrics"]["oldest_message_timestamp_ms"].as_u64().unwrap() > 1_700_000_000_000);
    assert_eq!(told["peek"]["messages"].as_array().unwrap().len(), 2);
    assert!(
        told["peek"]["messages"][0]["ref"].is_string() && told["peek"]["messages"][0]["lease_id"].is_null()
    );

    let pulled = told["pull"]["messages"].as_array().unwrap();
    let shown: Vec<(&str, Value)> = pulled.iter().map(shown).collect();
    let expected = [
        ("json", json!({"n": 1, "text": "grüße"})),
        ("text", json!("plain")),
        ("json", json!({"n": 3})),
        ("text", json!("four")),
    ];
    assert_eq!(shown, expected, "the delayed one waits");
    assert!(pulled.iter().all(|message| message["attempts"] == 1));
    assert_eq!(told["pull"]["message_backlog_count"], 5);
    assert_eq!(told["empty"]["messages"], json!([]));

    assert_eq!(told["ack"], json!({"ackCount": 3, "retryCount": 1, "releaseCount": 0, "warnings": {}}));
    assert_eq!(told["again"]["messages"].as_array().unwrap().len(), 1);
    assert_eq!(told["again"]["messages"][0]["attempts"], 2);
    assert_eq!(told["again"]["messages"][0]["id"], pulled[0]["id"]);
    assert_eq!(told["ackAgain"]["ackCount"], 1);
    assert_eq!(told["ackTwice"]["ackCount"], 0);
    assert_eq!(told["ackTwice"]["warnings"].as_object().unwrap().len(), 1, "a warning, no failure");
    assert_eq!(told["after"]["backlog_count"], 1);

    let left = fixture.queue("orders").await;
    assert_eq!((left.ready, left.delayed, left.leased, left.dead), (0, 1, 0, 0));
}

/// Content type and body of a pulled message.
fn shown(message: &Value) -> (&str, Value) {
    let content_type = message["metadata"]["CF-Content-Type"].as_str().unwrap();
    let body = message["body"].as_str().unwrap();
    (content_type, if content_type == "json" { json_of(body) } else { json!(body) })
}

#[tokio::test]
async fn the_npm_sdk_raises_the_error_that_belongs_to_each_refusal() {
    let small = queue("small", 3, json!({"max_messages": 1}));
    let paused = queue("paused", 3, json!({"delivery_paused": true}));
    let fixture = Fixture::new(&[queue("orders", 3, json!({})), paused, small]).await;
    let told = node("refusals.mjs", &[&fixture.base_url(), NAMESPACE, "orders", "paused", "small"]);

    let bad = "BadRequestError";
    let managed = ("PermissionDeniedError", 403, 10023, 1);
    // Class, status, code, and how many requests the SDK made of it: it tries three times what may succeed later.
    let expected = [
        ("unknownQueue", ("NotFoundError", 404, 10104, 1)),
        ("malformedId", (bad, 400, 10107, 1)),
        ("contentType", (bad, 400, 10203, 1)),
        ("delay", (bad, 400, 10203, 1)),
        ("batchDelay", (bad, 400, 10202, 1)),
        ("tooLarge", (bad, 400, 10204, 1)),
        ("batchTooLarge", (bad, 400, 10205, 1)),
        ("tooMany", (bad, 400, 10206, 1)),
        ("noMessages", (bad, 400, 10206, 1)),
        ("wrongType", (bad, 400, 10207, 1)),
        ("lease", (bad, 400, 10207, 1)),
        ("paused", ("ConflictError", 409, 10252, 1)),
        ("full", ("RateLimitError", 429, 10251, 3)),
        ("create", managed),
        ("update", managed),
        ("edit", managed),
        ("delete", managed),
        ("createConsumer", managed),
        ("deleteConsumer", managed),
    ];
    assert_eq!(told.as_object().unwrap().len(), expected.len());
    for (name, (class, status, code, requests)) in expected {
        let one = &told[name];
        assert_eq!(one["class"], class, "{name}: {one}");
        assert_eq!(
            (&one["status"], &one["errors"][0]["code"]),
            (&json!(status), &json!(code)),
            "{name}: {one}"
        );
        assert_eq!(one["requests"], requests, "{name}: {one}");
    }
    assert_eq!(told["paused"]["errors"][0]["message"], "queue_delivery_paused");
    assert_eq!(fixture.queue("orders").await.totals.sent, 0, "nothing was stored");
}

#[tokio::test]
async fn the_sending_script_sends_what_it_says() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let told =
        node("send.mjs", &[&fixture.base_url(), NAMESPACE, "orders", "230", r#"{"id":{n},"item":"lamp"}"#]);
    assert_eq!((&told["accepted"], &told["failures"]), (&json!(230), &json!([])));
    assert!(told["batches"].as_u64().unwrap() > 0 && told["singles"].as_u64().unwrap() > 0, "{told}");
    let mut ids = Vec::new();
    for _ in 0..3 {
        let pulled = fixture.pull("orders", 100).await.messages;
        ids.extend(pulled.iter().map(|message| json_of(&message.body)["id"].as_u64().unwrap()));
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..=230).collect::<Vec<u64>>());
}

#[tokio::test]
async fn the_python_sdk_and_its_floats_are_understood() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let told = python("tour.py", &[&fixture.base_url(), NAMESPACE, "orders"]);
    assert_eq!(told["list"], json!(["orders"]));
    assert_eq!(told["get"], "orders");
    assert_eq!(told["unknown_age"], json!([0.0, 0.0]));
    assert_eq!(told["consumer"], json!({"type": "http_pull", "same": true, "max_retries": 3.0}));
    assert_eq!((&told["push"], &told["bulk_push"]), (&json!(1.0), &json!(3.0)));
    let peeked: Vec<(&str, Value)> = told["peek"].as_array().unwrap().iter().map(shown).collect();
    assert_eq!(peeked, [("json", json!({"n": 1})), ("text", json!("two"))]);
    assert!(told["peek"].as_array().unwrap().iter().all(|message| message["has_ref"] == true));
    let pulled: Vec<(&str, Value)> = told["pull"].as_array().unwrap().iter().map(shown).collect();
    assert_eq!(pulled, [("json", json!({"n": 1})), ("text", json!("two"))]);
    assert_eq!(told["ack"], json!({"ack_count": 1.0, "retry_count": 1.0, "warnings": {}}));
    assert_eq!(told["again"], json!([2.0]));
    assert_eq!(told["ack_twice"], 1);
    assert_eq!(told["metrics"], 1.0, "the delayed one");
    assert_eq!(told["unknown_queue"], json!({"class": "NotFoundError", "status": 404, "code": 10104}));
    assert_eq!(told["half_a_message"], json!({"class": "BadRequestError", "status": 400, "code": 10207}));
}
