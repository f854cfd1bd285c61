//! A scripted broker, a scripted application, and a sidecar between them.

pub(crate) mod app;
pub(crate) mod broker;
pub(crate) mod real;
pub(crate) mod sends;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use capstan_api::Name;
use capstan_api::workload::{Endpoint, Workload, WorkloadConsumer};
use capstan_sidecar::{Config, Event, Sidecar};
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinHandle;

use self::broker::Broker;

/// No condition of a test takes longer than this, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `what`, but not for ever.
pub(crate) async fn soon<T>(what: &str, condition: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, condition).await {
        Ok(result) => result,
        Err(_) => panic!("still not after {PATIENCE:?}: {what}"),
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A policy for the queue `orders` with an application on `port`.
pub(crate) fn policy(port: u16) -> WorkloadConsumer {
    WorkloadConsumer {
        namespace: name("shop"),
        queue: name("orders"),
        name: name("orders"),
        endpoint: Endpoint { port, path: "/take".to_owned(), timeout_ms: 60_000 },
        max_batch_size: 10,
        max_batch_bytes: 256_000,
        max_wait_ms: 0,
        concurrency_per_pod: 1,
        visibility_timeout_ms: 30_000,
        paused: false,
    }
}

pub(crate) fn config(broker: &Broker) -> Config {
    let workload: Workload = "Deployment/shop".parse().unwrap();
    Config::new(broker.url(), name("shop"), workload, "shop-1")
}

/// What is at `path` of a sidecar's admin port.
pub(crate) async fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    let answer = reqwest::get(format!("http://{admin}{path}")).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Waits until the sidecar's metrics are as wished.
pub(crate) async fn until_metrics(admin: SocketAddr, what: &str, condition: impl Fn(&str) -> bool) {
    let wished = async {
        while !condition(&get(admin, "/metrics").await.1) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(what, wished).await;
}

/// A sidecar that runs.
pub(crate) struct Running {
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    pub(crate) events: broadcast::Receiver<Event>,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) gateway: Option<SocketAddr>,
}

impl Running {
    pub(crate) async fn start(config: Config) -> Self {
        let sidecar = Sidecar::bind(config).await.unwrap();
        let (events, admin) = (sidecar.events(), sidecar.admin_address());
        let gateway = sidecar.gateway_address();
        let (shutdown, asked) = oneshot::channel();
        let task = tokio::spawn(sidecar.run(async {
            let _ = asked.await;
        }));
        Self { shutdown: Some(shutdown), task, events, admin, gateway }
    }

    /// Asks it to end, without waiting.
    pub(crate) fn shut_down(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(self) {
        soon("the sidecar ends", self.task).await.unwrap();
    }

    pub(crate) async fn end(mut self) {
        self.shut_down();
        self.ended().await;
    }
}
