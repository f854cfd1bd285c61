//! The admin port: probes, metrics and the hooks. It is open to the pod's network, and so serves nothing else there.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;

use crate::context::Context;
use crate::{drain, quiesce};

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
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    if let Err(error) = axum::serve(listener, service).await {
        tracing::error!(%error, "the admin port failed");
    }
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
