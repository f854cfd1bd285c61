//! Clients that send and consume while the broker is killed again and again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use capstan_api::message::{Lease, Pull, PulledMessage, Retry, SendBatch, Settle, Settled};
use capstan_api::number::{Number, Whole};
use capstan_api::{Client, ClientError, IdempotencyKey};
use e2e::process::{Broker, Killer};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::MAX_RETRIES;
use super::history::{Delivery, History, Message};
use crate::fixture::{json_of, message_of, name};

/// Of its own: a request must not reach the queue of another test's broker, should that have this one's port.
pub(super) const NAMESPACE: &str = "crash";
/// Between two requests of a producer, so that the consumers are never hopelessly behind.
const PACE: Duration = Duration::from_millis(3);
/// After a broken connection, before the next try.
const PAUSE: Duration = Duration::from_millis(5);

/// Where the broker is now, and what the clients are to do.
#[derive(Clone)]
pub(super) struct Target {
    state: Arc<watch::Sender<State>>,
    trap: Arc<Mutex<Option<(Moment, Killer)>>>,
}

/// The arrival of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// To a send.
    Stored,
    /// To verdicts.
    Settled,
}

#[derive(Clone)]
struct State {
    /// None while there is no broker: its port may be another program's by now.
    client: Option<Client>,
    sending: bool,
    draining: bool,
}

impl Target {
    pub(super) fn new(broker: &Broker) -> Self {
        let state = State { client: Some(broker.client()), sending: true, draining: false };
        Self { state: Arc::new(watch::Sender::new(state)), trap: Arc::default() }
    }

    /// Kills the broker when the next such answer arrives.
    pub(super) fn kill_at(&self, moment: Moment, killer: Killer) {
        *self.trap.lock().unwrap() = Some((moment, killer));
    }

    pub(super) fn disarm(&self) {
        *self.trap.lock().unwrap() = None;
    }

    /// Called at once when an answer arrived.
    fn arrived(&self, moment: Moment) {
        let mut trap = self.trap.lock().unwrap();
        if let Some((_, killer)) = trap.take_if(|(awaited, _)| *awaited == moment) {
            killer.kill();
            self.lost();
        }
    }

    pub(super) fn point_at(&self, broker: &Broker) {
        self.state.send_modify(|state| state.client = Some(broker.client()));
    }

    /// The broker is about to be killed, or was.
    pub(super) fn lost(&self) {
        self.state.send_modify(|state| state.client = None);
    }

    pub(super) fn stop_sending(&self) {
        self.state.send_modify(|state| state.sending = false);
    }

    /// From now on consumers acknowledge everything, and end when the queue is empty.
    pub(super) fn drain(&self) {
        self.state.send_modify(|state| state.draining = true);
    }

    fn now(&self) -> State {
        self.state.borrow().clone()
    }
}

/// Whether a request that failed may have taken effect: not when it was refused, or no connection was made.
fn is_unknown(error: &ClientError) -> bool {
    match error {
        ClientError::Transport(error) => !error.is_connect(),
        ClientError::Refused { status: 503, .. } => true,
        ClientError::Refused { status: 429, .. } => false,
        other => panic!("a refusal that nobody asked for: {other}"),
    }
}

/// The body of a message: any other one was made up.
pub(super) fn body(message: Message) -> Value {
    let (producer, number) = message;
    // Wraps: a long run has many.
    let length = producer.wrapping_mul(7_919).wrapping_add(number.wrapping_mul(104_729)) % 3_000;
    json!({ "producer": producer, "number": number, "padding": "x".repeat(length as usize) })
}

fn message(pulled: &PulledMessage) -> Message {
    let found = json_of(&pulled.body);
    let part = |name: &str| u32::try_from(found[name].as_u64().expect("a body of this test")).unwrap();
    let message = (part("producer"), part("number"));
    assert_eq!(found, body(message), "a body was changed");
    message
}

/// Sends one by one and in batches: every second producer each message once, the others again and again with a key until
/// there is an answer.
pub(super) struct Producer {
    number: u32,
    repeats: bool,
    next: u32,
    random: StdRng,
    history: Arc<History>,
    target: Target,
}

impl Producer {
    pub(super) fn new(number: u32, seed: u64, history: &Arc<History>, target: &Target) -> Self {
        let random = StdRng::seed_from_u64(seed ^ (u64::from(number) + 1));
        let (history, target) = (Arc::clone(history), target.clone());
        Self { number, repeats: number.is_multiple_of(2), next: 0, random, history, target }
    }

    pub(super) async fn run(mut self) {
        while self.target.now().sending {
            let send = self.make();
            while !self.send(&send).await && self.repeats {}
            tokio::time::sleep(PACE).await;
        }
    }

    fn make(&mut self) -> Outgoing {
        let count = if self.random.random_bool(0.7) { 1 } else { self.random.random_range(2..=12) };
        let messages: Vec<Message> = (self.next..self.next + count).map(|n| (self.number, n)).collect();
        self.next += count;
        let delay = self.random.random_bool(0.05).then_some(1);
        let wire = |message: &Message| message_of(&json!({ "body": body(*message), "delay_seconds": delay }));
        let wire = messages.iter().map(wire).collect();
        let key = self.repeats.then(|| format!("{}-{}", self.number, self.next).parse().unwrap());
        Outgoing { batch: SendBatch { messages: wire, delay_seconds: None }, messages, key }
    }

    /// Says whether it was answered.
    async fn send(&self, send: &Outgoing) -> bool {
        let Some(client) = self.target.now().client else {
            tokio::time::sleep(PAUSE).await;
            return false;
        };
        let Outgoing { messages, batch, key } = send;
        self.history.attempted(messages, key.is_some());
        let (shop, orders) = (&name(NAMESPACE), &name("orders"));
        let sent = match (batch.messages.as_slice(), key) {
            ([message], None) => client.send(shop, orders, message).await,
            ([message], Some(key)) => client.send_once(shop, orders, message, key).await,
            (_, None) => client.send_batch(shop, orders, batch).await,
            (_, Some(key)) => client.send_batch_once(shop, orders, batch, key).await,
        };
        match sent {
            Ok(sent) => {
                self.target.arrived(Moment::Stored);
                self.history.stored(messages, sent.ids);
                true
            }
            Err(error) => {
                if is_unknown(&error) {
                    self.history.unknown(key.is_some());
                }
                tokio::time::sleep(PAUSE).await;
                false
            }
        }
    }
}

/// A send, and the key by which it is repeated.
struct Outgoing {
    messages: Vec<Message>,
    batch: SendBatch,
    key: Option<IdempotencyKey>,
}

/// Pulls, and acknowledges, retries or forgets what it gets.
pub(super) struct Consumer {
    random: StdRng,
    history: Arc<History>,
    target: Target,
}

impl Consumer {
    pub(super) fn new(number: u32, seed: u64, history: &Arc<History>, target: &Target) -> Self {
        let random = StdRng::seed_from_u64(seed ^ (u64::from(number) + 1_000));
        Self { random, history: Arc::clone(history), target: target.clone() }
    }

    pub(super) async fn run(mut self) {
        loop {
            let State { client, draining, .. } = self.target.now();
            let Some(client) = client else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let count = if draining { 100 } else { self.random.random_range(1..=100) };
            let Some(pulled) = pull(&client, "orders", count, &self.history).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            if pulled.is_empty() && draining && is_empty(&client, "orders").await {
                return;
            }
            let settle = self.verdicts(&pulled, draining);
            settle_all(&client, "orders", &pulled, settle, &self.history, Some(&self.target)).await;
        }
    }

    fn verdicts(&mut self, pulled: &[PulledMessage], draining: bool) -> Settle {
        let mut settle = Settle::default();
        for message in pulled {
            let lease_id = message.lease_id.clone();
            let chance: f64 = if draining { 0.0 } else { self.random.random() };
            match chance {
                ..0.8 => settle.acks.push(Lease { lease_id }),
                0.8..0.95 => {
                    let delay_seconds = self.random.random_bool(0.3).then(|| Number::from(1));
                    settle.retries.push(Retry { lease_id, delay_seconds, reason: None });
                }
                0.95..0.98 => settle.releases.push(Lease { lease_id }),
                // Forgotten: the lease ends by time.
                _ => {}
            }
        }
        settle
    }
}

/// Acknowledges everything in a queue until it is empty.
pub(super) async fn empty(broker: &Broker, queue: &'static str, history: &History) {
    let client = broker.client();
    while !is_empty(&client, queue).await {
        let pulled = pull(&client, queue, 100, history).await.expect("a broker that lives");
        let acks = pulled.iter().map(|one| Lease { lease_id: one.lease_id.clone() }).collect();
        settle_all(&client, queue, &pulled, Settle { acks, ..Settle::default() }, history, None).await;
    }
}

async fn is_empty(client: &Client, queue: &str) -> bool {
    client.metrics(&name(NAMESPACE), &name(queue)).await.unwrap().backlog_count == 0
}

/// Pulls and writes down what came; `None` when there was no answer.
async fn pull(
    client: &Client,
    queue: &'static str,
    count: u64,
    history: &History,
) -> Option<Vec<PulledMessage>> {
    let (batch_size, idle_ms) = (Some(Whole(count)), Some(Whole(100)));
    let pull = Pull { batch_size, idle_ms, ..Pull::default() };
    let asked = history.now();
    let pulled = match client.pull(&name(NAMESPACE), &name(queue), &pull).await {
        Ok(pulled) => pulled.messages,
        Err(error) => {
            is_unknown(&error);
            return None;
        }
    };
    let answered = history.now();
    for one in &pulled {
        let (message, id, attempt) = (message(one), one.id.clone(), one.attempts);
        history.delivered(Delivery { message, id, queue, attempt, asked, answered });
        if queue == "letters" {
            let told =
                (&one.metadata["capstan-dead-letter-queue"], &one.metadata["capstan-dead-letter-attempts"]);
            let expected = ("orders".to_owned(), (MAX_RETRIES + 1).to_string());
            assert_eq!(told, (&expected.0, &expected.1), "what {message:?} tells of its death");
        }
    }
    Some(pulled)
}

async fn settle_all(
    client: &Client,
    queue: &'static str,
    pulled: &[PulledMessage],
    settle: Settle,
    history: &History,
    target: Option<&Target>,
) {
    let released =
        |one: &&PulledMessage| settle.releases.iter().any(|release| release.lease_id == one.lease_id);
    history.releasing(pulled.iter().filter(released).map(|one| (message(one), one.attempts)));
    let settled = match client.settle(&name(NAMESPACE), &name(queue), &settle).await {
        Ok(settled) => settled,
        Err(error) => {
            is_unknown(&error);
            return;
        }
    };
    if let Some(target) = target {
        target.arrived(Moment::Settled);
    }
    let acknowledged = |one: &&PulledMessage| {
        settle.acks.iter().any(|ack| ack.lease_id == one.lease_id) && had_effect(&settled, &one.lease_id)
    };
    history.acknowledged(pulled.iter().filter(acknowledged).map(message));
}

/// A late ack of a message that lives counts, and is told by a warning; any other warning means no effect.
fn had_effect(settled: &Settled, lease: &str) -> bool {
    settled.warnings.get(lease).is_none_or(|text| text.contains("was acknowledged all the same"))
}
