//! Heads of requests that are no HTTP, or too much of it: refused, closed, and nobody else is harmed.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::fixture::{Fixture, queue};
use crate::wire::{Connection, head};

/// The broker gives a body 30 s; this is for an answer that does not wait for it.
const AT_ONCE: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_head_that_is_wrong_or_too_large_is_refused_and_its_connection_closed() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let address = fixture.broker.address();
    let get = |rest: &str| format!("GET /client/v4/accounts/shop/queues HTTP/1.1\r\nhost: x\r\n{rest}\r\n");
    let fields = |count: usize| (0..count).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let long = |bytes: usize| format!("x-long: {}\r\n", "y".repeat(bytes));
    // What common proxies add fits easily.
    for taken in [fields(90), long(32 << 10)] {
        let mut connection = Connection::open(address);
        assert!(connection.write(get(&taken).as_bytes()));
        assert_eq!(connection.answer().expect("an answer").0, 200);
    }
    let rows: [(&str, Vec<u8>, &[u16]); 8] = [
        ("too many fields", get(&fields(200)).into(), &[431]),
        ("a long field", get(&long(300 << 10)).into(), &[431]),
        (
            "a long path",
            format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "p".repeat(300 << 10)).into(),
            &[414, 431],
        ),
        ("no HTTP", b"hello broker\r\n\r\n".to_vec(), &[400]),
        ("bytes", vec![0xff; 4096], &[400]),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &[400]),
        ("two lengths", get("content-length: 5\r\ncontent-length: 6\r\n").into(), &[400]),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[400, 505]),
    ];
    for (what, bytes, expected) in rows {
        let mut connection = Connection::open(address);
        // It may be cut off while it writes.
        let _ = connection.write(&bytes);
        if let Some((status, text)) = connection.answer() {
            println!("{what}: {status} {text:?}");
            assert!(expected.contains(&status), "{what}: {status} {text}");
        } else {
            println!("{what}: closed without an answer");
        }
        assert!(connection.is_closed(), "{what}");
    }
    fixture.send("orders", json!({ "body": 1 })).await;
    assert_eq!(fixture.pull("orders", 1).await.messages.len(), 1);
}

#[tokio::test]
async fn chunked_and_pipelined_requests_are_answered_in_turn() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let mut connection = Connection::open(fixture.broker.address());
    let path = "/client/v4/accounts/shop/queues/orders/messages";
    let chunked = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{{\"bod\r\n6\r\ny\": 1}}\r\n0\r\n\r\n"
    );
    assert!(connection.write(chunked.repeat(10).as_bytes()));
    for _ in 0..10 {
        assert_eq!(connection.answer().expect("an answer").0, 200);
    }
    let broken = format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n");
    assert!(connection.write(broken.as_bytes()));
    let (status, text) = connection.answer().expect("an answer");
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("10208"), "{text}");
    assert_eq!(fixture.queue("orders").await.totals.sent, 10);
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_refused_before_it_comes() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let address = fixture.broker.address();
    let refused = |connection: &mut Connection, began: Instant| {
        let (status, text) = connection.answer().expect("an answer");
        assert_eq!(status, 400, "{text}");
        assert!(text.contains("10205") && text.contains("larger than"), "{text}");
        assert!(began.elapsed() < AT_ONCE, "after {:?}", began.elapsed());
    };
    for (action, length) in [("messages", 5 << 20), ("messages", 10 << 30), ("messages/ack", usize::MAX / 2)]
    {
        for begun in ["", "{\"body\":"] {
            let mut connection = Connection::open(address);
            connection.begin(action, length, begun.as_bytes());
            refused(&mut connection, Instant::now());
        }
    }
    // A client that asks first is not told to go on.
    let mut connection = Connection::open(address);
    let asking = head("messages", 5 << 20).replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
    assert!(connection.write(asking.as_bytes()));
    refused(&mut connection, Instant::now());
    // One that only writes reads the answer afterwards, on a connection that lasts.
    let mut connection = Connection::open(address);
    for _ in 0..2 {
        connection.begin("messages", 20 << 20, &vec![b' '; 20 << 20]);
        refused(&mut connection, Instant::now());
    }
    assert_eq!(connection.post("messages", &json!({ "body": 1 })).0, 200);
}
