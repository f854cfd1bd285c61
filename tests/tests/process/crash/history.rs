//! What was sent, answered, delivered and acknowledged, and what must be true of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// A message by its producer and its number there; its body is made of the two.
pub(super) type Message = (u32, u32);

/// A point in the test's time: of two, the one that was taken earlier is smaller.
pub(super) type Moment = u64;

/// Everything that happened. Shared by all clients.
#[derive(Default)]
pub(super) struct History {
    moment: AtomicU64,
    events: Mutex<Events>,
}

#[derive(Default)]
struct Events {
    /// Sent, whatever the answer was.
    attempted: BTreeSet<Message>,
    /// Answered 200, with the ids in the answer.
    stored: BTreeMap<Message, String>,
    /// Sends whose answer never came.
    unknown: u64,
    deliveries: Vec<Delivery>,
    /// Acknowledged with effect: when the answer was there.
    acknowledged: BTreeMap<Message, Moment>,
}

/// A message in a pull's answer.
pub(super) struct Delivery {
    pub(super) message: Message,
    pub(super) id: String,
    pub(super) queue: &'static str,
    pub(super) attempt: u32,
    /// When the pull was sent.
    pub(super) asked: Moment,
}

impl History {
    pub(super) fn now(&self) -> Moment {
        self.moment.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) fn attempted(&self, messages: &[Message]) {
        self.events().attempted.extend(messages);
    }

    pub(super) fn stored(&self, messages: &[Message], ids: Vec<String>) {
        assert_eq!(messages.len(), ids.len(), "an id for each message");
        self.events().stored.extend(messages.iter().copied().zip(ids));
    }

    pub(super) fn unknown(&self) {
        self.events().unknown += 1;
    }

    pub(super) fn delivered(&self, delivery: Delivery) {
        self.events().deliveries.push(delivery);
    }

    pub(super) fn acknowledged(&self, messages: impl IntoIterator<Item = Message>) {
        let now = self.now();
        let mut events = self.events();
        for message in messages {
            events.acknowledged.entry(message).or_insert(now);
        }
    }

    /// Checks everything that a broker promises.
    pub(super) fn check(&self, max_retries: u32) {
        let events = self.events();
        let Events { attempted, stored, unknown, deliveries, acknowledged } = &*events;
        // A run that met nothing proves nothing.
        assert!(stored.len() > 500 && acknowledged.len() > 500, "too little happened: {self}");
        assert!(*unknown > 20, "the kills met hardly a send: {self}");

        let delivered: BTreeSet<Message> = deliveries.iter().map(|one| one.message).collect();
        let lost: Vec<_> = stored.keys().filter(|message| !delivered.contains(message)).collect();
        assert!(lost.is_empty(), "{} answered and never delivered: {:?}", lost.len(), first(&lost));
        let made_up: Vec<_> = delivered.difference(attempted).collect();
        assert!(made_up.is_empty(), "{} delivered and never sent: {:?}", made_up.len(), first(&made_up));

        let mut ids: BTreeMap<&str, Message> = BTreeMap::new();
        let mut names: BTreeMap<Message, &str> = BTreeMap::new();
        for one in deliveries {
            let Delivery { message, id, queue, attempt, asked } = one;
            let known = *ids.entry(id).or_insert(*message);
            assert_eq!(known, *message, "id {id} names two messages");
            let name = *names.entry(*message).or_insert(id);
            assert_eq!(name, id, "{message:?} was stored twice");
            let most = if *queue == "orders" { max_retries + 1 } else { u32::MAX };
            assert!((1..=most).contains(attempt), "attempt {attempt} of {message:?} in {queue}");
            let again = acknowledged.get(message).is_some_and(|answered| answered < asked);
            assert!(!again, "{message:?} was acknowledged, and delivered to a pull that was made later");
        }
        for (message, id) in stored {
            assert_eq!(names.get(message), Some(&id.as_str()), "the id in the answer to {message:?}");
        }
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap()
    }
}

fn first<T: Copy>(all: &[T]) -> Vec<T> {
    all.iter().take(10).copied().collect()
}

impl std::fmt::Display for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ok(events) = self.events.try_lock() else {
            return f.write_str("…");
        };
        let Events { attempted, stored, unknown, deliveries, acknowledged } = &*events;
        let (attempted, stored) = (attempted.len(), stored.len());
        let (deliveries, acknowledged) = (deliveries.len(), acknowledged.len());
        write!(
            f,
            "{attempted} messages sent, {stored} answered 200, {unknown} requests without an answer, \
             {deliveries} deliveries, {acknowledged} acknowledged"
        )
    }
}
