//! An application in this process: a test says what it answers, and asks what it got.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::fixture::{DEADLINE, overlay, queue};

/// Status and body of an answer.
pub(crate) type Answer = (u16, String);

/// An application that listens until it is dropped.
pub(crate) struct Application {
    pub(crate) port: u16,
    seen: Arc<watch::Sender<Vec<Value>>>,
    listening: AbortHandle,
}

impl Application {
    /// Answers each batch as `answer` says.
    pub(crate) async fn start<F: Future<Output = Answer> + Send + 'static>(
        answer: impl Fn(Value) -> F + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (port, seen) = (listener.local_addr().unwrap().port(), Arc::new(watch::Sender::new(Vec::new())));
        let told = Arc::clone(&seen);
        let take = async move |body: Bytes| {
            let batch: Value = serde_json::from_slice(&body).unwrap();
            drop(body);
            let messages = batch["messages"].as_array().unwrap().iter();
            // Without the bodies, which may be large.
            let bare = messages.map(|one| json!({"id": one["id"], "attempts": one["attempts"]}));
            told.send_modify(|seen| seen.push(bare.collect()));
            let (status, body) = answer(batch).await;
            (StatusCode::from_u16(status).unwrap(), body)
        };
        let router = Router::new().route("/take", post(take)).layer(DefaultBodyLimit::disable());
        let listening = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, seen, listening: listening.abort_handle() }
    }

    /// Waits until the batches it got are as wished: of each message its id and attempts.
    pub(crate) async fn until(&self, what: &str, wished: impl FnMut(&Vec<Value>) -> bool) {
        let mut seen = self.seen.subscribe();
        let wished = tokio::time::timeout(DEADLINE, seen.wait_for(wished));
        assert!(wished.await.is_ok(), "in vain: {what}; {:?}", self.seen.borrow());
    }

    /// How many messages each batch had.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.seen.borrow().iter().map(|batch| batch.as_array().unwrap().len()).collect()
    }

    /// The attempts of all deliveries of each message, in their order.
    pub(crate) fn deliveries(&self) -> BTreeMap<String, Vec<u64>> {
        let mut deliveries: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for message in self.seen.borrow().iter().flat_map(|batch| batch.as_array().unwrap()) {
            let (id, attempts) = (message["id"].as_str().unwrap(), message["attempts"].as_u64().unwrap());
            deliveries.entry(id.to_owned()).or_default().push(attempts);
        }
        deliveries
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// A batch that is acknowledged.
pub(crate) fn done() -> Answer {
    (200, String::new())
}

/// Never answers.
pub(crate) async fn never() -> Answer {
    std::future::pending().await
}

/// A queue whose batches go to `Deployment/shop`, at `/take` on `port`, with the fields of `more` in the Consumer.
pub(crate) fn pushed(name: &str, port: u16, more: Value) -> Value {
    let endpoint = json!({ "port": port, "path": "/take", "timeout_ms": 3_600_000 });
    let push = json!({
        "workload": { "kind": "Deployment", "name": "shop" }, "endpoint": endpoint,
        "max_batch_size": 10, "max_batch_bytes": 256_000, "max_wait_ms": 0, "concurrency_per_pod": 1,
    });
    let mut consumer = json!({ "push": push });
    overlay(&mut consumer, more);
    queue(name, 2, json!({ "consumer": consumer }))
}
