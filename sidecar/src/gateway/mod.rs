//! The producer gateway: takes the application's sends on localhost, passes them on, and holds them while the broker is away.
//!
//! A request's way: `routes` reads it within the bounds of [`capstan_port`], `passing` tries until it is answered or its
//! time is over, `upstream` is one try.

mod metrics;
mod passing;
mod routes;
mod upstream;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderName;
use capstan_api::{ClientError, Name, SIDECAR_GATEWAY_PORT, client, idempotency};
use capstan_port::body::{Budget, PATIENCE};
use capstan_port::connections::{self, Connections, Port};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::seldom::Seldom;
pub(crate) use metrics::Metrics;
use upstream::Upstream;

/// The header that makes of several tries of a send one message.
const KEY: HeaderName = HeaderName::from_static(idempotency::HEADER);
/// How long a request is held unless configured: a broker restarts within seconds, and common clients wait for 30 s.
pub const HOLD_DEFAULT: Duration = Duration::from_secs(25);
/// Bytes of bodies that are held unless configured: with the largest batches of four calls, within 64 MiB of memory.
pub const HOLD_BYTES_DEFAULT: usize = 16 << 20;
/// Most connections of applications: one is in use for each request that is open.
const CONNECTIONS_MAX: usize = 512;
/// Longest head of a request, and what is buffered of an answer: both are small, and there may be many.
const BUFFER_BYTES: usize = 16 << 10;
/// How long requests may still be passed on when the gateway ends.
const LAST_SENDS: Duration = Duration::from_secs(2);
/// How long the last answers may take to be read.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How long it is waited before a port that was taken is tried again.
const LISTEN_AGAIN_MIN: Duration = Duration::from_millis(500);
const LISTEN_AGAIN_MAX: Duration = Duration::from_secs(15);

/// Where a gateway listens, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its port on 127.0.0.1, and on ::1 where there is one; 0 takes any.
    pub port: u16,
    /// How long a request is tried before it is answered 503; 1 s at least.
    pub hold: Duration,
    /// Bytes of bodies that are held at once; a send that is larger is refused.
    pub hold_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { port: SIDECAR_GATEWAY_PORT, hold: HOLD_DEFAULT, hold_bytes: HOLD_BYTES_DEFAULT }
    }
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The broker's address is none.
    #[error(transparent)]
    Broker(#[from] ClientError),
    /// The system does not let it make connections.
    #[error("no HTTP client can be made: {0}")]
    Client(#[from] reqwest::Error),
    /// The port is taken.
    #[error(
        "the gateway cannot listen on {address}: {source}; set {} to a free port, or sidecar.gatewayPort of the \
         workload's oldest Consumer",
        crate::config::GATEWAY_PORT
    )]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Two metrics have one name.
    #[error("metrics cannot be set up: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What the handlers of a gateway share.
#[derive(Debug)]
struct Shared {
    namespace: Name,
    upstream: Upstream,
    budget: Budget,
    connections: Arc<Connections>,
    hold: Duration,
    metrics: Arc<Metrics>,
    /// The gateway ends soon.
    ending: CancellationToken,
    warning: Seldom,
}

/// Its listeners, and the first one's address.
type Listening = (Vec<TcpListener>, SocketAddr);

/// A gateway, most often with its port bound.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    port: u16,
    /// Absent while another program has the port.
    listening: Option<Listening>,
}

impl Gateway {
    /// Binds a gateway to the queues of `namespace` at the broker of `broker_url`. Nothing is asked of it before a request.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub async fn bind(broker_url: &str, namespace: Name, settings: &Settings) -> Result<Self, GatewayError> {
        let gateway = Self::new(broker_url, namespace, settings)?;
        let listening = Some(listen(gateway.port).await?);
        Ok(Self { listening, ..gateway })
    }

    /// The same, but a port that is taken is waited for while it runs: without its sidecar a whole pod would not start.
    pub(crate) async fn bind_or_wait(
        broker_url: &str,
        namespace: Name,
        settings: &Settings,
    ) -> Result<Self, GatewayError> {
        let gateway = Self::new(broker_url, namespace, settings)?;
        let listening = match listen(gateway.port).await {
            Ok(listening) => Some(listening),
            Err(error) => {
                tracing::error!(%error, "the application cannot send through the gateway until then; all else goes on");
                None
            }
        };
        Ok(Self { listening, ..gateway })
    }

    fn new(broker_url: &str, namespace: Name, settings: &Settings) -> Result<Self, GatewayError> {
        let Settings { port, hold, hold_bytes } = *settings;
        let upstream = Upstream::new(client::base(broker_url)?)?;
        let (budget, connections) =
            (Budget::new(hold_bytes, PATIENCE), Arc::new(Connections::new(CONNECTIONS_MAX)));
        let metrics = Arc::new(Metrics::new(budget.clone(), Arc::clone(&connections))?);
        let (ending, warning) = (CancellationToken::new(), Seldom::default());
        let shared =
            Arc::new(Shared { namespace, upstream, budget, connections, hold, metrics, ending, warning });
        Ok(Self { shared, port, listening: None })
    }

    /// Where it listens on IPv4, or will.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        self.listening.as_ref().map_or(wanted, |(_, address)| *address)
    }

    pub(crate) fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Serves until `shutdown`, and then until what is open is answered, for three seconds at most.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { shared, port: number, listening } = self;
        let mut shutdown = std::pin::pin!(shutdown);
        let (listeners, address) = tokio::select! {
            listening = listening_at(number, listening) => listening,
            () = &mut shutdown => return,
        };
        let ending = shared.ending.clone();
        let port = Port {
            connections: Arc::clone(&shared.connections),
            silence: connections::SILENCE_MAX,
            buffer_bytes: BUFFER_BYTES,
            refused: Arc::new(|_| {}),
        };
        tracing::info!(port = "gateway", %address, "listening");
        shared.metrics.listening.set(1);
        let router = routes::router(shared);
        let mut serving = JoinSet::new();
        for listener in listeners {
            serving.spawn(connections::serve(listener, router.clone(), port.clone(), ending.clone()));
        }
        shutdown.await;
        ending.cancel();
        let served = async { while serving.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_SENDS + LAST_ANSWERS, served).await.is_err() {
            tracing::warn!("sends were still open; the application sees a broken connection");
        }
    }
}

/// Tries until the port is free.
async fn listening_at(port: u16, listening: Option<Listening>) -> Listening {
    if let Some(listening) = listening {
        return listening;
    }
    let mut backoff = Backoff::new(LISTEN_AGAIN_MIN, LISTEN_AGAIN_MAX);
    loop {
        tokio::time::sleep(backoff.wait()).await;
        if let Ok(listening) = listen(port).await {
            return listening;
        }
    }
}

/// Listens on both loopback addresses: applications that ask for `localhost` are given either. A machine without IPv6
/// has one.
async fn listen(port: u16) -> Result<Listening, GatewayError> {
    let bind = async |ip: IpAddr, port| {
        let address = SocketAddr::new(ip, port);
        TcpListener::bind(address).await.map_err(|source| GatewayError::Listen { address, source })
    };
    let first = bind(Ipv4Addr::LOCALHOST.into(), port).await?;
    let requested = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let address = first.local_addr().map_err(|source| GatewayError::Listen { address: requested, source })?;
    match bind(Ipv6Addr::LOCALHOST.into(), address.port()).await {
        Ok(second) => Ok((vec![first, second], address)),
        // Another program has it: its answers would be taken for the gateway's. Of any port, one address is enough.
        Err(GatewayError::Listen { address, source })
            if source.kind() == std::io::ErrorKind::AddrInUse && port != 0 =>
        {
            Err(GatewayError::Listen { address, source })
        }
        Err(_) => Ok((vec![first], address)),
    }
}
