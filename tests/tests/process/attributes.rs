//! Attributes of messages: in the body, and from the headers of the request.

use serde_json::{Value, json};

use crate::fixture::{Fixture, NAMESPACE, queue};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn post(fixture: &Fixture, path: &str, headers: &[(&str, &str)], body: Value) -> (u16, Value) {
    let url = format!("{}/accounts/{NAMESPACE}/queues/orders/{path}", fixture.base_url());
    let mut request = reqwest::Client::new().post(url).body(body.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn headers_become_attributes_of_each_message_that_does_not_name_them() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let headers = [("traceparent", PARENT), ("Capstan-Attr-Tenant", "blue"), ("x-other", "no")];
    let (status, _) = post(&fixture, "messages", &headers, json!({"body": 1})).await;
    assert_eq!(status, 200);
    let own = json!({"messages": [{"body": 2, "attributes": {"tenant": "red"}}, {"body": 3}]});
    assert_eq!(post(&fixture, "messages/batch", &headers, own).await.0, 200);
    let pulled = fixture.pull("orders", 10).await.messages;
    let attributes: Vec<Value> = pulled.iter().map(|one| json!(one.attributes)).collect();
    let with = |tenant: &str| json!({"traceparent": PARENT, "tenant": tenant});
    assert_eq!(attributes, [with("blue"), with("red"), with("blue")]);
}

/// A proxy may add a header of its own to one that is there.
#[tokio::test]
async fn a_trace_state_in_parts_is_one_list_in_their_order() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let headers = [("tracestate", "b=2,a=1"), ("traceparent", PARENT), ("tracestate", "c=3")];
    assert_eq!(post(&fixture, "messages", &headers, json!({"body": 1})).await.0, 200);
    let pulled = fixture.pull("orders", 1).await.messages;
    assert_eq!(json!(pulled[0].attributes), json!({"traceparent": PARENT, "tracestate": "b=2,a=1,c=3"}));
    let twice = [("capstan-attr-tenant", "red"), ("capstan-attr-tenant", "blue")];
    let (status, body) = post(&fixture, "messages", &twice, json!({"body": 1})).await;
    let error = &body["errors"][0];
    assert_eq!((status, &error["source"]), (400, &json!({"header": "capstan-attr-tenant"})), "{body}");
}

#[tokio::test]
async fn headers_that_are_no_attributes_are_refused() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let long = "x".repeat(5000);
    for (name, value, text) in [
        ("capstan-attr-", "1", "1 to 64"),
        ("capstan-attr-a!b", "1", "1 to 64"),
        ("capstan-attr-long", long.as_str(), "at most 4096"),
        ("capstan-attr-umlaut", "ä", "visible ASCII"),
    ] {
        let (status, body) = post(&fixture, "messages", &[(name, value)], json!({"body": 1})).await;
        let error = &body["errors"][0];
        assert_eq!((status, error["code"].as_u64()), (400, Some(10203)), "{name}: {body}");
        assert!(error["message"].as_str().unwrap().contains(text), "{name}: {body}");
    }
    assert_eq!(fixture.queue("orders").await.ready, 0);
}
