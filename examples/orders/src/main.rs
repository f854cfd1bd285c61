//! Takes orders: `POST /` gets a batch of messages. An order with `"fail": true` always fails; the answer says so.
//! One with `"takesMs": 500` takes half a second.

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// Ids that are remembered; later ones are only counted.
const IDS_MAX: usize = 10_000;
/// Longest time that an order can ask for.
const TAKES_MS_MAX: u64 = 60_000;
/// A Consumer can ask for batches of up to 2 MiB; as JSON they are a little larger.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest time to finish open requests; a pod has 30 s to end.
const END_MAX: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Handled {
    handled: u64,
    failed: u64,
    ids: BTreeSet<String>,
}

type Shared = Arc<Mutex<Handled>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::var("PORT").map_or(Ok(8080), |port| port.parse::<u16>())?;
    let listener = match tokio::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        Err(_) => tokio::net::TcpListener::bind(("0.0.0.0", port)).await?,
    };
    println!("taking orders on port {}", listener.local_addr()?.port());
    let app = Router::new()
        .route("/", post(take))
        .route("/healthz", get(async || "ok\n"))
        .route("/handled", get(report))
        .layer(DefaultBodyLimit::max(BATCH_BYTES_MAX))
        .with_state(Shared::default());
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async { drop(ended.await) });
    let server = tokio::spawn(server.into_future());
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    // Open requests are finished before the program ends.
    drop(end);
    let _ = tokio::time::timeout(END_MAX, server).await;
    Ok(())
}

/// Handles a batch. Whatever is not named in the answer is acknowledged.
async fn take(State(shared): State<Shared>, Json(batch): Json<Value>) -> Json<Value> {
    tokio::time::sleep(duration(&batch)).await;
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let mut retries = Vec::new();
    for message in batch["messages"].as_array().into_iter().flatten() {
        let (id, order, attempts) =
            (message["id"].as_str().unwrap_or_default(), &message["body"], &message["attempts"]);
        if order["fail"] == true {
            println!("order {order} failed (attempt {attempts})");
            shared.failed += 1;
            retries.push(json!({"msgId": id}));
        } else {
            println!("order {order} handled (attempt {attempts})");
            shared.handled += 1;
            if shared.ids.len() < IDS_MAX {
                shared.ids.insert(id.to_owned());
            }
        }
    }
    Json(json!({"retryMessages": retries}))
}

/// How long a batch takes: as long as its slowest order.
fn duration(batch: &Value) -> Duration {
    let orders = batch["messages"].as_array().into_iter().flatten();
    let slowest = orders.filter_map(|message| message["body"]["takesMs"].as_u64()).max();
    Duration::from_millis(slowest.unwrap_or_default().min(TAKES_MS_MAX))
}

/// What was handled so far: all deliveries, and the distinct messages among them.
async fn report(State(shared): State<Shared>) -> Json<Value> {
    let Handled { handled, failed, ids } = &*shared.lock().unwrap_or_else(PoisonError::into_inner);
    Json(json!({"handled": handled, "failed": failed, "distinct": ids.len(), "ids": ids}))
}
