//! Clients that take too much: connections without end, and requests that are never finished.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use capstan_api::ClientError;
use serde_json::{Value, json};

use crate::fixture::{Fixture, NAMESPACE, message_of, name, queue, until};

/// Of an answer that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that lasts.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// Writes the head of a POST to `orders`, and `body`.
    fn begin(&mut self, action: &str, length: usize, body: &[u8]) {
        let path = format!("/client/v4/accounts/{NAMESPACE}/queues/orders/{action}");
        let head = format!("POST {path} HTTP/1.1\r\nhost: broker\r\ncontent-length: {length}\r\n\r\n");
        self.0.get_mut().write_all(head.as_bytes()).unwrap();
        self.0.get_mut().write_all(body).unwrap();
    }

    /// Posts; answers the status.
    fn post(&mut self, action: &str, body: &Value) -> u16 {
        let body = body.to_string();
        self.begin(action, body.len(), body.as_bytes());
        let mut line = || {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            line.trim_end().to_ascii_lowercase()
        };
        let status = line().split(' ').nth(1).expect("a status line").parse().unwrap();
        let mut length = 0;
        loop {
            let line = line();
            if line.is_empty() {
                break;
            }
            length = line.strip_prefix("content-length: ").map_or(length, |text| text.parse().unwrap());
        }
        self.0.read_exact(&mut vec![0; length]).unwrap();
        status
    }
}

#[tokio::test]
async fn connections_without_end_do_not_take_the_stores_files() {
    let mut fixture = Fixture::with_open_files(64, &[queue("orders", 3, json!({}))]).await;
    let mut first = Connection::open(fixture.broker.address());
    // Enough for the store to write tables, for which it opens files.
    let batch = json!({ "messages": vec![json!({ "body": "x".repeat(120_000) }); 2] });
    assert_eq!(first.post("messages/batch", &batch), 200);
    let others: Vec<TcpStream> =
        (0..150).map(|_| TcpStream::connect(fixture.broker.address()).unwrap()).collect();
    let refused = "capstan_connections_refused_total{port=\"api\"}";
    let all_seen = async || {
        let open = fixture.metric("capstan_connections{port=\"api\"}").await;
        (open + fixture.metric(refused).await >= 151.0).then_some(open)
    };
    let open = until("the broker has seen all connections", all_seen).await;
    assert!((2.0..32.0).contains(&open), "{open} connections of 64 descriptors");
    for round in 0..80 {
        assert_eq!(first.post("messages/batch", &batch), 200, "round {round}:\n{}", fixture.broker.log());
    }
    assert!(fixture.broker.is_running());
    drop(others);
    let message = message_of(&json!({ "body": "again" }));
    let sent = async || fixture.client.send(&name(NAMESPACE), &name("orders"), &message).await.ok();
    until("there is room for others again", sent).await;
    assert_eq!(fixture.queue("orders").await.totals.sent, 163);
}

#[tokio::test]
async fn sends_that_are_never_finished_are_bounded_and_verdicts_go_on() {
    const LENGTH: usize = 4 << 20;
    /// All of these fit, and leave no room.
    const COUNT: usize = 16;
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    fixture.send("orders", json!({ "body": 1 })).await;
    let lease = fixture.pull("orders", 1).await.messages.remove(0).lease_id;
    let (address, part) = (fixture.broker.address(), vec![b' '; LENGTH - 1]);
    let stalled: Vec<Connection> = std::thread::scope(|scope| {
        let begin = || {
            let mut connection = Connection::open(address);
            connection.begin("messages", LENGTH, &part);
            connection
        };
        let begun: Vec<_> = (0..COUNT).map(|_| scope.spawn(begin)).collect();
        begun.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let message = message_of(&json!({ "body": "x".repeat(120_000) }));
    let send = async || fixture.client.send(&name(NAMESPACE), &name("orders"), &message).await;
    let refused = async || send().await.err();
    match until("a send is refused while 64 MiB of others are on their way", refused).await {
        ClientError::Refused { status, errors, retry_after } => {
            assert_eq!((status, errors[0].code), (429, 10250), "{errors:?}");
            assert!(retry_after.is_some());
        }
        other => panic!("{other}"),
    }
    assert_eq!(fixture.ack("orders", &[&lease]).await.ack_count, 1);
    drop(stalled);
    until(&format!("{address} takes sends again"), async || send().await.ok()).await;
}
