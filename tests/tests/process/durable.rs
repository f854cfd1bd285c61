//! What an answer means: the commit that holds it is on disk.

use capstan_api::message::{Pull, SendBatch};
use e2e::process::Broker;
use futures::future::join_all;
use serde_json::json;

use crate::fixture::{Fixture, NAMESPACE, message_of, name, queue};

const SYNCED: &str = "capstan_store_commits_total{durability=\"synced\"}";
const BUFFERED: &str = "capstan_store_commits_total{durability=\"buffered\"}";

#[tokio::test]
async fn each_answer_had_a_commit_and_many_senders_share_one() {
    const ONE_BY_ONE: usize = 50;
    const AT_ONCE: usize = 400;
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    let mut synced = fixture.metric(SYNCED).await;
    let mut more = async || {
        let (before, now) = (synced, fixture.metric(SYNCED).await);
        synced = now;
        now - before
    };

    for n in 0..ONE_BY_ONE {
        fixture.send("orders", json!({ "body": n })).await;
    }
    assert!(
        more().await >= ONE_BY_ONE as f64,
        "each send that was answered before the next was made had its own"
    );

    let buffered = fixture.metric(BUFFERED).await;
    let leases = fixture.pull("orders", 100).await.messages;
    assert_eq!(leases.len(), ONE_BY_ONE);
    assert!(fixture.metric(BUFFERED).await > buffered, "a lease is written before it is handed out");
    assert_eq!(more().await, 0.0, "a lease needs no disk");
    for lease in &leases {
        fixture.ack("orders", &[&lease.lease_id]).await;
    }
    assert!(more().await >= ONE_BY_ONE as f64, "each verdict had its own");

    let many = (0..AT_ONCE).map(|n| fixture.send("orders", json!({ "body": n })));
    join_all(many).await;
    let shared = more().await;
    assert!(shared >= 1.0 && shared < AT_ONCE as f64, "{AT_ONCE} sends at once made {shared} commits");
}

#[tokio::test]
async fn a_batch_is_there_whole_or_not_at_all() {
    let fixture = Fixture::new(&[queue("orders", 3, json!({"max_messages": 150}))]).await;
    let batch = |count: usize| SendBatch {
        messages: (0..count).map(|n| message_of(&json!({ "body": n }))).collect(),
        delay_seconds: None,
    };
    let (shop, orders) = (name(NAMESPACE), name("orders"));
    let taken = fixture.client.send_batch(&shop, &orders, &batch(100)).await.unwrap();
    assert_eq!(taken.ids.len(), 100);
    let refused = fixture.client.send_batch(&shop, &orders, &batch(51)).await.unwrap_err();
    assert_eq!(refused.code(), Some(10251), "{refused}");
    let fixture = fixture.again(Broker::kill);
    assert_eq!(fixture.queue("orders").await.ready, 100);
    let pull = Pull { batch_size: Some(capstan_api::number::Whole(100)), ..Pull::default() };
    let pulled = fixture.client.pull(&shop, &orders, &pull).await.unwrap().messages;
    let ids: Vec<&str> = pulled.iter().map(|message| message.id.as_str()).collect();
    assert_eq!(ids, taken.ids, "the order in which they were sent");
}

/// The file system takes no more: whoever is answered is stored, nobody else is answered, and the process ends.
#[tokio::test]
async fn a_disk_that_fails_ends_the_process_and_loses_nothing() {
    const STORED: u64 = 50;
    let fixture = Fixture::new(&[queue("orders", 3, json!({}))]).await;
    for n in 0..STORED {
        fixture.send("orders", json!({ "body": n })).await;
    }
    fixture.broker.limit_files(1);
    let (shop, orders) = (name(NAMESPACE), name("orders"));
    let refused = fixture.client.send(&shop, &orders, &message_of(&json!({ "body": "one more" }))).await;
    assert!(refused.is_err(), "answered without a disk: {refused:?}");
    let fixture = fixture.again(|broker| {
        let (status, log) = broker.ended();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.to_string().contains("the storage engine failed"), "{log}");
    });
    let ready = fixture.queue("orders").await.ready;
    assert!((STORED..=STORED + 1).contains(&ready), "{ready} of {STORED}");
    fixture.send("orders", json!({"body": "it works again"})).await;
}
