//! Clients that ask and never read: what their answers hold of the broker's memory, that others are served, and that they
//! are cut off.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use capstan_api::message::{Peek, SendBatch};
use capstan_api::number::Whole;
use e2e::process::progress;
use serde_json::json;

use crate::fixture::{Fixture, NAMESPACE, message_of, name, queue};
use crate::wire::Connection;

const CLIENTS: u64 = 20;
/// An answer carries eight mebibytes of bodies at most; here they are text, and take as much on the wire.
const MESSAGES: usize = 10;
const SIZE: usize = 1 << 20;
/// Looks may hold 32 MiB of bodies, and one answer more; as much again while answers are made, and what the allocator keeps.
const ALL_MAX: u64 = 160 << 20;
/// They are cut off after five seconds; a minute later the system would give them up.
const GIVEN_UP_MAX: Duration = Duration::from_secs(40);
/// Three answers to others, beside other tests and builds.
const OTHERS_MAX: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_are_bounded_and_cut_off() {
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
    // Their looks are refused while the unread ones hold the room; then these are cut off.
    let look = Peek { batch_size: Some(Whole(1)) };
    let (mut most, mut slowest, mut refused) = (0, Duration::ZERO, 0);
    loop {
        most = most.max(fixture.broker.memory());
        let asked = Instant::now();
        fixture.send("other", json!({ "body": 1 })).await;
        let pulled = fixture.pull("other", 1).await.messages;
        fixture.ack("other", &[&pulled[0].lease_id]).await;
        slowest = slowest.max(asked.elapsed());
        match fixture.client.peek(&name(NAMESPACE), &name("orders"), &look).await {
            Ok(_) if refused > 0 => break,
            Ok(_) => {}
            Err(error) if error.code() == Some(10250) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(
            began.elapsed() < GIVEN_UP_MAX,
            "unread answers are still held, {refused} looks were refused"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let all = most.saturating_sub(before);
    progress(&format!(
        "unread: {} MiB before, {} MiB at most with {CLIENTS} unread answers, {} MiB after {:?}; others waited {slowest:?}",
        before >> 20,
        most >> 20,
        fixture.broker.memory() >> 20,
        began.elapsed(),
    ));
    assert!(all < ALL_MAX, "{all} bytes for clients that do not read");
    assert!(all > 16 << 20, "answers were held: {all} bytes");
    assert!(slowest < OTHERS_MAX, "others waited {slowest:?}");
    drop(clients);
}

/// So many that their states are some mebibytes.
const QUEUES: usize = 8_000;
/// Clients at the admin port, of 64 that it takes: more than those whose states are 64 MiB.
const STATES: usize = 40;
/// How long they go on: longer than until the first are cut off.
const LASTS: Duration = Duration::from_secs(8);

/// As the operator does, which holds the number of pods when it hears nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_queues_hears_of_them_while_others_take_no_states() {
    let queues: Vec<_> = (0..QUEUES).map(|number| queue(&format!("q{number}"), 3, json!({}))).collect();
    let fixture = Fixture::new(&queues).await;
    let url = fixture.broker.admin_url();
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut since = fixture.control.changes("", Duration::ZERO).await.unwrap().version;
    let (began, mut clients, mut refused) = (Instant::now(), Vec::new(), 0);
    while began.elapsed() < LASTS {
        if clients.len() > STATES {
            clients.drain(..STATES / 4);
        }
        for _ in 0..STATES / 4 {
            let mut client = TcpStream::connect(address).unwrap();
            // The system takes the first answers.
            client.write_all(&b"GET /control/v1/state HTTP/1.1\r\nhost: broker\r\n\r\n".repeat(8)).unwrap();
            clients.push(client);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        refused += usize::from(fixture.control.state().await.is_err());
        fixture.send("q7", json!({ "body": 1 })).await;
        let changes = fixture.control.changes(&since, OTHERS_MAX).await.unwrap();
        assert_eq!(changes.queues.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>(), ["q7"]);
        since = changes.version;
    }
    assert!(refused > 0, "there was room for all states");
}
