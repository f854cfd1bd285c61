//! The admin port: probes, metrics and the hooks. It is open to the pod's network, and so serves nothing else there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use capstan_port::connections::{self, Connections, Port};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::{drain, quiesce};

/// Most connections: probes, hooks and scrapes are a few.
const CONNECTIONS_MAX: usize = 64;
/// Of these, what the pod's network cannot take: `/drain` comes from the pod itself.
const CONNECTIONS_KEPT: usize = 16;
/// A connection without a request is closed after this: it would keep the kubelet away.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Longest head of a request, and what is buffered of an answer.
const BUFFER_BYTES: usize = 16 << 10;

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, context: Arc<Context>) {
    let router = Router::new()
        // Answering shows that the event loop turns, and that the listener is up. A broker or an application that is
        // away is no reason to restart the sidecar or to hold up its pod.
        .route("/livez", get(alive))
        .route("/startupz", get(alive))
        .route("/metrics", get(metrics))
        .route(quiesce::PATH, get(quiesce))
        .route(drain::PATH, post(drain))
        .with_state(context);
    let port = Port {
        connections: Arc::new(Connections::new(CONNECTIONS_MAX).keeping(CONNECTIONS_KEPT)),
        silence: SILENCE_MAX,
        buffer_bytes: BUFFER_BYTES,
        refused: Arc::new(|_| {}),
    };
    let ending = CancellationToken::new();
    let _ends = ending.clone().drop_guard();
    connections::serve(listener, router, port, ending).await;
}

async fn alive() -> &'static str {
    "ok\n"
}

async fn metrics(State(context): State<Arc<Context>>) -> Response {
    match context.metrics.write() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The application's `preStop` hook: stops pulls, and answers when the application may be ended. The kubelet calls it from
/// outside of the pod, so anyone on the network can; that makes pauses, which are bounded.
async fn quiesce(State(context): State<Arc<Context>>) -> &'static str {
    let Ok(_waiting) = context.quiesce.hooks.try_acquire() else { return "others wait for this already\n" };
    match quiesce::quiesce(&context).await {
        true => "quiescent\n",
        false => "calls are still open\n",
    }
}

/// Drains for good, and answers when it is done. Only for the pod itself: others could stop its work with it.
async fn drain(State(context): State<Arc<Context>>, ConnectInfo(peer): ConnectInfo<SocketAddr>) -> Response {
    if !peer.ip().to_canonical().is_loopback() {
        return (StatusCode::FORBIDDEN, "drain is for this pod alone\n").into_response();
    }
    context.drain.cancel();
    context.drained.cancelled().await;
    "drained\n".into_response()
}
