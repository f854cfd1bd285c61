//! Clients that ask and never read: what their answers hold of the broker's memory, and that others are served.

use std::time::{Duration, Instant};

use capstan_api::message::SendBatch;
use e2e::process::progress;
use serde_json::json;

use crate::fixture::{Fixture, NAMESPACE, message_of, name, queue};
use crate::wire::Connection;

const CLIENTS: u64 = 20;
/// An answer carries eight mebibytes of bodies at most; here they are text, and take as much on the wire.
const MESSAGES: usize = 10;
const SIZE: usize = 1 << 20;
/// One answer for each connection, however many requests are waiting in it; and what its making needs.
const EACH_MAX: u64 = 24 << 20;
/// An answer of which nothing is taken is given up after a minute.
const GIVEN_UP_MAX: Duration = Duration::from_secs(100);
/// Three answers to others, beside other tests and builds.
const OTHERS_MAX: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_hold_one_answer_each_and_end() {
    let fixture =
        Fixture::new(&[queue("orders", 3, json!({"max_message_bytes": SIZE})), queue("other", 3, json!({}))])
            .await;
    let message = message_of(&json!({ "body": "x".repeat(SIZE), "content_type": "text" }));
    for _ in 0..MESSAGES / 2 {
        let batch = SendBatch { messages: vec![message.clone(), message.clone()], delay_seconds: None };
        fixture.client.send_batch(&name(NAMESPACE), &name("orders"), &batch).await.unwrap();
    }
    let before = fixture.broker.memory();
    let look = json!({ "batch_size": 100 }).to_string();
    let began = Instant::now();
    let mut clients: Vec<Connection> =
        (0..CLIENTS).map(|_| Connection::open(fixture.broker.address())).collect();
    for client in &mut clients {
        for _ in 0..5 {
            client.begin("messages/peek", look.len(), look.as_bytes());
        }
    }
    // The first round waits while the answers are made, which takes the processor; from then on they only lie there.
    let (mut most, mut slowest, mut rounds) = (0, Duration::ZERO, 0);
    let open = "capstan_connections{port=\"api\"}";
    loop {
        most = most.max(fixture.broker.memory());
        let asked = Instant::now();
        fixture.send("other", json!({ "body": 1 })).await;
        let pulled = fixture.pull("other", 1).await.messages;
        fixture.ack("other", &[&pulled[0].lease_id]).await;
        if rounds > 0 {
            slowest = slowest.max(asked.elapsed());
        }
        rounds += 1;
        if fixture.metric(open).await <= 4.0 {
            break;
        }
        assert!(began.elapsed() < GIVEN_UP_MAX, "unread answers are still held");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let each = most.saturating_sub(before) / CLIENTS;
    progress(&format!(
        "unread: {} MiB before, {} MiB at most with {CLIENTS} unread answers, {} MiB after {:?}; others waited {slowest:?}",
        before >> 20,
        most >> 20,
        fixture.broker.memory() >> 20,
        began.elapsed(),
    ));
    assert!(each < EACH_MAX, "{each} bytes for each client that does not read");
    assert!(
        each > 4 << 20 && rounds > 10,
        "answers were held while others were served: {rounds} rounds, {each} bytes"
    );
    assert!(slowest < OTHERS_MAX, "others waited {slowest:?}");
    drop(clients);
}
