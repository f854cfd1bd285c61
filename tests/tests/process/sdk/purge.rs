//! Purging through the SDKs: of one message by its reference, and of a queue.

use e2e::process::{go, node};
use serde_json::json;

use crate::fixture::{Fixture, NAMESPACE, queue};

#[tokio::test]
async fn the_npm_sdk_purges_a_message_and_a_queue() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let told = node("purge.mjs", &[&fixture.base_url(), NAMESPACE, "orders"]);
    assert_eq!((&told["byRef"]["errors"], &told["byRef"]["warnings"]), (&json!([]), &json!({})));
    assert_eq!((&told["leftByRef"], &told["left"]), (&json!(2), &json!(0)));
    assert_eq!(told["unconfirmed"], json!({"status": 400, "code": 10207}));
    assert_eq!(told["start"]["queue_name"], "orders");
    assert_eq!(told["status"]["completed"], "true");
    assert!(told["status"]["started_at"].as_str().unwrap().starts_with("20"), "{told}");
}

#[tokio::test]
async fn the_go_sdk_purges_a_message_and_a_queue() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let told = go(&["purge", &fixture.base_url(), NAMESPACE, "orders"]);
    assert_eq!(told["by_ref"], json!({"errors": 0, "warnings": 0, "left": 2}));
    assert_eq!(told["unconfirmed"], json!({"status": 400, "code": 10207}));
    assert_eq!((&told["start"], &told["left"]), (&json!("orders"), &json!(0)));
    assert_eq!(told["status"]["completed"], "true");
    assert!(told["status"]["started_at"].as_str().unwrap().starts_with("20"), "{told}");
}
