//! Where a Consumer's messages are, and why nothing is known of them.

use std::fmt;
use std::time::Duration;

use capstan_crds::{ConsumerFinding, Key, ResolvedQueue};

use crate::world::State;

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

/// Where a Consumer's messages are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) broker: Key,
    pub(super) queue: Key,
    /// Nothing of the queue is delivered, or not to this Consumer.
    pub(super) is_paused: bool,
}

/// Finds the place of a Consumer, push or pull.
///
/// # Errors
/// There is no such Consumer, or it has no queue.
pub(super) fn place(state: &State, consumer: &Key) -> Result<Place, Unseen> {
    let resolution = state.resolve(&consumer.namespace);
    let resolved = resolution.consumers.get(consumer).ok_or(Unseen::NoConsumer)?;
    let queue = &resolved.queue;
    let reason = match &resolved.finding {
        ConsumerFinding::Accepted => None,
        ConsumerFinding::InvalidName => Some("its name is not one that Capstan takes".to_owned()),
        ConsumerFinding::QueueNotFound => Some(format!("there is no Queue {queue}")),
        ConsumerFinding::QueueAlreadyConsumed { by } => {
            Some(format!("the Queue {queue} is consumed by the Consumer {by}"))
        }
        ConsumerFinding::DeadLetterQueueElsewhere { broker, .. } => {
            Some(format!("its dead-letter queue is on another Broker, {broker}"))
        }
    };
    if let Some(reason) = reason {
        return Err(Unseen::NotAccepted(reason));
    }
    let broker = resolved.broker.clone().ok_or(Unseen::NoConsumer)?;
    let is_paused = resolution.queues.get(queue).is_some_and(is_paused);
    Ok(Place { broker, queue: queue.clone(), is_paused })
}

fn is_paused(queue: &ResolvedQueue) -> bool {
    let policy = queue.policy.as_ref();
    policy.is_some_and(|policy| {
        policy.delivery_paused || policy.consumer.as_ref().is_some_and(|consumer| consumer.paused)
    })
}
