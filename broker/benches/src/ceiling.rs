//! The smallest honest HTTP publisher: JSON in, append, one fdatasync for all that wait, JSON out. It tells what HTTP and
//! JSON cost apart from the broker; it has no queue, no index, no checksum and no consumer.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait for the thread.
const WAITING_MAX: usize = 1024;

/// What was done since the start.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Stats {
    /// Messages in the file.
    pub appended: u64,
    pub syncs: u64,
}

#[derive(Default)]
struct Counters {
    appended: AtomicU64,
    syncs: AtomicU64,
}

struct Append {
    bodies: Vec<Box<RawValue>>,
    done: oneshot::Sender<()>,
}

#[derive(Clone)]
struct App {
    appends: mpsc::Sender<Append>,
    counters: Arc<Counters>,
}

#[derive(Deserialize)]
struct One {
    body: Box<RawValue>,
}

#[derive(Deserialize)]
struct Batch {
    messages: Vec<One>,
}

#[derive(Serialize)]
struct Answer {
    success: bool,
}

/// Serves until it is killed; appends to `file`.
///
/// # Errors
/// The address or the file cannot be used.
pub async fn serve(listen: SocketAddr, file: &Path) -> Result<()> {
    let file = File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
    let (appends, waiting) = mpsc::channel(WAITING_MAX);
    let counters = Arc::new(Counters::default());
    let app = App { appends, counters: Arc::clone(&counters) };
    std::thread::spawn(move || {
        if let Err(error) = append(file, waiting, &counters) {
            eprintln!("error: {error:#}");
            std::process::exit(1);
        }
    });
    let routes = Router::new()
        .route("/messages", post(one))
        .route("/messages/batch", post(batch))
        .route("/stats", get(stats))
        .layer(DefaultBodyLimit::max(1 << 20))
        .with_state(app);
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        let _slower_without = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, routes).await?)
}

async fn one(State(app): State<App>, Json(one): Json<One>) -> Result<Json<Answer>, StatusCode> {
    app.append(vec![one.body]).await
}

async fn batch(State(app): State<App>, Json(batch): Json<Batch>) -> Result<Json<Answer>, StatusCode> {
    app.append(batch.messages.into_iter().map(|one| one.body).collect()).await
}

async fn stats(State(app): State<App>) -> Json<Stats> {
    let Counters { appended, syncs } = &*app.counters;
    Json(Stats { appended: appended.load(Ordering::Relaxed), syncs: syncs.load(Ordering::Relaxed) })
}

impl App {
    async fn append(&self, bodies: Vec<Box<RawValue>>) -> Result<Json<Answer>, StatusCode> {
        let (done, told) = oneshot::channel();
        let gone = StatusCode::SERVICE_UNAVAILABLE;
        self.appends.send(Append { bodies, done }).await.map_err(|_| gone)?;
        told.await.map_err(|_| gone)?;
        Ok(Json(Answer { success: true }))
    }
}

/// Takes one request and whatever else waits, writes all, syncs once, answers all.
fn append(mut file: File, mut waiting: mpsc::Receiver<Append>, counters: &Counters) -> Result<()> {
    let (mut group, mut bytes) = (Vec::new(), Vec::new());
    while let Some(first) = waiting.blocking_recv() {
        group.push(first);
        while let Ok(next) = waiting.try_recv() {
            group.push(next);
        }
        bytes.clear();
        let mut count = 0;
        for body in group.iter().flat_map(|append: &Append| &append.bodies) {
            bytes.extend_from_slice(body.get().as_bytes());
            count += 1;
        }
        file.write_all(&bytes)?;
        file.sync_data()?;
        counters.appended.fetch_add(count, Ordering::Relaxed);
        counters.syncs.fetch_add(1, Ordering::Relaxed);
        for append in group.drain(..) {
            // Whoever no longer waits has lost nothing.
            let _gone = append.done.send(());
        }
    }
    Ok(())
}
