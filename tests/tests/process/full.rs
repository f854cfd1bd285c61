//! A full volume: sends are refused in time, verdicts make room, and the broker starts without a free byte.

mod volume;

use std::collections::HashSet;
use std::time::Instant;

use capstan_api::ClientError;
use capstan_api::control::{QueueState, StorageState};
use capstan_api::message::{Lease, Peek, Pull, SendBatch, Settle};
use capstan_api::number::Whole;
use e2e::process::{Broker, progress};
use futures::future::join_all;
use serde_json::json;

use crate::fixture::{NAMESPACE, declaration, message_of, name, queue, until};
use volume::Volume;

const VOLUME_MIB: u64 = 512;
const BODY: usize = 20_000;
const BATCH: usize = 12;
const SENDERS: usize = 4;
/// What an empty store may still take: journals, and what no table has been written for since.
const LEFT_MAX: u64 = 160 << 20;

/// What was answered, by message.
#[derive(Default)]
struct Kept {
    sent: HashSet<String>,
    acked: HashSet<String>,
    /// Acks without an answer.
    unknown: HashSet<String>,
}

/// A broker on a volume, and what it was told.
struct Full {
    broker: Broker,
    batch: SendBatch,
    kept: Kept,
}

impl Full {
    /// Sends a batch to a queue; answers the ids.
    async fn send(&self, queue: &str) -> Result<Vec<String>, ClientError> {
        let sent = self.broker.client().send_batch(&name(NAMESPACE), &name(queue), &self.batch).await?;
        Ok(sent.ids)
    }

    /// Sends a batch to `fleeting`, the same one each time.
    async fn send_once(&self) -> Result<Vec<String>, ClientError> {
        let (client, key) = (self.broker.client(), "first".parse().unwrap());
        let sent = client.send_batch_once(&name(NAMESPACE), &name("fleeting"), &self.batch, &key).await?;
        Ok(sent.ids)
    }

    /// Sends until the volume is nearly full.
    async fn fill(&mut self) {
        loop {
            let mut refused = 0;
            for sent in join_all((0..SENDERS).map(|_| self.send("orders"))).await {
                match sent {
                    Ok(ids) => self.kept.sent.extend(ids),
                    Err(error) => {
                        assert_eq!(error.code(), Some(10251), "{error}\n{}", self.broker.log());
                        assert!(error.to_string().contains("volume is nearly full"), "{error}");
                        refused += 1;
                    }
                }
            }
            if refused == SENDERS {
                return;
            }
        }
    }

    /// Pulls and acknowledges up to a hundred; answers how many there were.
    async fn consume(&mut self) -> Result<usize, ClientError> {
        let (client, shop, orders) = (self.broker.client(), name(NAMESPACE), name("orders"));
        let pull = Pull { batch_size: Some(Whole(100)), ..Pull::default() };
        let pulled = client.pull(&shop, &orders, &pull).await?.messages;
        let acks = pulled.iter().map(|one| Lease { lease_id: one.lease_id.clone() }).collect();
        let ids: Vec<String> = pulled.into_iter().map(|one| one.id).collect();
        let count = ids.len();
        match client.settle(&shop, &orders, &Settle { acks, ..Settle::default() }).await {
            Ok(settled) => {
                assert_eq!(settled.ack_count as usize, count, "{settled:?}");
                self.kept.acked.extend(ids);
                Ok(count)
            }
            Err(error) => {
                self.kept.unknown.extend(ids);
                Err(error)
            }
        }
    }

    async fn queue(&self, wanted: &str) -> QueueState {
        let state = self.broker.control().state().await.unwrap();
        state.queues.into_iter().find(|one| one.name.as_str() == wanted).unwrap()
    }

    async fn storage(&self) -> StorageState {
        self.broker.control().state().await.unwrap().storage.unwrap()
    }

    /// What is there is what was answered: nothing is lost, and only acks without an answer may be undone or not.
    async fn check(&self) {
        let Kept { sent, acked, unknown } = &self.kept;
        let orders = self.queue("orders").await;
        let (there, most) =
            (orders.ready + orders.leased + orders.delayed, (sent.len() - acked.len()) as u64);
        assert!(there <= most && there + unknown.len() as u64 >= most, "{there} of {most}");
    }

    async fn metric(&self, series: &str) -> f64 {
        let url = format!("{}/metrics", self.broker.admin_url());
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in:\n{text}")).parse().unwrap()
    }

    async fn refuses(&self) {
        let refused = self.send("orders").await.expect_err("the volume is nearly full");
        assert_eq!(refused.code(), Some(10251), "{refused}");
        assert!(refused.is_retryable());
    }

    fn again(self, end: impl FnOnce(Broker), volume: &Volume) -> Self {
        end(self.broker);
        Self { broker: Broker::start(&volume.data()), ..self }
    }
}

/// A body that does not compress.
fn noise() -> String {
    (0..BODY / 16).map(|_| format!("{:016x}", rand::random::<u64>())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_volume_refuses_sends_serves_verdicts_and_comes_back() {
    let volume = Volume::new(VOLUME_MIB);
    let broker = Broker::start(&volume.data());
    let consumer = json!({"visibility_timeout_ms": 600_000});
    let queues = [
        queue("orders", 3, json!({ "consumer": consumer })),
        queue("fleeting", 3, json!({ "retention_ms": 60_000 })),
    ];
    broker.control().declare(&declaration("1", &queues)).await.unwrap();
    let messages = (0..BATCH).map(|_| message_of(&json!({ "body": noise() }))).collect();
    let batch = SendBatch { messages, delay_seconds: None };
    let mut full = Full { broker, batch, kept: Kept::default() };
    let began = Instant::now();
    let step = |text: &str| progress(&format!("full: {text}, {:.1} s", began.elapsed().as_secs_f64()));

    let first = full.send_once().await.unwrap();
    full.fill().await;
    step(&format!("{} messages fill the volume, {} MiB are free", full.kept.sent.len(), volume.free() >> 20));
    assert!(full.kept.sent.len() * BODY > 100 << 20, "refused too early");
    full.check().await;
    let refused = full.metric("capstan_store_sends_refused_total").await;
    assert!(refused >= SENDERS as f64, "{refused}");
    assert!(
        full.metric("capstan_store_available_bytes").await
            > 0.5 * full.metric("capstan_store_reserve_bytes").await
    );
    full.consume().await.unwrap();
    let peek = Peek { batch_size: Some(Whole(5)) };
    let peeked = full.broker.client().peek(&name(NAMESPACE), &name("orders"), &peek).await.unwrap();
    assert_eq!(peeked.messages.len(), 5);

    // Killed while it is nearly full, again and again.
    for _ in 0..3 {
        full = full.again(Broker::kill, &volume);
        full.check().await;
        full.fill().await;
        full.consume().await.unwrap();
    }
    step("three kills");

    // Something else takes the rest: the commit that meets the end ends the process.
    let error = loop {
        volume.fill();
        if let Err(error) = full.consume().await {
            break error;
        }
    };
    step(&format!("no byte is free, {error}"));
    full = full.again(
        |broker| {
            let (status, log) = broker.ended();
            assert_eq!(status.code(), Some(1), "{log}");
            let log = log.to_string();
            assert!(log.contains("the storage engine failed") && log.contains("No space left"), "{log}");
            volume.fill();
            assert_eq!(volume.free(), 0);
        },
        &volume,
    );
    let log = full.broker.log().to_string();
    assert!(log.contains("its ballast is released"), "{log}");
    full.check().await;
    full.refuses().await;
    assert_eq!(full.send_once().await.unwrap(), first, "what is stored needs no room");
    assert!(full.storage().await.sends_refused, "whoever asks for its state learns it too");
    while full.consume().await.unwrap() > 0 {}
    full.check().await;
    step(&format!("everything is consumed, {} MiB are free", volume.free() >> 20));
    until("old messages expire", async || (full.queue("fleeting").await.ready == 0).then_some(())).await;
    volume.empty();
    until("sends are taken again", async || {
        let client = full.broker.client();
        let one = message_of(&json!({ "body": "again" }));
        client.send(&name(NAMESPACE), &name("orders"), &one).await.ok()
    })
    .await;
    until("there is a ballast again", async || volume.data().join("ballast").exists().then_some(())).await;
    until("space comes back", async || {
        let storage = full.storage().await;
        let is_back = storage.used_bytes < LEFT_MAX && storage.available_bytes > storage.capacity_bytes / 2;
        (is_back && !storage.sends_refused).then_some(())
    })
    .await;
    step(&format!("{} MiB are free", volume.free() >> 20));
    let Kept { sent, acked, unknown } = &full.kept;
    let lost = sent.iter().filter(|id| !acked.contains(*id) && !unknown.contains(*id)).count();
    assert_eq!(lost, 0, "of {} answered messages", sent.len());
    full.broker.stop();
}
