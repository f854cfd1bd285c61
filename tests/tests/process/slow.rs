//! Clients that send a byte a second: they harm nobody, and end in bounded time with an answer that says why.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fixture::{Fixture, queue, until};
use crate::wire::{Connection, head};

/// Clients of each kind.
const COUNT: usize = 100;
/// The broker gives a body 30 s.
const ENDED_MAX: Duration = Duration::from_secs(45);
/// An answer to others, beside other tests and builds.
const OTHERS_MAX: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_a_second_harms_nobody_and_is_answered_in_bounded_time() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let address = fixture.broker.address();
    let open = || Connection::open(address);
    let mut heads: Vec<Connection> = (0..COUNT).map(|_| open()).collect();
    let mut bodies: Vec<Connection> = (0..COUNT).map(|_| open()).collect();
    for body in &mut bodies {
        assert!(body.write(head("messages", 1000).as_bytes()));
    }
    let (text, body) = (head("messages", 1000).into_bytes(), format!("{{\"body\":\"{}", "x".repeat(900)));
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    for second in 0.. {
        for one in &mut heads {
            assert!(one.write(&text[second..=second]), "a head may take 100 s");
        }
        let taken =
            bodies.iter_mut().filter_map(|one| one.write(&body.as_bytes()[second..=second]).then_some(()));
        if taken.count() == 0 || began.elapsed() > Duration::from_secs(31) {
            break;
        }
        let asked = Instant::now();
        fixture.send("orders", json!({ "body": second })).await;
        let pulled = fixture.pull("orders", 10).await.messages;
        assert_eq!(pulled.len(), 1);
        assert_eq!(fixture.ack("orders", &[&pulled[0].lease_id]).await.ack_count, 1);
        slowest = slowest.max(asked.elapsed());
        // The pace of these clients is what is tested.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("slow clients: others waited {slowest:?} at most");
    assert!(slowest < OTHERS_MAX, "others waited {slowest:?} for three answers");
    for one in &mut bodies {
        let (status, text) = one.answer().expect("an answer before the end");
        let envelope: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, &envelope["errors"][0]["code"]), (400, &json!(10208)), "{text}");
        let message = envelope["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("did not arrive within 30 s"), "{message}");
    }
    assert!(began.elapsed() < ENDED_MAX, "bodies ended after {:?}", began.elapsed());
    drop((heads, bodies));
    let open = "capstan_connections{port=\"api\"}";
    // Those of the fixture's own client stay.
    until("all are gone", async || (fixture.metric(open).await <= 4.0).then_some(())).await;
    assert_eq!(fixture.queue("orders").await.totals.acknowledged, fixture.queue("orders").await.totals.sent);
}
