//! A broker with queues, and the few requests that most tests make.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use capstan_api::control::{Declaration, QueueState};
use capstan_api::message::{Lease, Pull, Pulled, Retry, Send, Settle, Settled};
use capstan_api::number::{Number, Whole};
use capstan_api::{Client, ControlClient, Name};
use e2e::process::{Broker, Starting};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The namespace of all queues.
pub(crate) const NAMESPACE: &str = "shop";
/// What is waited for must come within this.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A running broker and its folder.
pub(crate) struct Fixture {
    pub(crate) broker: Broker,
    pub(crate) client: Client,
    pub(crate) control: ControlClient,
    folder: TempDir,
}

impl Fixture {
    /// A new broker to which `queues` are declared.
    pub(crate) async fn new(queues: &[Value]) -> Self {
        Self::of(Starting::spawn, queues).await
    }

    /// The same, of a broker that may open so many files and connections.
    pub(crate) async fn with_open_files(count: u64, queues: &[Value]) -> Self {
        Self::of(|data| Starting::with_open_files(data, count), queues).await
    }

    /// The same, of a broker that is started in another way.
    pub(crate) async fn of(start: impl FnOnce(&Path) -> Starting, queues: &[Value]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = start(folder.path()).ready();
        let (client, control) = (broker.client(), broker.control());
        let fixture = Self { broker, client, control, folder };
        fixture.declare("1", queues).await;
        fixture
    }

    /// Replaces the declaration.
    pub(crate) async fn declare(&self, revision: &str, queues: &[Value]) {
        self.control.declare(&declaration(revision, queues)).await.unwrap();
    }

    /// Ends the process with `end` and starts another over the same folder.
    pub(crate) fn again(self, end: impl FnOnce(Broker)) -> Self {
        self.again_as(end, Starting::spawn)
    }

    /// The same, with another way to start.
    pub(crate) fn again_as(self, end: impl FnOnce(Broker), start: impl FnOnce(&Path) -> Starting) -> Self {
        Self::over(self.leave(end), start)
    }

    /// Ends the process with `end`; what stays is its folder.
    pub(crate) fn leave(self, end: impl FnOnce(Broker)) -> TempDir {
        end(self.broker);
        self.folder
    }

    /// Starts a process over a folder that another has left.
    pub(crate) fn over(folder: TempDir, start: impl FnOnce(&Path) -> Starting) -> Self {
        let broker = start(folder.path()).ready();
        let (client, control) = (broker.client(), broker.control());
        Self { broker, client, control, folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The base URL of SDKs.
    pub(crate) fn base_url(&self) -> String {
        format!("{}/client/v4", self.broker.url())
    }

    pub(crate) async fn send(&self, queue: &str, message: Value) {
        self.client.send(&name(NAMESPACE), &name(queue), &message_of(&message)).await.unwrap();
    }

    pub(crate) async fn pull(&self, queue: &str, count: u64) -> Pulled {
        let pull = Pull { batch_size: Some(Whole(count)), ..Pull::default() };
        self.client.pull(&name(NAMESPACE), &name(queue), &pull).await.unwrap()
    }

    pub(crate) async fn ack(&self, queue: &str, leases: &[&str]) -> Settled {
        let acks = leases.iter().map(|lease| Lease { lease_id: (*lease).to_owned() }).collect();
        self.settle(queue, &Settle { acks, ..Settle::default() }).await
    }

    pub(crate) async fn retry(&self, queue: &str, lease: &str, delay: Option<u64>) -> Settled {
        let delay_seconds = delay.map(Number::from);
        let retries = vec![Retry { lease_id: lease.to_owned(), delay_seconds, reason: None }];
        self.settle(queue, &Settle { retries, ..Settle::default() }).await
    }

    pub(crate) async fn settle(&self, queue: &str, settle: &Settle) -> Settled {
        self.client.settle(&name(NAMESPACE), &name(queue), settle).await.unwrap()
    }

    /// What the broker knows about a queue.
    pub(crate) async fn queue(&self, queue: &str) -> QueueState {
        let state = self.control.state().await.unwrap();
        let found = state.queues.into_iter().find(|one| one.name.as_str() == queue);
        found.unwrap_or_else(|| panic!("no queue {queue}"))
    }

    /// The value of one series of `/metrics`, such as `capstan_store_commits_total{durability="synced"}`.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let url = format!("{}/metrics", self.broker.admin_url());
        let text = reqwest::get(url).await.unwrap().error_for_status().unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in:\n{text}")).parse().unwrap()
    }
}

pub(crate) fn declaration(revision: &str, queues: &[Value]) -> Declaration {
    serde_json::from_value(json!({ "revision": revision, "queues": queues })).unwrap()
}

/// A queue with a pull consumer of `max_retries` and the fields of `more`, laid over those of the queue.
pub(crate) fn queue(name: &str, max_retries: u32, more: Value) -> Value {
    let mut queue = json!({
        "namespace": NAMESPACE, "name": name, "retention_ms": 345_600_000u64,
        "consumer": { "name": name, "max_retries": max_retries, "visibility_timeout_ms": 30_000 },
    });
    overlay(&mut queue, more);
    queue
}

/// Lays `more` over `value`, object by object.
pub(crate) fn overlay(value: &mut Value, more: Value) {
    match (value, more) {
        (Value::Object(value), Value::Object(more)) => {
            for (key, more) in more {
                overlay(value.entry(key).or_insert(Value::Null), more);
            }
        }
        (value, more) => *value = more,
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn message_of(message: &Value) -> Send {
    // Through text, because a raw value is a part of one.
    serde_json::from_str(&message.to_string()).unwrap()
}

/// The JSON in a pulled body.
pub(crate) fn json_of(body: &str) -> Value {
    let bytes = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// Asks until `look` answers something.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
