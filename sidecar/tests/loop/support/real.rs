//! A real broker in this process, on a folder of its own.

use std::net::SocketAddr;
use std::time::Duration;

use capstan_api::control::{ConsumerPolicy, Declaration, PushPolicy, QueuePolicy, QueueState};
use capstan_api::message::Send;
use capstan_api::workload::Endpoint;
use capstan_api::{Client, ControlClient};
use capstan_sidecar::Config;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{name, soon};

pub(crate) struct Real {
    data: TempDir,
    address: SocketAddr,
    admin: SocketAddr,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Real {
    pub(crate) async fn start() -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut real = Self { data: TempDir::new().unwrap(), address: any, admin: any, running: None };
        real.begin().await;
        real
    }

    /// Starts it; after [`Real::stop`] at the same address and with the same data.
    pub(crate) async fn begin(&mut self) {
        let broker = capstan_broker::Broker::open(self.data.path(), self.address, self.admin).await.unwrap();
        (self.address, self.admin) = (broker.address(), broker.admin_address());
        let (stop, asked) = oneshot::channel();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = asked.await;
            };
            broker.run(shutdown).await.unwrap();
        });
        self.running = Some((stop, task));
    }

    /// Ends it, as a planned restart does.
    pub(crate) async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        stop.send(()).unwrap();
        soon("the broker ends", task).await.unwrap();
    }

    /// Where its admin port listens.
    pub(crate) const fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.address)).unwrap()
    }

    fn control(&self) -> ControlClient {
        ControlClient::new(&format!("http://{}", self.admin)).unwrap()
    }

    /// Configuration of a sidecar of `Deployment/shop`, with an admin port.
    pub(crate) fn config(&self) -> Config {
        let workload = "Deployment/shop".parse().unwrap();
        let config = Config::new(format!("http://{}", self.address), name("shop"), workload, "shop-1");
        Config { admin: Some("127.0.0.1:0".parse().unwrap()), ..config }
    }

    pub(crate) async fn declare(&self, queues: Vec<QueuePolicy>) {
        let declaration = Declaration { revision: "1".to_owned(), declarer: String::new(), queues };
        self.control().declare(&declaration).await.unwrap();
    }

    /// Sends messages with the bodies `{"n": …}` to `orders`, and gives back their ids.
    pub(crate) async fn send(&self, count: usize) -> Vec<String> {
        self.send_to("orders", count).await
    }

    pub(crate) async fn send_to(&self, queue: &str, count: usize) -> Vec<String> {
        let (client, mut ids) = (self.client(), Vec::new());
        for n in 0..count {
            let body = serde_json::value::to_raw_value(&json!({ "n": n })).unwrap();
            let message = Send { body, content_type: None, delay_seconds: None, attributes: None };
            ids.extend(client.send(&name("shop"), &name(queue), &message).await.unwrap().ids);
        }
        ids
    }

    pub(crate) async fn state(&self, queue: &str) -> QueueState {
        let state = self.control().state().await.unwrap();
        state.queues.into_iter().find(|state| state.name == name(queue)).unwrap()
    }

    /// Waits until a queue's state is as wished.
    pub(crate) async fn until(
        &self,
        queue: &str,
        what: &str,
        condition: impl Fn(&QueueState) -> bool,
    ) -> QueueState {
        let mut last = None;
        let wished = async {
            loop {
                let state = self.state(queue).await;
                if condition(&state) {
                    return state;
                }
                last = Some(state);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(super::PATIENCE, wished).await {
            Ok(state) => state,
            Err(_) => panic!("still not: {what}; {last:?}"),
        }
    }
}

/// A queue without a consumer.
pub(crate) fn queue(queue: &str) -> QueuePolicy {
    QueuePolicy {
        namespace: name("shop"),
        name: name(queue),
        delivery_paused: false,
        delivery_delay_ms: 0,
        retention_ms: 86_400_000,
        max_message_bytes: 128_000,
        max_bytes: None,
        max_messages: None,
        consumer: None,
        resource: String::new(),
        purged_by: None,
    }
}

/// The queue `orders`, handed to an application on `port`, each message at most three times.
pub(crate) fn orders(port: u16) -> QueuePolicy {
    let push = PushPolicy {
        workload: "Deployment/shop".parse().unwrap(),
        endpoint: Endpoint { port, path: "/take".to_owned(), timeout_ms: 60_000 },
        max_batch_size: 10,
        max_batch_bytes: 256_000,
        max_wait_ms: 0,
        concurrency_per_pod: 1,
    };
    let consumer = ConsumerPolicy {
        name: name("orders"),
        push: Some(push),
        max_retries: 2,
        retry_delay_ms: 0,
        retry_backoff: None,
        max_concurrency: None,
        dead_letter_queue: Some(name("orders-dlq")),
        visibility_timeout_ms: 30_000,
        paused: false,
    };
    QueuePolicy { consumer: Some(consumer), ..queue("orders") }
}
