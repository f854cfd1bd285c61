//! Pulls that wait: who gets what, what a client that goes away leaves behind, and what the end of the broker means.

use std::time::{Duration, Instant};

use capstan_api::message::{PULL_HEADER, Pull, Pulled, SendBatch};
use capstan_api::number::Whole;
use capstan_api::{Client, ClientError};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::fixture::{DEADLINE, Fixture, NAMESPACE, message_of, name, queue, until};

/// Longer than any of these tests may take.
const LONG: u64 = 60_000;

fn waiting(client: &Client, count: u64, wait_ms: u64) -> JoinHandle<Result<Pulled, ClientError>> {
    let pull = Pull {
        batch_size: Some(Whole(count)),
        wait_ms: Some(Whole(wait_ms)),
        idle_ms: Some(Whole(LONG)),
        ..Pull::default()
    };
    let client = client.clone();
    tokio::spawn(async move { client.pull(&name(NAMESPACE), &name("orders"), &pull).await })
}

async fn answer(pull: JoinHandle<Result<Pulled, ClientError>>) -> Pulled {
    tokio::time::timeout(DEADLINE / 2, pull).await.expect("an answer in time").unwrap().unwrap()
}

/// Waits until so many pulls wait in the broker.
async fn waiting_are(fixture: &Fixture, count: f64) {
    metric_is(fixture, "capstan_pulls_waiting", count).await;
}

async fn metric_is(fixture: &Fixture, series: &str, value: f64) {
    let look = async || (fixture.metric(series).await == value).then_some(());
    until(&format!("{series} is {value}"), look).await;
}

#[tokio::test]
async fn the_oldest_waiter_is_served_first_and_at_once() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let first = waiting(&fixture.client, 1, 0);
    waiting_are(&fixture, 1.0).await;
    let second = waiting(&fixture.client, 1, 0);
    waiting_are(&fixture, 2.0).await;
    let began = Instant::now();
    fixture.send("orders", json!({"body": "one"})).await;
    assert_eq!(answer(first).await.messages.len(), 1);
    assert!(!second.is_finished(), "there was one message");
    fixture.send("orders", json!({"body": "two"})).await;
    assert_eq!(answer(second).await.messages.len(), 1);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "a message wakes who waits, it is not found by chance"
    );
}

#[tokio::test]
async fn a_batch_gathers_until_it_is_full() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let pull = waiting(&fixture.client, 3, LONG);
    waiting_are(&fixture, 1.0).await;
    for n in 1..=3 {
        assert!(!pull.is_finished(), "with {} of 3", n - 1);
        fixture.send("orders", json!({ "body": n })).await;
    }
    assert_eq!(answer(pull).await.messages.len(), 3);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_its_messages_to_others() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let gone = waiting(&fixture.broker.client(), 10, 0);
    waiting_are(&fixture, 1.0).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    waiting_are(&fixture, 0.0).await;
    fixture.send("orders", json!({"body": "one"})).await;
    let state = fixture.queue("orders").await;
    assert_eq!((state.ready, state.leased, state.totals.delivered), (1, 0, 0), "nothing is leased to nobody");
    let pulled = fixture.pull("orders", 10).await.messages;
    assert_eq!((pulled.len(), pulled[0].attempts), (1, 1));
}

/// A client that lost its connection may pull again with the same token while the broker still holds its first pull.
#[tokio::test]
async fn a_cancel_answers_each_pull_of_its_queue_and_token_and_no_other() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({})), queue("other", 3, json!({}))]).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = |queue: &str, action: &str, token: &str, body: String| {
        let url = format!("{}/accounts/{NAMESPACE}/queues/{queue}/{action}", fixture.base_url());
        let request = http.post(url).header(PULL_HEADER, token).body(body);
        async move {
            let answer = request.send().await.unwrap().error_for_status().unwrap();
            answer.json::<Value>().await.unwrap()["result"].take()
        }
    };
    let pull = |queue: &str, token: &str| {
        tokio::spawn(post(queue, "messages/pull", token, json!({ "idle_ms": LONG }).to_string()))
    };
    let called_off = [pull("orders", "one"), pull("orders", "one")];
    let others = [pull("other", "one"), pull("orders", "two")];
    waiting_are(&fixture, 4.0).await;
    let cancel = async |queue: &str, token: &str| {
        post(queue, "messages/pull/cancel", token, String::new()).await["cancelled"].as_bool().unwrap()
    };
    assert!(!cancel("other", "two").await, "that token is another queue's");
    assert!(cancel("orders", "one").await);
    for pull in called_off {
        let answer = tokio::time::timeout(DEADLINE / 2, pull).await.expect("an answer in time").unwrap();
        assert_eq!(answer["messages"], json!([]));
    }
    waiting_are(&fixture, 2.0).await;
    assert!(!cancel("orders", "one").await, "they are over");
    for (queue, pull) in ["other", "orders"].into_iter().zip(others) {
        fixture.send(queue, json!({ "body": queue })).await;
        let answer = tokio::time::timeout(DEADLINE / 2, pull).await.expect("an answer in time").unwrap();
        assert_eq!(answer["messages"].as_array().unwrap().len(), 1, "{queue}: it waited on");
    }
}

#[tokio::test]
async fn the_end_of_the_broker_answers_who_waits() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let pulls: Vec<_> = (0..5).map(|_| waiting(&fixture.client, 10, LONG)).collect();
    waiting_are(&fixture, 5.0).await;
    let began = Instant::now();
    fixture.broker.terminate();
    for pull in pulls {
        assert_eq!(answer(pull).await.messages.len(), 0);
    }
    let (status, log) = fixture.broker.ended();
    assert!(status.success(), "{status}\n{log}");
    assert!(began.elapsed() < Duration::from_secs(8), "it ended by itself, not by the limit of its drain");
    assert!(log.to_string().contains("store closed"), "{log}");
}

#[tokio::test]
async fn who_waits_learns_that_the_queue_is_paused() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let pull = waiting(&fixture.client, 1, 0);
    waiting_are(&fixture, 1.0).await;
    fixture.declare("paused", &[queue("orders", 3, json!({"delivery_paused": true}))]).await;
    let refused =
        tokio::time::timeout(DEADLINE / 2, pull).await.expect("an answer in time").unwrap().unwrap_err();
    assert_eq!(refused.code(), Some(10252), "{refused}");
}

#[tokio::test]
async fn sidecars_learn_of_changes_and_of_the_end() {
    let pushed = |size: u32| {
        queue(
            "orders",
            3,
            json!({"consumer": {"push": {
                "workload": { "kind": "Deployment", "name": "shop" },
                "endpoint": { "port": 8080, "path": "/", "timeout_ms": 60_000 },
                "max_batch_size": size, "max_batch_bytes": 1000, "max_wait_ms": 0, "concurrency_per_pod": 1,
            }}}),
        )
    };
    let fixture = Fixture::new(&[pushed(10)]).await;
    let ask = |revision: &str| {
        let (client, revision) = (fixture.client.clone(), revision.to_owned());
        let workload = "Deployment/shop".parse().unwrap();
        let long = Duration::from_millis(LONG);
        tokio::spawn(async move {
            client.workload_consumers(&name(NAMESPACE), &workload, &revision, long).await.unwrap()
        })
    };
    let first = ask("").await.unwrap();
    assert_eq!(first.consumers[0].max_batch_size, 10);
    let news = ask(&first.revision);
    metric_is(&fixture, "capstan_sidecars_waiting", 1.0).await;
    fixture.declare("2", &[pushed(20)]).await;
    let news = tokio::time::timeout(DEADLINE / 2, news).await.expect("news in time").unwrap();
    assert_eq!(news.consumers[0].max_batch_size, 20);
    // Nothing changes but the other parts of the declaration.
    let none = ask(&news.revision);
    fixture.declare("3", &[pushed(20), queue("other", 1, json!({}))]).await;
    metric_is(&fixture, "capstan_sidecars_waiting", 1.0).await;
    fixture.broker.terminate();
    let same = tokio::time::timeout(DEADLINE / 2, none).await.expect("an answer at the end").unwrap();
    assert_eq!(same, news);
    assert!(fixture.broker.ended().0.success());
}

/// A hundred messages of a mebibyte are more than one answer carries.
#[tokio::test]
async fn a_pull_carries_what_one_answer_can_and_the_next_one_the_rest() {
    const SIZE: usize = 1 << 20;
    const COUNT: usize = 20;
    let fixture = Fixture::new(&[queue("orders", 3, json!({"max_message_bytes": SIZE}))]).await;
    let message = message_of(&json!({ "body": "x".repeat(SIZE), "content_type": "text" }));
    for _ in 0..COUNT / 2 {
        let batch = SendBatch { messages: vec![message.clone(), message.clone()], delay_seconds: None };
        fixture.client.send_batch(&name(NAMESPACE), &name("orders"), &batch).await.unwrap();
    }
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < COUNT {
        let pulled = fixture.pull("orders", 100).await.messages;
        assert!(!pulled.is_empty() && pulled.iter().all(|one| one.body.len() == SIZE));
        sizes.push(pulled.len());
    }
    assert_eq!(sizes, [8, 8, 4], "eight mebibytes at most");
}
