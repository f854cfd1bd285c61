//! Requests that look odd and are taken, what OPTIONS is told, and a queue that is full for a while.

use reqwest::Method;
use serde_json::{Value, json};

use crate::fixture::{Fixture, NAMESPACE, queue};

/// SDKs, curl and wrangler say various things about their bodies, and more than Capstan knows.
#[tokio::test]
async fn unusual_requests_that_mean_the_same_are_taken() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/client/v4/accounts/shop/queues/orders/messages", fixture.broker.url());
    let types = ["application/json", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", ""];
    for content_type in types {
        let body =
            json!({ "body": content_type, "environment_name": "", "settings": { "x": 1 } }).to_string();
        let request = http.post(&url).body(body);
        let request =
            if content_type.is_empty() { request } else { request.header("content-type", content_type) };
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{content_type:?}: {}", answer.text().await.unwrap());
    }
    let odd = r#" {"body": null, "content_type": "JSON", "delay_seconds": 0.0} "#;
    assert_eq!(http.post(&url).body(odd).send().await.unwrap().status(), 200);
    // The largest message, and a pull without a body.
    let largest = json!({ "body": "x".repeat(128_000), "content_type": "text" }).to_string();
    assert_eq!(http.post(&url).body(largest).send().await.unwrap().status(), 200);
    assert_eq!(http.post(format!("{url}/pull")).send().await.unwrap().status(), 200);
    assert_eq!(fixture.queue("orders").await.totals.sent, 6);
}

#[tokio::test]
async fn a_full_queue_refuses_until_there_is_room() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({"max_messages": 1}))]).await;
    fixture.send("orders", json!({ "body": 1 })).await;
    let url = format!("{}/accounts/{NAMESPACE}/queues/orders/messages", fixture.base_url());
    let refused = reqwest::Client::new().post(url).body(r#"{"body":2}"#).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (429, true));
    let envelope: Value = refused.json().await.unwrap();
    assert_eq!(envelope["errors"][0]["code"], 10251, "{envelope}");
    let pulled = fixture.pull("orders", 1).await.messages;
    fixture.ack("orders", &[&pulled[0].lease_id]).await;
    fixture.send("orders", json!({ "body": 2 })).await;
}

/// As much as a batch may hold, in the JSON that makes the most of it.
#[tokio::test]
async fn the_largest_batch_is_taken_however_its_json_is_escaped() {
    const LARGEST: usize = 1 << 20;
    let larger = json!({ "max_message_bytes": LARGEST });
    let fixture = Fixture::new(&[queue("orders", 3, json!({})), queue("large", 3, larger)]).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    // A letter in six bytes.
    let letters = |count: usize| r"\u0041".repeat(count);
    let attributes = format!(r#"{{"a":"{}"}}"#, letters(4095));
    let rows =
        [("orders", 128_000, 2), ("orders", 2_560, 100), ("large", LARGEST, 2), ("large", LARGEST / 50, 100)];
    for (name, bytes, count) in rows {
        let path = format!("{}/client/v4/accounts/shop/queues/{name}/messages/batch", fixture.broker.url());
        // The same as base64: a third more of such letters.
        let base64 = letters(bytes / 3 * 4) + ["", "QQ==", "QUE="][bytes % 3];
        let before = fixture.queue(name).await.bytes;
        for (kind, body) in [("text", letters(bytes)), ("bytes", base64)] {
            let message = format!(r#"{{"content_type":"{kind}","attributes":{attributes},"body":"{body}"}}"#);
            let request = format!(r#"{{"messages":[{}]}}"#, vec![message; count].join(","));
            let length = request.len();
            let answer = http.post(&path).body(request).send().await.unwrap();
            let (status, text) = (answer.status(), answer.text().await.unwrap());
            assert_eq!(status, 200, "{name}, {kind}: {length} bytes: {text}");
        }
        let stored = fixture.queue(name).await.bytes - before;
        assert_eq!(stored, 2 * count as u64 * (bytes as u64 + 4096), "{name}: bodies and attributes");
    }
}

/// OPTIONS is what a browser asks before it sends from another site's page. It is told which methods there are, and, without
/// headers of CORS, that none of them is for it.
#[tokio::test]
async fn options_names_the_methods_of_a_path() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let queues = format!("{}/client/v4/accounts/shop/queues", fixture.broker.url());
    let rows = [
        ("", "GET,HEAD"),
        ("/orders", "GET,HEAD"),
        ("/orders/consumers", "GET,HEAD"),
        ("/orders/consumers/orders", "GET,HEAD"),
        ("/orders/metrics", "GET,HEAD"),
        ("/orders/messages", "POST"),
        ("/orders/messages/pull", "POST"),
        ("/orders/messages/ack", "POST"),
        ("/orders/purge", "POST,GET,HEAD"),
    ];
    let mut urls = rows.map(|(path, allow)| (format!("{queues}{path}"), allow)).to_vec();
    urls.push((format!("{}/readyz", fixture.broker.admin_url()), "GET,HEAD"));
    for (url, allow) in urls {
        let request = http.request(Method::OPTIONS, &url).header("origin", "http://elsewhere");
        let answer = request.header("access-control-request-method", "POST").send().await.unwrap();
        let headers = answer.headers().clone();
        assert_eq!((answer.status().as_u16(), headers["allow"].to_str().unwrap()), (405, allow), "{url}");
        assert!(!headers.contains_key("access-control-allow-origin"), "{url}");
        let envelope: Value = answer.json().await.unwrap();
        assert_eq!(envelope["errors"][0]["code"], 7003, "{url}: {envelope}");
    }
}
