//! The application of the tests in a cluster. It is as ill-behaved as its environment asks for, and writes down elsewhere what
//! it handled, so that this outlives its pods.
//!
//! | variable | what |
//! |---|---|
//! | `LEDGER` | where entries go, such as `http://ledger`; without it they stay here |
//! | `LISTEN_AFTER_MS` | so long after the start it begins to listen |
//! | `IGNORE_TERM` | set, SIGTERM does nothing |
//!
//! | request | what |
//! |---|---|
//! | `POST /` | handles a batch, which takes as long as the largest `takesMs` in it |
//! | `GET /readyz`, `GET /livez` | 200; `/livez` is 500 once it is broken |
//! | `POST /break` | breaks it |
//! | `POST /send/QUEUE` | sends a batch through the sidecar's gateway, and answers as that does |
//! | `POST /ledger`, `GET /ledger` | writes down entries; all of them |
//! | `GET /pages/0` | the first page of a site for crawlers: each links to up to three others, 40 in all |

mod ledger;

use std::future::IntoFuture;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use ledger::{Entry, Ledger};

const PORT: u16 = 8080;
const GATEWAY: &str = "http://127.0.0.1:9797";
/// Longer than the gateway holds a request.
const GATEWAY_TIME: Duration = Duration::from_secs(40);
const BODY_BYTES_MAX: usize = 16 << 20;
const TAKES_MS_MAX: u64 = 120_000;
const PAGES: u64 = 40;

/// What the sidecar posts.
#[derive(Deserialize)]
struct Batch {
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    id: String,
    attempts: u32,
    body: Value,
}

struct App {
    ledger: Ledger,
    client: reqwest::Client,
    broken: AtomicBool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let late = std::env::var("LISTEN_AFTER_MS").map_or(Ok(0), |time| time.parse())?;
    tokio::time::sleep(Duration::from_millis(late)).await;
    let listener = tokio::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).await?;
    let ledger = Ledger::at(std::env::var("LEDGER").ok())?;
    let client = reqwest::Client::builder().no_proxy().timeout(GATEWAY_TIME).build()?;
    let app = Router::new()
        .route("/", post(handle))
        .route("/readyz", get(async || "ok\n"))
        .route("/livez", get(live))
        .route("/break", post(break_it))
        .route("/send/{queue}", post(send))
        .route("/ledger", get(read).post(write))
        .route("/pages/{number}", get(page))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(App { ledger, client, broken: AtomicBool::new(false) }));
    let mut terminate = signal(SignalKind::terminate())?;
    let ended = async move {
        loop {
            terminate.recv().await;
            if std::env::var_os("IGNORE_TERM").is_none() {
                return;
            }
            println!("SIGTERM, ignored");
        }
    };
    // Open requests are finished before the program ends.
    axum::serve(listener, app).with_graceful_shutdown(ended).into_future().await?;
    Ok(())
}

/// Whoever goes away before the answer has handled nothing: the future is dropped with its connection.
async fn handle(State(app): State<Arc<App>>, Json(batch): Json<Batch>) -> Result<StatusCode, StatusCode> {
    let takes = batch.messages.iter().filter_map(|message| message.body["takesMs"].as_u64()).max();
    tokio::time::sleep(Duration::from_millis(takes.unwrap_or(0).min(TAKES_MS_MAX))).await;
    let entry = |message: Message| Entry { id: message.id, attempts: message.attempts };
    let entries = batch.messages.into_iter().map(entry).collect();
    app.ledger.write(entries).await.map_err(|error| {
        println!("the ledger took nothing: {error}");
        StatusCode::INTERNAL_SERVER_ERROR
    })?;
    Ok(StatusCode::OK)
}

async fn live(State(app): State<Arc<App>>) -> StatusCode {
    if app.broken.load(Ordering::Relaxed) { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
}

async fn break_it(State(app): State<Arc<App>>) {
    app.broken.store(true, Ordering::Relaxed);
}

/// Passes a batch on to the gateway, with the key that makes of several tries one send.
async fn send(
    State(app): State<Arc<App>>,
    Path(queue): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Bytes), (StatusCode, String)> {
    let mut request = app.client.post(format!("{GATEWAY}/queues/{queue}/messages/batch")).body(body);
    for name in ["content-type", "idempotency-key"] {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    let failed = |error: reqwest::Error| (StatusCode::BAD_GATEWAY, error.to_string());
    let answer = request.send().await.map_err(failed)?;
    Ok((answer.status(), answer.bytes().await.map_err(failed)?))
}

async fn write(State(app): State<Arc<App>>, Json(entries): Json<Vec<Entry>>) {
    app.ledger.keep(entries);
}

async fn read(State(app): State<Arc<App>>) -> Json<Vec<Entry>> {
    Json(app.ledger.entries())
}

async fn page(Path(number): Path<u64>) -> Result<Html<String>, StatusCode> {
    if number >= PAGES {
        return Err(StatusCode::NOT_FOUND);
    }
    let next = (1..=3).map(|link| number * 3 + link).filter(|next| *next < PAGES);
    let links: String = next.map(|next| format!("<a href=\"/pages/{next}\">{next}</a>")).collect();
    Ok(Html(format!("<title>{number}</title>{links}")))
}
