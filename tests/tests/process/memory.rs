//! The memory of a sidecar with the largest batches there are: below what its container may have.

use capstan_api::message::SendBatch;
use e2e::process::Pod;
use serde_json::{Value, json};

use crate::application::{Application, done, never, pushed};
use crate::fixture::{Fixture, NAMESPACE, message_of, name, until};

/// The default limit of the container.
const LIMIT: u64 = 64 << 20;
/// The most that a Consumer can ask for.
const BATCH_BYTES: usize = 2_097_152;
const BATCH_SIZE: usize = 100;
const SLOTS: usize = 4;

/// Full batches for all slots, `rounds` times, of messages with this content type that are made of `part`.
async fn send(fixture: &Fixture, queue: &str, rounds: usize, content_type: &str, part: &str) {
    let bare = if content_type == "json" { 2 } else { 0 };
    let length = BATCH_BYTES / BATCH_SIZE - bare;
    let body = part.repeat(length / part.len());
    let message = message_of(&json!({ "body": body, "content_type": content_type }));
    for _ in 0..rounds * SLOTS * 10 {
        let batch = SendBatch { messages: vec![message.clone(); BATCH_SIZE / 10], delay_seconds: None };
        fixture.client.send_batch(&name(NAMESPACE), &name(queue), &batch).await.unwrap();
    }
}

fn consumer(queue: &str, port: u16) -> Value {
    let push =
        json!({"max_batch_size": BATCH_SIZE, "max_batch_bytes": BATCH_BYTES, "concurrency_per_pod": SLOTS});
    pushed(queue, port, json!({ "push": push }))
}

/// What the sidecar had most, after it handled batches one after the other and has as many open as it may.
async fn peak(content_type: &str, part: &str) -> u64 {
    let quick = Application::start(|_| async { done() }).await;
    let slow = Application::start(|_| never()).await;
    let fixture = Fixture::new(&[consumer("quick", quick.port), consumer("slow", slow.port)]).await;
    send(&fixture, "quick", 4, content_type, part).await;
    send(&fixture, "slow", 1, content_type, part).await;
    let sidecar = Pod::start(&fixture.broker.url(), "Deployment/shop", "shop-1", &[]);
    let handled = async || (fixture.queue("quick").await.totals.acknowledged == 1600).then_some(());
    until("all of the quick ones are handled", handled).await;
    slow.until("all slots are busy", |seen| seen.len() == SLOTS).await;
    let full = |batch: &Vec<usize>| batch.iter().all(|size| *size == BATCH_SIZE);
    assert!(full(&slow.sizes()), "{:?}", slow.sizes());
    sidecar.memory_peak()
}

#[tokio::test]
async fn the_largest_batches_fit_into_the_default_limit() {
    // Characters that JSON writes as six are the worst that text can have.
    for (content_type, part) in [("json", "x"), ("text", "\u{1}")] {
        let peak = peak(content_type, part).await;
        assert!(peak < LIMIT, "{content_type} of {part:?}: {} KiB", peak >> 10);
    }
}
