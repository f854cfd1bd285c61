//! What real clients rely on beyond their SDKs' types: how they look queues up, page, and read an unknown age.

use e2e::process::node;
use serde_json::{Value, json};

use crate::fixture::{Fixture, NAMESPACE, queue};

/// More than a page of Cloudflare's holds.
const MANY: usize = 45;

async fn many() -> Fixture {
    let queues: Vec<Value> = (0..MANY).map(|n| queue(&format!("q{n:02}"), 3, json!({}))).collect();
    Fixture::new(&queues).await
}

/// `GET …/queues` with a query: the names, and the information about the page.
async fn list(fixture: &Fixture, query: &str) -> (Vec<String>, Value) {
    let url = format!("{}/accounts/{NAMESPACE}/queues{query}", fixture.base_url());
    let envelope: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    assert_eq!(envelope["success"], true, "{envelope}");
    let names = envelope["result"].as_array().unwrap().iter().map(|q| q["queue_name"].as_str().unwrap());
    (names.map(str::to_owned).collect(), envelope["result_info"].clone())
}

/// An SDK's list makes one request and names no page.
#[tokio::test]
async fn a_list_without_a_page_is_whole() {
    let fixture = many().await;
    let (names, info) = list(&fixture, "").await;
    assert_eq!((names.len(), &info["total_count"], &info["total_pages"]), (MANY, &json!(MANY), &json!(1)));
    let url = format!("{}/accounts/{NAMESPACE}/queues/q00/consumers", fixture.base_url());
    let envelope: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    assert_eq!(
        (&envelope["result_info"]["total_count"], &envelope["result_info"]["page"]),
        (&json!(1), &json!(1))
    );
}

/// wrangler goes on while `page * per_page < total_count`; SDKs, until a page is empty.
#[tokio::test]
async fn paging_ends_for_those_who_count_and_for_those_who_wait_for_an_empty_page() {
    let fixture = many().await;
    for size in ["", "&per_page=20"] {
        let (mut seen, mut page) = (Vec::new(), 1);
        loop {
            let (names, info) = list(&fixture, &format!("?page={page}{size}")).await;
            seen.extend(names);
            if info["page"].as_u64().unwrap() * info["per_page"].as_u64().unwrap()
                >= info["total_count"].as_u64().unwrap()
            {
                break;
            }
            page += 1;
        }
        let expected: Vec<String> = (0..MANY).map(|n| format!("q{n:02}")).collect();
        assert_eq!(seen, expected, "{size}");
        assert_eq!(
            list(&fixture, &format!("?page={}{size}", page + 1)).await.0,
            [""; 0],
            "after the last page"
        );
    }
}

/// wrangler takes the first result of `?name=` for the queue, whatever it is called, and deletes it.
#[tokio::test]
async fn a_name_finds_its_queue_alone_and_several_names_find_each() {
    let fixture = many().await;
    assert_eq!(list(&fixture, "?page=1&name=q07").await.0, ["q07"]);
    assert_eq!(list(&fixture, "?page=1&name=q07&name=q31&name=none").await.0, ["q07", "q31"]);
    for nothing in ["none", "q0", "Q07", ""] {
        let (names, info) = list(&fixture, &format!("?page=1&name={nothing}")).await;
        assert_eq!((names.len(), &info["total_count"]), (0, &json!(0)), "{nothing:?}");
    }
}

#[tokio::test]
async fn an_empty_queue_has_no_oldest_message() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let url = format!("{}/accounts/{NAMESPACE}/queues/orders/metrics", fixture.base_url());
    let envelope: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    let empty = json!({"backlog_count": 0, "backlog_bytes": 0, "oldest_message_timestamp_ms": 0});
    assert_eq!(envelope["result"], empty);
    assert_eq!((&envelope["errors"], &envelope["messages"]), (&json!([]), &json!([])));
}

/// Node's serializer writes what the Workers runtime writes; the broker keeps every byte.
#[tokio::test]
async fn v8_and_bytes_come_back_as_they_were_sent() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let told = node("types.mjs", &[&fixture.base_url(), NAMESPACE, "orders"]);
    let told = told.as_object().unwrap();
    assert_eq!(told.len(), 9);
    for (name, content_type) in told {
        let expected = if name == "octets" { "bytes" } else { "v8" };
        assert_eq!(content_type, expected, "{name}");
    }
    assert_eq!(fixture.queue("orders").await.totals.acknowledged, 9);
}
