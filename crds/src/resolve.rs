//! From all Queues and Consumers to what each broker is told, and what each object is to be told.
//!
//! Pure and deterministic: the same objects give the same result, in whatever order they are listed.

use std::collections::BTreeMap;

use capstan_api::Name;
use capstan_api::control::{Declaration, QueuePolicy};
use kube_core::ResourceExt;
use kube_core::metadata::ObjectMeta;

use crate::queue::{BrokerRef, DeletionPolicy};
use crate::{Consumer, Queue, QueueSpec, label, policy};

/// Who declares without a cluster.
const LOCAL: &str = "capstan dev";
/// The namespace of objects that name none.
const NAMESPACE_DEFAULT: &str = "default";

/// A namespace and a name in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    /// The key of an object.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(
            meta.namespace.as_deref().unwrap_or(NAMESPACE_DEFAULT),
            meta.name.as_deref().unwrap_or_default(),
        )
    }

    /// A key of its parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Another name in the same namespace.
    #[must_use]
    pub fn sibling(&self, name: &str) -> Self {
        Self::new(&self.namespace, name)
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The Consumer that has a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub name: String,
    /// Empty without a cluster.
    pub uid: String,
}

/// What is to be said of a Queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueFinding {
    Accepted,
    /// It has no resource; a Consumer names it as its dead-letter queue.
    Missing {
        consumer: String,
    },
    InvalidName,
}

/// A queue, its place and its policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedQueue {
    pub key: Key,
    pub broker: Key,
    pub finding: QueueFinding,
    /// The first Consumer that came, until it is gone.
    pub claim: Option<Claim>,
    /// The dead-letter queue of that Consumer.
    pub dead_letter_queue: Option<Key>,
    /// What the broker is told; nothing of a queue whose name cannot be used. Who purges it is in the declaration.
    pub policy: Option<QueuePolicy>,
    /// What becomes of the messages when the resource is deleted.
    pub deletion: DeletionPolicy,
}

/// What is to be said of a Consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerFinding {
    /// It is the active Consumer of its queue.
    Accepted,
    InvalidName,
    QueueNotFound,
    QueueAlreadyConsumed {
        by: String,
    },
    /// A dead-letter queue has to be stored by the same Broker.
    DeadLetterQueueElsewhere {
        broker: String,
        queue_broker: String,
    },
}

/// A Consumer and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedConsumer {
    pub key: Key,
    pub queue: Key,
    /// The Broker of its queue, when there is such a queue.
    pub broker: Option<Key>,
    pub finding: ConsumerFinding,
}

/// What follows from all objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Every Queue, and those that are missing as dead-letter queues.
    pub queues: BTreeMap<Key, ResolvedQueue>,
    /// Every Consumer.
    pub consumers: BTreeMap<Key, ResolvedConsumer>,
}

/// Resolves all Queues and Consumers of any number of namespaces. Objects that are being deleted count as gone.
///
/// Of the Consumers that name a queue, the one in the Queue's `status.consumer` has it as long as it exists; otherwise
/// the oldest, by creation time, then UID, then name.
#[must_use]
pub fn resolve<'a>(
    queues: impl IntoIterator<Item = &'a Queue>,
    consumers: impl IntoIterator<Item = &'a Consumer>,
) -> Resolution {
    let mut resolution = Resolution::default();
    let mut holders: BTreeMap<Key, &str> = BTreeMap::new();
    for queue in queues.into_iter().filter(|queue| is_alive(&queue.metadata)) {
        let resolved = resolved_queue(queue);
        if let Some(holder) = queue.status.as_ref().and_then(|status| status.consumer.as_ref()) {
            holders.insert(resolved.key.clone(), &holder.uid);
        }
        resolution.queues.insert(resolved.key.clone(), resolved);
    }
    let mut candidates = candidates(consumers);
    // A queue that is only named as a dead-letter queue can have a Consumer too: look until nothing is added.
    while let Some(queue) = candidates.keys().find(|queue| resolution.queues.contains_key(queue)).cloned() {
        let rivals = candidates.remove(&queue).unwrap_or_default();
        let winner = winner(holders.get(&queue).copied(), &rivals);
        resolution.consume(&queue, &rivals, winner);
    }
    for (queue, rivals) in candidates {
        resolution.consume(&queue, &rivals, None);
    }
    resolution
}

impl Resolution {
    fn consume(&mut self, queue: &Key, rivals: &[&Consumer], winner: Option<&Consumer>) {
        let broker = self.queues.get(queue).map(|queue| queue.broker.clone());
        for consumer in rivals {
            let resolved = ResolvedConsumer {
                key: Key::of(&consumer.metadata),
                queue: queue.clone(),
                finding: finding(self, queue, broker.as_ref(), consumer, winner),
                broker: broker.clone(),
            };
            self.consumers.insert(resolved.key.clone(), resolved);
        }
    }

    /// The declaration of one Broker. `uid` is that of its resource: what a new Broker does not have yet, such as one that
    /// is restored from a backup piece by piece, was not deleted.
    #[must_use]
    pub fn declaration(&self, broker: &Key, uid: &str) -> Declaration {
        declaration(self.queues.values().filter(|queue| queue.broker == *broker), uid)
    }

    /// The declaration of a broker that stores every queue, whatever Broker each names: local mode. A queue is the same as
    /// long as some file has its name.
    #[must_use]
    pub fn declaration_of_all(&self) -> Declaration {
        let unnamed = |queue: &ResolvedQueue| {
            let policy = queue.policy.clone().map(|policy| QueuePolicy { resource: String::new(), ..policy });
            ResolvedQueue { policy, ..queue.clone() }
        };
        let queues: Vec<ResolvedQueue> = self.queues.values().map(unnamed).collect();
        declaration(queues.iter(), LOCAL)
    }

    /// Dead-letter queues that have no resource, as the objects to create: they belong to nobody, so that
    /// messages outlive the Consumer that named them.
    #[must_use]
    pub fn missing(&self) -> Vec<Queue> {
        let object = |queue: &ResolvedQueue| match &queue.finding {
            QueueFinding::Missing { consumer } => Some(implicit_queue(queue, consumer)),
            _ => None,
        };
        self.queues.values().filter_map(object).collect()
    }
}

fn is_alive(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_none()
}

fn resolved_queue(queue: &Queue) -> ResolvedQueue {
    let key = Key::of(&queue.metadata);
    let uid = queue.metadata.uid.as_deref().unwrap_or_default();
    let policy = names(&key).map(|(namespace, name)| policy::queue(namespace, name, uid, &queue.spec));
    ResolvedQueue {
        deletion: queue.spec.deletion_policy,
        broker: key.sibling(&queue.spec.broker_ref.name),
        finding: if policy.is_some() { QueueFinding::Accepted } else { QueueFinding::InvalidName },
        key,
        claim: None,
        dead_letter_queue: None,
        policy,
    }
}

/// Namespace and name as the wire has them.
fn names(key: &Key) -> Option<(Name, Name)> {
    Some((Name::new(&key.namespace).ok()?, Name::new(&key.name).ok()?))
}

/// The Consumers of each queue, oldest first.
fn candidates<'a>(consumers: impl IntoIterator<Item = &'a Consumer>) -> BTreeMap<Key, Vec<&'a Consumer>> {
    let mut candidates: BTreeMap<Key, Vec<&'a Consumer>> = BTreeMap::new();
    for consumer in consumers.into_iter().filter(|consumer| is_alive(&consumer.metadata)) {
        let queue = Key::of(&consumer.metadata).sibling(&consumer.spec.queue_ref.name);
        candidates.entry(queue).or_default().push(consumer);
    }
    for rivals in candidates.values_mut() {
        rivals.sort_by_key(|consumer| {
            let created = consumer.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (created, consumer.uid(), consumer.name_any())
        });
    }
    candidates
}

/// The Consumer that gets a queue: the one that has it already, or the first.
fn winner<'a>(holder: Option<&str>, rivals: &[&'a Consumer]) -> Option<&'a Consumer> {
    let holds = |c: &&&Consumer| holder.is_some() && c.metadata.uid.as_deref() == holder;
    let usable = |c: &&&Consumer| names(&Key::of(&c.metadata)).is_some();
    let sticky = rivals.iter().find(holds);
    sticky.or_else(|| rivals.iter().find(usable)).copied()
}

fn finding(
    resolution: &mut Resolution,
    queue: &Key,
    broker: Option<&Key>,
    consumer: &Consumer,
    winner: Option<&Consumer>,
) -> ConsumerFinding {
    let key = Key::of(&consumer.metadata);
    match (broker, names(&key), winner) {
        (_, None, _) => ConsumerFinding::InvalidName,
        (Some(broker), Some((_, name)), Some(winner)) => {
            if Key::of(&winner.metadata) == key {
                claim(resolution, queue, broker, consumer, name)
            } else {
                ConsumerFinding::QueueAlreadyConsumed { by: winner.name_any() }
            }
        }
        _ => ConsumerFinding::QueueNotFound,
    }
}

/// Gives a queue its Consumer.
fn claim(
    resolution: &mut Resolution,
    queue: &Key,
    broker: &Key,
    consumer: &Consumer,
    name: Name,
) -> ConsumerFinding {
    let dead_letter_queue = consumer.spec.dead_letter_queue_ref.as_ref().map(|r| queue.sibling(&r.name));
    let elsewhere = dead_letter_queue
        .as_ref()
        .map(|target| dead_letter_broker(resolution, target, broker, consumer))
        .filter(|found| found != broker);
    if let Some(resolved) = resolution.queues.get_mut(queue) {
        resolved.claim = Some(Claim { name: consumer.name_any(), uid: consumer.uid().unwrap_or_default() });
        if let Some(elsewhere) = elsewhere {
            // Delivering without the wanted dead-letter queue would drop messages; nothing is delivered until it fits.
            return ConsumerFinding::DeadLetterQueueElsewhere {
                broker: elsewhere.name,
                queue_broker: broker.name.clone(),
            };
        }
        let target = dead_letter_queue.as_ref().and_then(|target| Name::new(&target.name).ok());
        resolved.dead_letter_queue = dead_letter_queue;
        if let Some(policy) = &mut resolved.policy {
            policy.consumer = Some(policy::consumer(name, target, &consumer.spec));
        }
    }
    ConsumerFinding::Accepted
}

/// The Broker of a dead-letter queue; a queue that does not exist is added beside its source.
fn dead_letter_broker(resolution: &mut Resolution, target: &Key, broker: &Key, consumer: &Consumer) -> Key {
    let added = || {
        let spec = QueueSpec::default();
        ResolvedQueue {
            key: target.clone(),
            broker: broker.clone(),
            finding: QueueFinding::Missing { consumer: consumer.name_any() },
            claim: None,
            dead_letter_queue: None,
            policy: names(target).map(|(namespace, name)| policy::queue(namespace, name, "", &spec)),
            deletion: spec.deletion_policy,
        }
    };
    resolution.queues.entry(target.clone()).or_insert_with(added).broker.clone()
}

fn implicit_queue(queue: &ResolvedQueue, consumer: &str) -> Queue {
    let spec =
        QueueSpec { broker_ref: BrokerRef { name: queue.broker.name.clone() }, ..QueueSpec::default() };
    let mut object = Queue::new(&queue.key.name, spec);
    object.metadata.namespace = Some(queue.key.namespace.clone());
    let why = (label::CREATED_FOR.to_owned(), format!("Consumer/{consumer}"));
    object.metadata.annotations = Some(BTreeMap::from([why]));
    object
}

fn declaration<'a>(queues: impl Iterator<Item = &'a ResolvedQueue>, declarer: &str) -> Declaration {
    let told = |queue: &ResolvedQueue| {
        let goes = queue.deletion == DeletionPolicy::Delete && !declarer.is_empty();
        Some(QueuePolicy { purged_by: goes.then(|| declarer.to_owned()), ..queue.policy.clone()? })
    };
    let queues: Vec<QueuePolicy> = queues.filter_map(told).collect();
    Declaration { revision: revision(&queues), declarer: declarer.to_owned(), queues }
}

/// A hash of the content, the same on every machine.
fn revision(queues: &[QueuePolicy]) -> String {
    let json = serde_json::to_vec(queues).unwrap_or_default();
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&json))
}
