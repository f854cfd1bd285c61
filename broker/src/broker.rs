//! A running broker: the engine, and the two ports before it.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::{self, EngineError};
use crate::http::{self, AppState};
use crate::store::{FjallStore, StoreError};

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
    #[error("the engine's thread panicked")]
    Panicked,
}

/// A broker whose store is open and whose ports are bound.
pub struct Broker {
    state: AppState,
    engine: engine::Handle,
    ended: engine::Ended,
    ending: CancellationToken,
    data: (TcpListener, SocketAddr),
    admin: (TcpListener, SocketAddr),
}

impl Broker {
    /// Opens the store in `folder`, recovers, and binds the ports (port 0 takes any).
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn open(
        folder: &Path,
        listen: SocketAddr,
        admin_listen: SocketAddr,
    ) -> Result<Self, BrokerError> {
        let began = Instant::now();
        let path = folder.to_owned();
        // Opening replays the journal: it may take seconds, and blocks.
        let opened = tokio::task::spawn_blocking(move || start(&path)).await;
        let (engine, ended) = opened.map_err(|_| BrokerError::Panicked)??;
        tracing::info!(data = %folder.display(), seconds = began.elapsed().as_secs_f64(), "store recovered");
        let ending = CancellationToken::new();
        let state = AppState::new(engine.clone(), Arc::from(folder), ending.clone());
        let (data, admin) = (bind(listen).await?, bind(admin_listen).await?);
        Ok(Self { state, engine, ended, ending, data, admin })
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
        let Self { state, engine, mut ended, ending, data, admin } = self;
        let servers = TaskTracker::new();
        let routers = [("api", data, http::data(state.clone())), ("admin", admin, http::admin(state))];
        for (port, (listener, address), router) in routers {
            tracing::info!(port, %address, "listening");
            servers.spawn(serve(listener, router, ending.clone()));
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

fn start(folder: &Path) -> Result<Started, BrokerError> {
    Ok(engine::start(FjallStore::open(folder)?)?)
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BrokerError> {
    let failed = |source| BrokerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn serve(listener: TcpListener, router: Router, ending: CancellationToken) {
    let listener = axum::serve::ListenerExt::tap_io(listener, |connection: &mut tokio::net::TcpStream| {
        // Answers are small and waited for.
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set");
        }
    });
    let served = axum::serve(listener, router).with_graceful_shutdown(ending.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "a port is no longer served");
    }
}

fn failure(result: Result<Result<(), EngineError>, oneshot::error::RecvError>) -> BrokerError {
    match result {
        Ok(Err(error)) => error.into(),
        Ok(Ok(())) | Err(_) => BrokerError::Panicked,
    }
}
