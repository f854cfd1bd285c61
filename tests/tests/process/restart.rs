//! What a restart keeps: everything, however the process ended.

use capstan_api::control::QueueState;
use capstan_api::message::{Peek, PeekedMessage, Pull};
use capstan_api::number::Whole;
use e2e::process::Broker;
use serde_json::{Value, json};

use crate::fixture::{DEADLINE, Fixture, NAMESPACE, json_of, name, queue, until};

/// `orders` sends its dead letters to `letters`, `stuck` to a queue that takes none.
fn queues() -> Vec<Value> {
    vec![
        queue("orders", 1, json!({"consumer": {"dead_letter_queue": "letters"}})),
        queue("letters", 1, json!({})),
        queue("stuck", 0, json!({"consumer": {"dead_letter_queue": "full"}})),
        queue("full", 0, json!({"max_messages": 0})),
    ]
}

/// Brings messages into every state there is.
async fn fill(fixture: &Fixture) -> Vec<String> {
    // A dead letter: it fails twice.
    fixture.send("orders", json!({"body": "bad"})).await;
    for attempt in 1..=2 {
        let pulled = fixture.pull("orders", 1).await.messages;
        assert_eq!(pulled[0].attempts, attempt);
        fixture.retry("orders", &pulled[0].lease_id, None).await;
    }
    // One that cannot become a dead letter.
    fixture.send("stuck", json!({"body": "stuck"})).await;
    let pulled = fixture.pull("stuck", 1).await.messages;
    fixture.retry("stuck", &pulled[0].lease_id, None).await;
    // Leased, one of them for the second time; and one that waits for its second.
    for body in ["leased", "twice", "later"] {
        fixture.send("orders", json!({ "body": body })).await;
    }
    let pulled = fixture.pull("orders", 3).await.messages;
    fixture.retry("orders", &pulled[1].lease_id, None).await;
    fixture.retry("orders", &pulled[2].lease_id, Some(3_600)).await;
    let again = fixture.pull("orders", 1).await.messages;
    // Delayed by its sender, and ready.
    fixture.send("orders", json!({"body": "delayed", "delay_seconds": 3_600})).await;
    fixture.send("orders", json!({"body": "ready", "attributes": {"traceparent": "00-1"}})).await;
    vec![pulled[0].lease_id.clone(), again[0].lease_id.clone()]
}

/// All that a client can see, without what only time changes.
async fn seen(fixture: &Fixture) -> Vec<(QueueState, Vec<PeekedMessage>)> {
    let state = fixture.control.state().await.unwrap();
    let mut seen = Vec::new();
    for queue in state.queues {
        let peek = Peek { batch_size: Some(Whole(100)) };
        let peeked = fixture.client.peek(&name(NAMESPACE), &queue.name, &peek).await.unwrap();
        // Ages grow, and totals count from the process's start.
        let queue = QueueState { oldest_age_ms: None, totals: Default::default(), ..queue };
        seen.push((queue, peeked.messages));
    }
    seen
}

async fn survives(end: impl FnOnce(Broker)) {
    let fixture = Fixture::new(&queues()).await;
    let leases = fill(&fixture).await;
    let (before, state) = (seen(&fixture).await, fixture.control.state().await.unwrap());
    let find = |name: &str| before.iter().find(|(queue, _)| queue.name.as_str() == name).unwrap().0.clone();
    let (orders, letters, stuck) = (find("orders"), find("letters"), find("stuck"));
    assert_eq!((orders.ready, orders.delayed, orders.leased, orders.dead), (1, 2, 2, 0));
    assert_eq!((letters.ready, stuck.dead), (1, 1));

    let fixture = fixture.again(end);
    let after = fixture.control.state().await.unwrap();
    assert_eq!((after.revision, after.incarnation), (state.revision, state.incarnation));
    assert_eq!(seen(&fixture).await, before, "states, counts, attempts, ids, refs and attributes are kept");

    // The leases of before settle what they lease.
    let settled = fixture.ack("orders", &[&leases[0], &leases[1]]).await;
    assert_eq!((settled.ack_count, settled.warnings.len()), (2, 0), "{settled:?}");
    let ready = fixture.pull("orders", 10).await.messages;
    assert_eq!(ready.iter().map(|one| json_of(&one.body)).collect::<Vec<_>>(), ["ready"]);
    assert_eq!(ready[0].attributes["traceparent"], "00-1");
    let letter = fixture.pull("letters", 10).await.messages;
    assert_eq!((letter.len(), letter[0].attempts), (1, 1));
    assert_eq!(letter[0].metadata["capstan-dead-letter-queue"], "orders");
    assert_eq!(letter[0].metadata["capstan-dead-letter-attempts"], "2");

    // With room in its dead-letter queue, the dead one goes on by itself.
    let mut queues = queues();
    queues[3] = queue("full", 0, json!({}));
    fixture.declare("2", &queues).await;
    until("the dead letter moves on", async || (fixture.queue("full").await.ready == 1).then_some(())).await;
    assert_eq!(fixture.queue("stuck").await.dead, 0);
}

#[tokio::test]
async fn everything_survives_an_orderly_end() {
    survives(Broker::stop).await;
}

/// SIGHUP alone would end it at once, and not with success.
#[tokio::test]
async fn a_hangup_is_ignored() {
    survives(|broker| {
        broker.hang_up();
        broker.stop();
    })
    .await;
}

#[tokio::test]
async fn everything_survives_a_kill() {
    survives(Broker::kill).await;
}

/// A lease of two seconds, and a broker that is away for longer than that.
#[tokio::test]
async fn an_outage_takes_nothing_of_a_lease_and_no_attempt() {
    let fixture = Fixture::new(&queues()).await;
    fixture.send("orders", json!({"body": 1})).await;
    let pull = Pull { visibility_timeout_ms: Some(Whole(2_000)), ..Pull::default() };
    let orders = name("orders");
    let leased = fixture.client.pull(&name(NAMESPACE), &orders, &pull).await.unwrap().messages;
    let fixture = fixture.again(|broker| {
        broker.kill();
        // The outage itself.
        std::thread::sleep(std::time::Duration::from_millis(2_500));
    });
    let queue = fixture.queue("orders").await;
    assert_eq!((queue.leased, queue.ready), (1, 0), "the lease ended while the broker was away");
    assert_eq!(queue.totals.lease_expired, 0);
    // It ends all the same when its time is over, and only then an attempt is spent.
    let again = Pull { idle_ms: Some(Whole(30_000)), ..Pull::default() };
    let shop = name(NAMESPACE);
    let again = tokio::time::timeout(DEADLINE, fixture.client.pull(&shop, &orders, &again)).await;
    let again = again.unwrap().unwrap().messages;
    assert_eq!((again.len(), again[0].attempts), (1, 2));
    assert_eq!(again[0].id, leased[0].id);
    // The first lease is late now: its retry is ignored, its ack counts.
    let late = fixture.retry("orders", &leased[0].lease_id, None).await;
    assert_eq!((late.retry_count, late.warnings.len()), (0, 1));
    let late = fixture.ack("orders", &[&leased[0].lease_id]).await;
    assert_eq!((late.ack_count, late.warnings.len()), (1, 1));
    assert_eq!(fixture.queue("orders").await.leased, 0);
}

/// A queue that is no longer declared keeps its messages over restarts, and gives them back when it is declared again.
#[tokio::test]
async fn a_retained_queue_stays_retained_and_is_adopted() {
    let fixture = Fixture::new(&queues()).await;
    fixture.send("orders", json!({"body": 1})).await;
    fixture.declare("without", &queues()[1..]).await;
    let fixture = fixture.again(Broker::kill);
    let kept = fixture.queue("orders").await;
    assert!(kept.retained && kept.ready == 1, "{kept:?}");
    let refused = fixture.client.pull(&name(NAMESPACE), &name("orders"), &Pull::default()).await.unwrap_err();
    assert_eq!(refused.code(), Some(10104), "{refused}");
    fixture.declare("with", &queues()).await;
    assert_eq!(fixture.pull("orders", 5).await.messages.len(), 1);
}
