//! A running broker: the engine, and the two ports before it.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_port::connections::{self, Connections, Port};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::descriptors::{self, Shares};
use crate::engine::{self, EngineError};
use crate::http::{self, AppState};
use crate::stats::Stats;
use crate::store::{FjallStore, Reserve, StoreError};

/// How long open requests may take to end before the engine is closed under them.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Why a broker did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the engine ended: {0}; what was not answered may or may not be stored")]
    Engine(#[from] EngineError),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("a metric cannot be made: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("the engine's thread panicked")]
    Panicked,
}

/// A broker whose store is open and whose ports are bound.
pub struct Broker {
    state: AppState,
    engine: engine::Handle,
    ended: engine::Ended,
    ending: CancellationToken,
    connections: Ports,
    stats: Arc<Stats>,
    data: (TcpListener, SocketAddr),
    admin: (TcpListener, SocketAddr),
}

/// The connections of both ports.
#[derive(Clone)]
pub(crate) struct Ports {
    pub(crate) api: Arc<Connections>,
    pub(crate) admin: Arc<Connections>,
}

impl Ports {
    fn new() -> Self {
        let Shares { api, admin, store } = descriptors::shares();
        tracing::info!(api, admin, store_files = store, "most connections and open files");
        Self { api: Arc::new(Connections::new(api)), admin: Arc::new(Connections::new(admin)) }
    }
}

impl Broker {
    /// Opens the store in `folder`, recovers, and binds the ports (port 0 takes any). Sends leave [`Reserve::LEAST`] of the
    /// volume free.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn open(
        folder: &Path,
        listen: SocketAddr,
        admin_listen: SocketAddr,
    ) -> Result<Self, BrokerError> {
        Self::open_with(folder, listen, admin_listen, Reserve::LEAST).await
    }

    /// The same, with a reserve of the caller's choice.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn open_with(
        folder: &Path,
        listen: SocketAddr,
        admin_listen: SocketAddr,
        reserve: Reserve,
    ) -> Result<Self, BrokerError> {
        let began = Instant::now();
        let path = folder.to_owned();
        // Opening replays the journal: it may take seconds, and blocks.
        let stats = Arc::new(Stats::new()?);
        let measured = Arc::clone(&stats);
        let opened = tokio::task::spawn_blocking(move || start(&path, reserve, measured)).await;
        let (engine, ended) = opened.map_err(|_| BrokerError::Panicked)??;
        stats.recovered(began.elapsed());
        tracing::info!(data = %folder.display(), seconds = began.elapsed().as_secs_f64(), "store recovered");
        let ending = CancellationToken::new();
        let connections = Ports::new();
        let state = AppState::new(engine.clone(), connections.clone(), Arc::clone(&stats), ending.clone());
        let (data, admin) = (bind(listen).await?, bind(admin_listen).await?);
        Ok(Self { state, engine, ended, ending, connections, stats, data, admin })
    }

    /// Where the HTTP API listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.data.1
    }

    /// Where the admin port listens.
    #[must_use]
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin.1
    }

    /// Serves until `shutdown` resolves, then answers what is open and ends; or ends when the engine fails.
    ///
    /// # Errors
    /// [`BrokerError`] when the engine failed: the process must end, and the next one recovers.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), BrokerError> {
        let Self { state, engine, mut ended, ending, connections, stats, data, admin } = self;
        let servers = TaskTracker::new();
        let routers = [
            ("api", data, http::data(state.clone()), connections.api),
            ("admin", admin, http::admin(state), connections.admin),
        ];
        for (name, (listener, address), router, connections) in routers {
            tracing::info!(port = name, %address, "listening");
            let (stats, ending) = (Arc::clone(&stats), ending.clone());
            let port = Port {
                connections,
                silence: connections::SILENCE_MAX,
                buffer_bytes: connections::BUFFER_BYTES,
                refused: Arc::new(move |code| stats.refused(code)),
            };
            servers.spawn(connections::serve(listener, router, port, ending));
        }
        servers.close();
        tokio::select! {
            () = shutdown => {}
            result = &mut ended => return Err(failure(result)),
        }
        tracing::info!("shutting down");
        ending.cancel();
        engine.stop_waiting();
        if tokio::time::timeout(DRAIN_MAX, servers.wait()).await.is_err() {
            tracing::warn!(
                seconds = DRAIN_MAX.as_secs(),
                "requests were still open; their clients see a broken connection"
            );
        }
        engine.close();
        ended.await.map_err(|_| BrokerError::Panicked)??;
        tracing::info!("store closed");
        Ok(())
    }
}

type Started = (engine::Handle, engine::Ended);

fn start(folder: &Path, reserve: Reserve, stats: Arc<Stats>) -> Result<Started, BrokerError> {
    Ok(engine::start(FjallStore::open_with(folder, reserve)?, stats)?)
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BrokerError> {
    let failed = |source| BrokerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn failure(result: Result<Result<(), EngineError>, oneshot::error::RecvError>) -> BrokerError {
    match result {
        Ok(Err(error)) => error.into(),
        Ok(Ok(())) | Err(_) => BrokerError::Panicked,
    }
}
