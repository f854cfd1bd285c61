//! A running sidecar: binds, follows the broker, drains.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use capstan_api::{Client, ClientError};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, LAST_SETTLES};
use crate::context::Context;
use crate::event::{EVENTS_MAX, Event};
use crate::gateway::{Gateway, GatewayError};
use crate::metrics::Metrics;
use crate::quiesce::{self, Quiesce};
use crate::reach::{self, Reach};
use crate::{admin, call, policies, supervisor};

/// Why a sidecar did not start.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    #[error(transparent)]
    Broker(#[from] ClientError),
    #[error("no HTTP client can be made: {0}")]
    Application(#[from] reqwest::Error),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error("cannot listen on {address}: {source}; set {} to a free port", crate::config::ADMIN_PORT)]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("metrics cannot be set up: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A sidecar whose ports, if it has some, are bound.
#[derive(Debug)]
pub struct Sidecar {
    context: Arc<Context>,
    admin: Option<TcpListener>,
    gateway: Option<Gateway>,
}

impl Sidecar {
    /// Prepares a sidecar. Nothing is asked of the broker or the application before [`Sidecar::run`].
    ///
    /// # Errors
    /// [`SidecarError`].
    pub async fn bind(config: Config) -> Result<Self, SidecarError> {
        let Config { broker_url, namespace, workload, pod, admin, gateway, drain_timeout, reporting } =
            config;
        let gateway = match gateway {
            Some(settings) => Some(Gateway::bind_or_wait(&broker_url, namespace.clone(), &settings).await?),
            None => None,
        };
        let context = Context {
            broker: Client::new(&broker_url)?.with_identity(workload.clone(), pod.clone()),
            namespace,
            workload,
            pod,
            application: call::client()?,
            metrics: Metrics::new(gateway.as_ref().map(Gateway::metrics))?,
            events: broadcast::Sender::new(EVENTS_MAX),
            drain_timeout,
            quiesce: Quiesce::new(),
            reach: Reach::new(reporting),
            drain: CancellationToken::new(),
            cut: CancellationToken::new(),
            drained: CancellationToken::new(),
        };
        let admin = match admin {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        Ok(Self { context: Arc::new(context), admin, gateway })
    }

    /// Where the admin port is bound.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Where the gateway listens on IPv4, or will when its port is free.
    #[must_use]
    pub fn gateway_address(&self) -> Option<SocketAddr> {
        self.gateway.as_ref().map(Gateway::address)
    }

    /// What happens from now on; at most [`EVENTS_MAX`] events wait for a slow listener.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.context.events.subscribe()
    }

    /// Works until `shutdown`; then drains, which takes at most [`Config::drain_timeout`] and three seconds. A drain
    /// that was asked for at the admin port comes earlier and is final; even then this returns after `shutdown` only.
    ///
    /// The gateway ends last, within three seconds more: an application that finishes its calls still sends.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { context, admin, gateway } = self;
        let (mut tasks, mut gateways) = (JoinSet::new(), JoinSet::new());
        let close = CancellationToken::new();
        if let Some(gateway) = gateway {
            gateways.spawn(gateway.run(close.clone().cancelled_owned()));
        }
        if let Some(listener) = admin {
            tasks.spawn(admin::serve(listener, Arc::clone(&context)));
        }
        let (sender, receiver) = watch::channel(Vec::new());
        tasks.spawn(policies::follow(Arc::clone(&context), sender));
        tasks.spawn(quiesce::watch(Arc::clone(&context), receiver.clone()));
        let mut reporting = JoinSet::new();
        reporting.spawn(reach::report(Arc::clone(&context)));
        let working = supervisor::run(Arc::clone(&context), receiver);
        let mut working = std::pin::pin!(drain(&context, working));
        let mut shutdown = std::pin::pin!(shutdown);
        tokio::select! {
            () = &mut shutdown => {
                context.drain.cancel();
                working.await;
            }
            () = &mut working => shutdown.await,
        }
        reporting.join_next().await;
        close.cancel();
        while gateways.join_next().await.is_some() {}
        tracing::info!("ended");
    }
}

/// Runs `working` to its end. After the drain began it has a time, then its calls are cut.
async fn drain(context: &Context, working: impl Future<Output = ()>) {
    let mut working = std::pin::pin!(working);
    let bounded = async {
        context.drain.cancelled().await;
        tracing::info!(
            seconds = context.drain_timeout.as_secs_f64(),
            "draining: nothing is pulled any more, open calls are finished"
        );
        tokio::time::sleep(context.drain_timeout).await;
        tracing::warn!("the drain took too long: open calls are cut, and their messages released");
        context.cut.cancel();
        tokio::time::sleep(LAST_SETTLES).await;
        tracing::warn!("the broker did not take the last verdicts; their leases end by time");
    };
    tokio::select! {
        () = &mut working => tracing::info!("drained"),
        () = bounded => {}
    }
    context.drained.cancel();
}

/// Binds; on a machine without IPv6, the IPv4 addresses must do.
async fn listen(address: SocketAddr) -> Result<TcpListener, SidecarError> {
    let bound = match TcpListener::bind(address).await {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() => {
            let second = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await;
            second.map_err(|_| error)
        }
        other => other,
    };
    bound.map_err(|source| SidecarError::Listen { address, source })
}
