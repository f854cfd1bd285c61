//! A queue whose messages go with its resource: by the right declaration, also when the broker is killed in the middle.

use std::time::Duration;

use capstan_api::control::{Declaration, QueueState};
use capstan_api::message::SendBatch;
use e2e::process::Broker;
use serde_json::{Value, json};

use crate::fixture::{Fixture, NAMESPACE, json_of, message_of, name, queue, until};

/// So many messages are many steps of a purge.
const BATCHES: usize = 150;
/// How often the broker is killed until it was in the middle of a purge.
const ROUNDS: usize = 20;

/// The queue `orders` of a resource, whose messages go at the word of `broker-1`.
fn orders(resource: &str) -> Value {
    queue("orders", 3, json!({ "resource": resource, "purged_by": "broker-1" }))
}

async fn declare(fixture: &Fixture, declarer: &str, queues: &[Value]) {
    let declaration: Declaration = serde_json::from_value(json!({
        "revision": format!("{:032x}", rand::random::<u128>()), "declarer": declarer, "queues": queues,
    }))
    .unwrap();
    fixture.control.declare(&declaration).await.unwrap();
}

async fn fill(fixture: &Fixture) {
    let batch = SendBatch { messages: vec![message_of(&json!({ "body": "old" })); 100], delay_seconds: None };
    for _ in 0..BATCHES {
        fixture.client.send_batch(&name(NAMESPACE), &name("orders"), &batch).await.unwrap();
    }
}

async fn state(fixture: &Fixture) -> Option<QueueState> {
    fixture.control.state().await.unwrap().queues.into_iter().find(|queue| queue.name.as_str() == "orders")
}

#[tokio::test]
async fn a_purge_that_was_killed_in_the_middle_is_ended_by_the_next_start() {
    let mut fixture = Fixture::new(&[]).await;
    declare(&fixture, "broker-1", &[orders("a")]).await;
    let mut seen = 0;
    for round in 0.. {
        assert!(round < ROUNDS, "the broker was never killed within a purge");
        fill(&fixture).await;
        declare(&fixture, "broker-1", &[]).await;
        // A queue that is purged stays until its records are gone.
        let is_within = state(&fixture).await.is_some();
        fixture = fixture.again(Broker::kill);
        seen += usize::from(is_within);
        let left = state(&fixture).await;
        assert_eq!(left.as_ref().map_or(0, |queue| queue.ready + queue.leased), 0, "none comes back");
        // Made anew, before the old records are gone or after.
        declare(&fixture, "broker-1", &[orders(&format!("b{round}"))]).await;
        assert_eq!(state(&fixture).await.unwrap().ready, 0);
        if seen == 2 {
            break;
        }
    }
    fixture.send("orders", json!({ "body": "new" })).await;
    let pulled = fixture.pull("orders", 100).await.messages;
    assert_eq!(pulled.iter().map(|one| json_of(&one.body)).collect::<Vec<_>>(), [json!("new")]);
    declare(&fixture, "broker-1", &[]).await;
    let forgotten = async || state(&fixture).await.is_none().then_some(());
    until("the queue is forgotten", forgotten).await;
}

#[tokio::test]
async fn only_the_declarer_that_had_it_takes_its_messages() {
    let fixture = Fixture::new(&[]).await;
    declare(&fixture, "broker-1", &[orders("a")]).await;
    fixture.send("orders", json!({ "body": "kept" })).await;
    // A declarer that was not told of everything yet, and one from before there were marks.
    for declarer in ["broker-2", ""] {
        declare(&fixture, declarer, &[]).await;
        let kept = state(&fixture).await.unwrap();
        assert_eq!((kept.retained, kept.ready), (true, 1), "{declarer:?}");
        let by = Duration::from_millis(kept.empty_by_ms.unwrap());
        let retention = by.saturating_sub(std::time::UNIX_EPOCH.elapsed().unwrap());
        let days = retention.as_secs_f64() / 86_400.0;
        assert!((3.9..=4.1).contains(&days), "it says when it is empty: {days}");
        declare(&fixture, declarer, &[orders("b")]).await;
        assert_eq!(state(&fixture).await.unwrap().ready, 1, "{declarer:?}");
    }
    // What another resource of the same name declares begins empty.
    declare(&fixture, "broker-1", &[orders("c")]).await;
    assert_eq!(state(&fixture).await.unwrap().ready, 0);
    assert_eq!(state(&fixture).await.unwrap().totals.purged, 1);
}

#[tokio::test]
async fn the_marks_of_a_declaration_are_bounded() {
    let fixture = Fixture::new(&[]).await;
    let long = "x".repeat(129);
    for more in [json!({ "resource": long }), json!({ "purged_by": long })] {
        let declaration: Declaration =
            serde_json::from_value(json!({ "revision": "2", "queues": [queue("orders", 3, more)] })).unwrap();
        let refused = fixture.control.declare(&declaration).await.unwrap_err();
        assert!(refused.to_string().contains("longer than 128 bytes"), "{refused}");
    }
}
