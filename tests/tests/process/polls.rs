//! Ten thousand pulls that wait: what they cost, that others are served beside them, and that each is answered.

use std::time::{Duration, Instant};

use capstan_api::message::SendBatch;
use e2e::process::progress;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::fixture::{Fixture, NAMESPACE, message_of, name, queue, until};
use crate::wire::Connection;

/// The broker takes 9,936 connections; some are kept for the test's own client.
const POLLS: u64 = 9_900;
/// Fewer would say little.
const POLLS_MIN: u64 = 500;
/// What the test and the broker each need besides.
const OTHER_FILES: u64 = 1_200;
/// Most memory for one poll that waits. Its connection's buffers are the system's and not counted.
const POLL_BYTES_MAX: u64 = 24 << 10;
/// The system's allocator gives little back, and uses it again: so much is kept for each poll that there was at once.
const KEPT_BYTES_MAX: u64 = 40 << 10;
/// An answer to others, beside other tests and builds.
const OTHERS_MAX: Duration = Duration::from_secs(5);

/// As many polls as this machine's limit of open files allows.
fn polls() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let most = maximum.unwrap_or(u64::MAX).min(32_768);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }).unwrap();
    let polls = most.saturating_sub(OTHER_FILES).min(POLLS);
    assert!(polls >= POLLS_MIN, "the hard limit of open files is {most}: raise it (ulimit -Hn)");
    polls
}

fn begin(fixture: &Fixture, count: u64) -> Vec<Connection> {
    let pull = json!({ "batch_size": 1, "wait_ms": 60_000 }).to_string();
    let mut connections: Vec<Connection> =
        (0..count).map(|_| Connection::open(fixture.broker.address())).collect();
    for connection in &mut connections {
        connection.begin("messages/pull", pull.len(), pull.as_bytes());
    }
    connections
}

async fn metric_is(fixture: &Fixture, series: &str, value: u64) {
    let look = async || (fixture.metric(series).await as u64 == value).then_some(());
    until(&format!("{series} is {value}"), look).await;
}

/// One message from end to end on a queue that nobody waits for.
async fn others_are_served(fixture: &Fixture) {
    let asked = Instant::now();
    fixture.send("other", json!({ "body": 1 })).await;
    let pulled = fixture.pull("other", 1).await.messages;
    assert_eq!(fixture.ack("other", &[&pulled[0].lease_id]).await.ack_count, 1);
    let took = asked.elapsed();
    assert!(took < OTHERS_MAX, "send, pull and ack took {took:?}");
}

async fn send_all(fixture: &Fixture, count: u64) {
    let message = message_of(&json!({ "body": "x" }));
    let mut left = count;
    while left > 0 {
        let part = left.min(100);
        let messages = vec![message.clone(); usize::try_from(part).unwrap()];
        let batch = SendBatch { messages, delay_seconds: None };
        fixture.client.send_batch(&name(NAMESPACE), &name("orders"), &batch).await.unwrap();
        left -= part;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_polls_cost_little_and_each_is_answered() {
    let count = polls();
    let fixture = Fixture::new(&[queue("orders", 3, json!({})), queue("other", 3, json!({}))]).await;
    others_are_served(&fixture).await;
    let before = fixture.broker.memory();

    let polls = begin(&fixture, count);
    metric_is(&fixture, "capstan_pulls_waiting", count).await;
    let waiting = fixture.broker.memory().saturating_sub(before);
    progress(&format!("polls: {count} waiting take {} MiB, {} bytes each", waiting >> 20, waiting / count));
    assert!(waiting < count * POLL_BYTES_MAX, "{} bytes for a poll", waiting / count);
    others_are_served(&fixture).await;
    // All go away without a message.
    drop(polls);
    metric_is(&fixture, "capstan_pulls_waiting", 0).await;

    let polls = begin(&fixture, count);
    metric_is(&fixture, "capstan_pulls_waiting", count).await;
    send_all(&fixture, count).await;
    let mut ids = std::collections::BTreeSet::new();
    for mut poll in polls {
        let (status, text) = poll.answer().expect("an answer");
        let envelope: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(status, 200, "{text}");
        let messages = envelope["result"]["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 1, "{text}");
        ids.insert(messages[0]["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len() as u64, count, "each message once");
    let open = "capstan_connections{port=\"api\"}";
    until("the connections are gone", async || (fixture.metric(open).await <= 4.0).then_some(())).await;
    let kept = fixture.broker.memory().saturating_sub(before);
    progress(&format!("polls: {} MiB are kept when all were answered", kept >> 20));
    assert!(kept < count * KEPT_BYTES_MAX, "{} bytes for a poll", kept / count);
    others_are_served(&fixture).await;
}
