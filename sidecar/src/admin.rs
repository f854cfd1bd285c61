//! The admin port: probes, metrics and the drain. It is open to the pod's network, and so serves nothing else there.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;

use crate::context::Context;
use crate::drain;

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, context: Arc<Context>) {
    let router = Router::new()
        // Answering shows that the event loop turns, and that the listener is up. A broker or an application that is
        // away is no reason to restart the sidecar or to hold up its pod.
        .route("/livez", get(alive))
        .route("/startupz", get(alive))
        .route("/metrics", get(metrics))
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

/// Drains for good, and answers when it is done. Only for the pod itself: others could stop its work with it.
async fn drain(State(context): State<Arc<Context>>, ConnectInfo(peer): ConnectInfo<SocketAddr>) -> Response {
    if !peer.ip().to_canonical().is_loopback() {
        return (StatusCode::FORBIDDEN, "drain is for this pod alone\n").into_response();
    }
    context.drain.cancel();
    context.drained.cancelled().await;
    "drained\n".into_response()
}
