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
    /// Those of them that are sent with a key, until there is an answer.
    keyed: BTreeSet<Message>,
    /// Sends whose answer never came, without a key and with one.
    unknown: [u64; 2],
    deliveries: Vec<Delivery>,
    /// Given back without an attempt, or perhaps: the answer need not have come.
    released: BTreeSet<(Message, u32)>,
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
    /// When its answer was there.
    pub(super) answered: Moment,
}

impl History {
    pub(super) fn now(&self) -> Moment {
        self.moment.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) fn attempted(&self, messages: &[Message], keyed: bool) {
        let mut events = self.events();
        events.attempted.extend(messages);
        if keyed {
            events.keyed.extend(messages);
        }
    }

    pub(super) fn stored(&self, messages: &[Message], ids: Vec<String>) {
        assert_eq!(messages.len(), ids.len(), "an id for each message");
        self.events().stored.extend(messages.iter().copied().zip(ids));
    }

    pub(super) fn unknown(&self, keyed: bool) {
        self.events().unknown[usize::from(keyed)] += 1;
    }

    pub(super) fn delivered(&self, delivery: Delivery) {
        self.events().deliveries.push(delivery);
    }

    /// Deliveries that are about to be released.
    pub(super) fn releasing(&self, deliveries: impl IntoIterator<Item = (Message, u32)>) {
        self.events().released.extend(deliveries);
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
        let Events { stored, unknown, acknowledged, .. } = &*events;
        // A run that met nothing proves nothing.
        assert!(stored.len() > 500 && acknowledged.len() > 500, "too little happened: {self}");
        assert!(unknown.iter().all(|count| *count > 20), "the kills met hardly a send: {self}");
        events.check_messages();
        events.check_acknowledged();
        events.check_attempts(max_retries);
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap()
    }
}

impl Events {
    /// Every answered message was delivered, under the id of its answer, and no other one was.
    fn check_messages(&self) {
        let Self { attempted, keyed, stored, deliveries, .. } = self;
        let delivered: BTreeSet<Message> = deliveries.iter().map(|one| one.message).collect();
        let lost: Vec<_> = stored.keys().filter(|message| !delivered.contains(message)).collect();
        assert!(lost.is_empty(), "{} answered and never delivered: {:?}", lost.len(), first(&lost));
        // That none of them was stored twice is seen below.
        let unanswered: Vec<_> = keyed.iter().filter(|message| !stored.contains_key(message)).collect();
        assert!(unanswered.is_empty(), "repeated in vain: {:?}", first(&unanswered));
        let made_up: Vec<_> = delivered.difference(attempted).collect();
        assert!(made_up.is_empty(), "{} delivered and never sent: {:?}", made_up.len(), first(&made_up));

        let mut ids: BTreeMap<&str, Message> = BTreeMap::new();
        let mut names: BTreeMap<Message, &str> = BTreeMap::new();
        for Delivery { message, id, .. } in deliveries {
            let known = *ids.entry(id).or_insert(*message);
            assert_eq!(known, *message, "id {id} names two messages");
            let name = *names.entry(*message).or_insert(id);
            assert_eq!(name, id, "{message:?} was stored twice");
        }
        for (message, id) in stored {
            assert_eq!(names.get(message), Some(&id.as_str()), "the id in the answer to {message:?}");
        }
    }

    fn check_acknowledged(&self) {
        for Delivery { message, asked, .. } in &self.deliveries {
            let again = self.acknowledged.get(message).is_some_and(|answered| answered < asked);
            assert!(!again, "{message:?} was acknowledged, and delivered to a pull that was made later");
        }
    }

    /// In each queue a message's attempts never fall, end at the limit, and none is delivered twice unless it was
    /// released: there are at most `max_retries` + 1 deliveries, and one of a dead letter.
    fn check_attempts(&self, max_retries: u32) {
        let mut by_message: BTreeMap<(Message, &str), Vec<&Delivery>> = BTreeMap::new();
        for one in &self.deliveries {
            by_message.entry((one.message, one.queue)).or_default().push(one);
        }
        for ((message, queue), deliveries) in by_message {
            let most = if queue == "orders" { max_retries + 1 } else { 1 };
            for (index, later) in deliveries.iter().enumerate() {
                let attempt = later.attempt;
                assert!((1..=most).contains(&attempt), "attempt {attempt} of {message:?} in {queue}");
                for earlier in deliveries.iter().take(index) {
                    // What overlaps has no order.
                    let (earlier, later) =
                        if earlier.asked < later.asked { (earlier, later) } else { (later, earlier) };
                    let (before, after) = (earlier.attempt, later.attempt);
                    let fell = earlier.answered < later.asked && after < before;
                    assert!(!fell, "{message:?} in {queue}: attempt {after} came after {before}");
                    let twice = after == before && !self.released.contains(&(message, after));
                    assert!(!twice, "{message:?} in {queue}: attempt {after} was delivered twice");
                }
            }
        }
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
        let Events { attempted, stored, unknown, deliveries, acknowledged, .. } = &*events;
        let (attempted, stored) = (attempted.len(), stored.len());
        let (deliveries, acknowledged) = (deliveries.len(), acknowledged.len());
        write!(
            f,
            "{attempted} messages sent, {stored} answered 200, {unknown:?} requests without an answer (without and \
             with a key), {deliveries} deliveries, {acknowledged} acknowledged"
        )
    }
}
