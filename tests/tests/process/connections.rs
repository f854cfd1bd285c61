//! Clients that take too much: connections without end, and requests that are never finished.

use std::net::TcpStream;

use capstan_api::ClientError;
use serde_json::json;

use crate::fixture::{Fixture, NAMESPACE, message_of, name, queue, until};
use crate::wire::Connection;

#[tokio::test]
async fn connections_without_end_do_not_take_the_stores_files() {
    let mut fixture = Fixture::with_open_files(64, &[queue("orders", 3, json!({}))]).await;
    let mut first = Connection::open(fixture.broker.address());
    // Enough for the store to write tables, for which it opens files.
    let batch = json!({ "messages": vec![json!({ "body": "x".repeat(120_000) }); 2] });
    assert_eq!(first.post("messages/batch", &batch).0, 200);
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
        assert_eq!(first.post("messages/batch", &batch).0, 200, "round {round}:\n{}", fixture.broker.log());
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
