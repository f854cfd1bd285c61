//! A Broker as its clients and its operators see it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use capstan_api::control::QueueState;
use capstan_api::message::{Peek, PeekedMessage, Pull, PulledMessage, Retry, Send, SendBatch, Settle};
use capstan_api::number::Whole;
use capstan_api::{BROKER_ADMIN_PORT, BROKER_PORT, Client, ControlClient, Name};
use serde_json::value::to_raw_value;
use serde_json::{Value, json};

use super::{Namespace, SHORT, until};

/// The most messages of one request.
const BATCH: usize = 100;

/// The Broker `default` of a namespace.
pub struct BrokerAccess<'a> {
    namespace: &'a Namespace,
    account: Name,
}

impl<'a> BrokerAccess<'a> {
    #[must_use]
    pub fn of(namespace: &'a Namespace) -> Self {
        Self { namespace, account: Name::new(namespace.name.as_str()).unwrap() }
    }

    /// Its address for clients.
    ///
    /// # Errors
    /// When there is none yet.
    pub async fn address(&self) -> Result<String, String> {
        let Namespace { cluster, name } = self.namespace;
        cluster.reach.service(name, "capstan-default", ("capstan-default-0", BROKER_PORT)).await
    }

    async fn client(&self) -> Result<Client, String> {
        Client::new(&self.address().await?).map_err(|error| error.to_string())
    }

    /// Sends bodies and gives back the messages' ids. Waits for the queue; afterwards every send must succeed at once.
    ///
    /// # Panics
    /// When the queue takes nothing within [`SHORT`], or one of the sends fails.
    pub async fn send(&self, queue: &str, bodies: &[Value]) -> Vec<String> {
        let name = Name::new(queue).unwrap();
        until(&format!("queue {queue} is known to the broker"), SHORT, async || {
            let metrics = self.client().await?.metrics(&self.account, &name).await;
            metrics.map_err(|error| error.to_string())
        })
        .await;
        self.send_now(queue, bodies).await
    }

    /// The same for a queue that the broker knows.
    ///
    /// # Panics
    /// When one of the sends fails.
    pub async fn send_now(&self, queue: &str, bodies: &[Value]) -> Vec<String> {
        self.send_later(queue, bodies, 0).await
    }

    /// The same with a delay, in seconds.
    ///
    /// # Panics
    /// When one of the sends fails.
    pub async fn send_later(&self, queue: &str, bodies: &[Value], delay: u64) -> Vec<String> {
        let (name, client) = (Name::new(queue).unwrap(), self.client().await.unwrap());
        let mut ids = Vec::new();
        for bodies in bodies.chunks(BATCH) {
            let messages = bodies.iter().map(message).collect();
            let batch = SendBatch { messages, delay_seconds: (delay > 0).then(|| delay.into()) };
            ids.extend(client.send_batch(&self.account, &name, &batch).await.unwrap().ids);
        }
        assert_eq!(ids.len(), bodies.len(), "each message has an id");
        ids
    }

    /// What the broker knows of a queue, asked of its admin port: exact counts, and totals since its start.
    ///
    /// # Errors
    /// When it does not answer, or does not know the queue.
    pub async fn state(&self, queue: &str) -> Result<QueueState, String> {
        let Namespace { cluster, name } = self.namespace;
        let address = cluster.reach.pod(name, "capstan-default-0", BROKER_ADMIN_PORT).await?;
        let control = ControlClient::new(&address).map_err(|error| error.to_string())?;
        let state = control.state().await.map_err(|error| error.to_string())?;
        let found = state.queues.into_iter().find(|one| one.name.as_str() == queue);
        found.ok_or_else(|| format!("the broker does not know queue {queue}"))
    }

    /// Waits until a queue holds nothing, as clients see it, and gives back what the broker counted.
    ///
    /// # Panics
    /// When it is not empty within the deadline.
    pub async fn wait_until_empty(&self, queue: &str, within: Duration) -> QueueState {
        let name = Name::new(queue).unwrap();
        until(&format!("queue {queue} is empty"), within, async || {
            let metrics = self.client().await?.metrics(&self.account, &name).await;
            let left = metrics.map_err(|error| error.to_string())?.backlog_count;
            if left > 0 { Err(format!("{left} messages are left")) } else { self.state(queue).await }
        })
        .await
    }

    /// Pulls once, as a pull consumer does, up to so many messages.
    ///
    /// # Errors
    /// When the broker does not answer or refuses.
    pub async fn pull(&self, queue: &str, most: u64) -> Result<Vec<PulledMessage>, String> {
        let (name, pull) =
            (Name::new(queue).unwrap(), Pull { batch_size: Some(Whole(most)), ..Pull::default() });
        let pulled = self.client().await?.pull(&self.account, &name, &pull).await;
        pulled.map(|pulled| pulled.messages).map_err(|error| error.to_string())
    }

    /// Gives pulled messages back as failed, which costs each an attempt.
    ///
    /// # Panics
    /// When the broker does not take it.
    pub async fn retry(&self, queue: &str, messages: &[PulledMessage]) {
        let retry = |message: &PulledMessage| Retry {
            lease_id: message.lease_id.clone(),
            delay_seconds: None,
            reason: None,
        };
        let settle = Settle { retries: messages.iter().map(retry).collect(), ..Settle::default() };
        let client = self.client().await.unwrap();
        client.settle(&self.account, &Name::new(queue).unwrap(), &settle).await.unwrap();
    }

    /// The oldest messages of a queue.
    ///
    /// # Errors
    /// When the broker does not answer or refuses.
    pub async fn peek(&self, queue: &str) -> Result<Vec<PeekedMessage>, String> {
        let name = Name::new(queue).unwrap();
        let peeked = self.client().await?.peek(&self.account, &name, &Peek::default()).await;
        peeked.map(|peeked| peeked.messages).map_err(|error| error.to_string())
    }
}

fn message(body: &Value) -> Send {
    Send { body: to_raw_value(body).unwrap(), content_type: None, delay_seconds: None, attributes: None }
}

/// An order that the example application handles, in so many milliseconds.
#[must_use]
pub fn order(number: usize, takes_ms: u64) -> Value {
    json!({"id": number, "takesMs": takes_ms})
}
