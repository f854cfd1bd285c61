//! Health checks: `/healthz` while the process runs, `/readyz` once it knows the cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
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
pub(crate) async fn serve(listener: TcpListener, ready: Ready) -> anyhow::Result<()> {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn status(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split_whitespace().nth(1).unwrap().to_owned()
    }

    #[tokio::test]
    async fn it_lives_at_once_and_is_ready_when_the_cluster_is_known() {
        let (listener, ready) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Ready::default());
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, ready.clone()));
        assert_eq!(status(address, "/healthz").await, "200");
        assert_eq!(status(address, "/readyz").await, "503");
        ready.set();
        assert_eq!(status(address, "/readyz").await, "200");
    }
}
