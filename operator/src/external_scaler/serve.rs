//! The gRPC server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::Demands;
use super::generated::external_scaler_server::ExternalScalerServer;
use super::incoming::incoming;
use super::service::{STREAMS_MAX, Scaler};

/// Requests answered at once for each connection; streams that are open do not count.
const AT_ONCE: usize = 64;
/// Bytes of a request: the metadata of one trigger.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a request's headers.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// How long a request may take. Streams are answered at once, and then stay open.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a connection is tried, and how long that may take: of a node that is gone nothing else is heard.
const KEEPALIVE: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(10)];

/// Serves KEDA until `shutdown`, by which streams and connections end well.
///
/// # Errors
/// The server cannot go on.
pub(crate) async fn serve(
    listener: TcpListener,
    demands: Arc<dyn Demands>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let streams = u32::try_from(STREAMS_MAX + AT_ONCE).unwrap_or(u32::MAX);
    let service = ExternalScalerServer::new(Scaler::new(demands, shutdown.clone()));
    Server::builder()
        .concurrency_limit_per_connection(AT_ONCE)
        .timeout(TIMEOUT)
        .max_concurrent_streams(streams)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE[0]))
        .http2_keepalive_timeout(Some(KEEPALIVE[1]))
        .add_service(service.max_decoding_message_size(REQUEST_BYTES_MAX))
        .serve_with_incoming_shutdown(incoming(listener), shutdown.cancelled_owned())
        .await
        .context("the external scaler ended")
}
