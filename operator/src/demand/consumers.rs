//! What there is to do for each Consumer: for KEDA and for metrics, who know Consumers and no brokers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use capstan_api::control::QueuePolicy;
use capstan_crds::{Consumer, ConsumerFinding, Key};
use capstan_scaling::Demand;
use tokio::sync::watch;

use super::collector::Numbers as Collected;
use super::{Demands, Heard, Numbers};
use crate::external_scaler;
use crate::world::{State, World};

/// Why nothing is known of what a Consumer has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unseen {
    /// There is no such Consumer where this operator looks.
    NoConsumer,
    /// It has no queue, because of this.
    NotAccepted(String),
    /// The Broker was not told of its queue yet.
    Undeclared { broker: Key },
    /// The Broker has not answered for so long.
    Unheard { broker: Key, since: Duration },
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConsumer => {
                f.write_str("there is no such Consumer, or the operator does not work in its namespace")
            }
            Self::NotAccepted(reason) => f.write_str(reason),
            Self::Undeclared { broker } => {
                write!(f, "the Broker {broker} does not have the Consumer's queue yet")
            }
            Self::Unheard { broker, since } => {
                write!(f, "the Broker {broker} has not answered for {} s", since.as_secs())
            }
        }
    }
}

/// The Consumers that are known, and what brokers say.
pub(crate) struct Consumers {
    world: Arc<World>,
    demands: Demands,
}

impl Consumers {
    pub(crate) fn new(world: Arc<World>, demands: Demands) -> Self {
        Self { world, demands }
    }
}

/// Where a Consumer's messages are.
struct Place {
    broker: Key,
    queue: Key,
    /// Nothing is handed to it.
    is_paused: bool,
}

fn place(state: &State, key: &Key) -> Result<Place, Unseen> {
    let resolution = state.resolve(&key.namespace);
    let resolved = resolution.consumers.get(key).ok_or(Unseen::NoConsumer)?;
    let queue = &resolved.queue;
    let reason = match &resolved.finding {
        ConsumerFinding::Accepted => None,
        ConsumerFinding::InvalidName => Some("its name cannot be used on the wire".to_owned()),
        ConsumerFinding::QueueNotFound => Some(format!("there is no Queue {queue}")),
        ConsumerFinding::QueueAlreadyConsumed { by } => Some(format!("Consumer {by} has Queue {queue}")),
        ConsumerFinding::DeadLetterQueueElsewhere { broker, .. } => {
            Some(format!("its dead-letter queue is stored by another Broker, {broker}"))
        }
    };
    if let Some(reason) = reason {
        return Err(Unseen::NotAccepted(reason));
    }
    let broker = resolved.broker.clone().ok_or(Unseen::NoConsumer)?;
    let policy = resolution.queues.get(queue).and_then(|queue| queue.policy.as_ref());
    let is_stopped = |policy: &QueuePolicy| {
        policy.delivery_paused || policy.consumer.as_ref().is_some_and(|consumer| consumer.paused)
    };
    Ok(Place { broker, queue: queue.clone(), is_paused: policy.is_some_and(is_stopped) })
}

impl external_scaler::Demands for Consumers {
    fn of(&self, consumer: &Key) -> Result<Demand, Unseen> {
        let place = place(&self.world.read(), consumer)?;
        // On a standby nobody else wants to hear of it.
        self.demands.want(&place.broker);
        match self.demands.queue(&place.broker, &place.queue) {
            Heard::Seen(numbers) => Ok(numbers.to_do(place.is_paused)),
            Heard::Unknown => Err(Unseen::Undeclared { broker: place.broker }),
            Heard::Unheard => {
                let since = self.demands.silent_for(&place.broker);
                Err(Unseen::Unheard { broker: place.broker, since })
            }
        }
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.demands.changed()
    }
}

impl Collected for Consumers {
    fn all(&self) -> Vec<(Key, Demand)> {
        let state = self.world.read();
        let is_push = |consumer: &&Arc<Consumer>| consumer.spec.target_ref.is_some();
        let keys: Vec<Key> =
            state.consumers.all().filter(is_push).map(|one| Key::of(&one.metadata)).collect();
        let known = |key: Key| {
            let place = place(&state, &key).ok()?;
            match self.demands.queue(&place.broker, &place.queue) {
                Heard::Seen(numbers) => Some((key, numbers.to_do(place.is_paused))),
                Heard::Unknown | Heard::Unheard => None,
            }
        };
        keys.into_iter().filter_map(known).collect()
    }
}

impl Numbers {
    /// What there is to do; what is not delivered needs no pod.
    pub(crate) fn to_do(&self, is_paused: bool) -> Demand {
        match is_paused {
            true => Demand { leased: self.demand.leased, ..Demand::default() },
            false => self.demand,
        }
    }
}
