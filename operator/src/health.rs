//! Health checks and metrics: `/healthz` while the process runs, `/readyz` once it knows the cluster, `/metrics`.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;
use crate::work::WorkQueue;
use crate::world::{Unit, World};

/// Whether the cluster is known: what it is waited for until then. An operator that stands by is ready too.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    waits_for: Arc<Mutex<Option<String>>>,
    metrics: Arc<Metrics>,
}

impl Ready {
    /// It is not, yet.
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Self {
        let waits_for = Some("the API server has not answered yet".to_owned());
        Self { waits_for: Arc::new(Mutex::new(waits_for)), metrics: Arc::clone(metrics) }
    }

    /// It is.
    pub(crate) fn set(&self) {
        self.metrics.ready.set(1);
        *self.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// It is not, because of `what`.
    pub(crate) fn waits_for(&self, what: &str) {
        *self.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = Some(what.to_owned());
    }

    fn get(&self) -> Option<String> {
        self.waits_for.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is served.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) ready: Ready,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) queue: Arc<WorkQueue<Unit>>,
    pub(crate) world: Arc<World>,
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, served: Served) -> anyhow::Result<()> {
    axum::serve(listener, router(served)).await.context("health checks ended")
}

fn router(served: Served) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .with_state(served)
}

async fn readiness(State(served): State<Served>) -> (StatusCode, String) {
    match served.ready.get() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(what) => (StatusCode::SERVICE_UNAVAILABLE, format!("{what}\n")),
    }
}

async fn metrics(State(served): State<Served>) -> Response {
    let load = served.queue.load();
    let written = served.metrics.write(&load, &served.world);
    match written {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn answer(address: std::net::SocketAddr, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split_whitespace().nth(1).unwrap().to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn it_lives_at_once_and_is_ready_when_the_cluster_is_known() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let ready = Ready::new(&metrics);
        let (queue, world) = (Arc::default(), Arc::default());
        tokio::spawn(serve(listener, Served { ready: ready.clone(), metrics, queue, world }));
        assert_eq!(answer(address, "/healthz").await.0, "200");
        assert_eq!(answer(address, "/readyz").await.0, "503");
        ready.waits_for("the chart capstan-crds");
        assert_eq!(answer(address, "/readyz").await, ("503".into(), "the chart capstan-crds\n".into()));
        assert!(answer(address, "/metrics").await.1.contains("\ncapstan_operator_ready 0\n"));
        ready.set();
        assert_eq!(answer(address, "/readyz").await.0, "200");
        let (status, text) = answer(address, "/metrics").await;
        assert!(status == "200" && text.contains("\ncapstan_operator_ready 1\n"), "{text}");
    }
}
