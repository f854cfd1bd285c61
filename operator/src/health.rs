//! Health checks: `/healthz` while the process runs, `/readyz` once it knows the cluster.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

/// Whether every watch has listed once. An operator that stands by is ready too.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ready(Arc<AtomicBool>);

impl Ready {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves until it is dropped.
pub(crate) async fn serve(address: SocketAddr, ready: Ready) -> anyhow::Result<()> {
    use anyhow::Context;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    axum::serve(listener, router(ready)).await.context("health checks ended")
}

fn router(ready: Ready) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .with_state(ready)
}

async fn readiness(State(ready): State<Ready>) -> (StatusCode, &'static str) {
    if ready.get() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the watches have not listed yet\n")
    }
}
