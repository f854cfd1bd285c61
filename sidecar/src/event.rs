//! What a sidecar tells a program that embeds it, such as local mode. Lossy: a slow listener misses events.

use std::time::Duration;

use capstan_api::Name;

use crate::verdict::Decision;

/// Events that a listener may be behind before it misses some.
pub const EVENTS_MAX: usize = 1024;

/// Something happened to a queue's messages.
#[derive(Debug, Clone)]
pub struct Event {
    pub namespace: Name,
    pub queue: Name,
    /// The Consumer's name.
    pub consumer: Name,
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum What {
    /// A batch is being POSTed to the application.
    Delivered { messages: Vec<Message> },
    /// The broker took the verdict about a message.
    Settled { message: Message, decision: Decision },
    /// The application cannot be reached; the next try is in `wait`.
    Unreachable { reason: String, wait: Duration },
    /// The application can be reached.
    Reachable,
}

/// A message as an event names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: String,
    /// Deliveries so far, this one included.
    pub attempts: u32,
}
