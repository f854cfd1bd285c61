//! Sends with idempotency keys: what a repeated one is answered, what it costs, and that all of it is bounded.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use std::cell::Cell;
use std::convert::Infallible;

use capstan_core::memory::MemoryStore;
use capstan_core::{
    Command, ContentType, Core, Declaration, DeclaredQueue, Idempotency, Key, Limit, MessageId, Policy,
    Purge, QueueId, Recall, Record, Refusal, Reply, Send, SendItem, Store, limits,
};

const WINDOW: u64 = limits::SEND_WINDOW_MS;
/// When all of a window is over and forgotten.
const FORGOTTEN: u64 = WINDOW + limits::SENDS_FORGOTTEN_EVERY_MS;
const BOUNDS: limits::Bounds = limits::Bounds { sends: 3, sends_all: 5, ..limits::Bounds::USUAL };

/// Counts reads and writes.
#[derive(Default)]
struct Counting {
    store: MemoryStore,
    gets: Cell<usize>,
    scanned: Cell<usize>,
    written: usize,
}

impl Counting {
    /// Records that were got, scanned and written since the last call.
    fn taken(&mut self) -> [usize; 3] {
        [self.gets.take(), self.scanned.take(), std::mem::take(&mut self.written)]
    }

    fn remembered(&self) -> usize {
        self.store.records.keys().filter(|key| matches!(key, Key::Sent(..))).count()
    }
}

impl Store for Counting {
    type Error = Infallible;

    fn get(&self, key: Key) -> Result<Option<Record>, Infallible> {
        self.gets.set(self.gets.get() + 1);
        self.store.get(key)
    }

    fn scan(&self, from: Key, to: Key, limit: Limit) -> Result<Vec<(Key, Record)>, Infallible> {
        let found = self.store.scan(from, to, limit)?;
        self.scanned.set(self.scanned.get() + found.len());
        Ok(found)
    }

    fn put(&mut self, key: Key, record: Record) {
        self.written += 1;
        self.store.put(key, record);
    }

    fn remove(&mut self, key: Key) {
        self.store.remove(key);
    }
}

/// The document is the most messages that the queue may hold.
fn policy(document: &[u8]) -> Option<Policy> {
    let max_messages = document.first().map(|most| u64::from(*most));
    Some(Policy { max_messages, ..support::policy(1, None) })
}

struct Run {
    core: Core,
    store: Counting,
    now: u64,
}

impl Run {
    fn new(bounds: limits::Bounds) -> Self {
        let mut store = Counting::default();
        let core = Core::open_with(&mut store, 1, 7, policy, bounds).unwrap();
        Self { core, store, now: 1 }
    }

    fn apply(&mut self, command: Command) -> Reply {
        self.core.apply(command, self.now, &mut self.store).unwrap().reply
    }

    fn declare(&mut self, queues: &[(&str, &[u8])]) {
        let declared = |(label, document): &(&str, &[u8])| DeclaredQueue {
            label: (*label).to_owned(),
            policy: policy(document).unwrap(),
            document: document.to_vec(),
        };
        let queues = queues.iter().map(declared).collect();
        self.apply(Command::Declare(Declaration {
            revision: String::new(),
            declarer: String::new(),
            queues,
        }));
    }

    fn queue(&self, label: &str) -> QueueId {
        self.core.find(label).unwrap()
    }

    fn send(&mut self, label: &str, idempotency: Option<Idempotency>) -> Reply {
        let (content_type, attributes) = (ContentType::Text, Vec::new());
        let item = SendItem { delay: None, content_type, attributes, body: vec![b'x'; 10] };
        self.apply(Command::Send(Send { queue: self.queue(label), items: vec![item], idempotency }))
    }

    /// A send that is stored.
    fn sent(&mut self, label: &str, key: u128) -> Vec<MessageId> {
        let before = self.count(label);
        let Reply::Sent(ids) = self.send(label, once(key)) else { panic!("refused") };
        assert_eq!(self.count(label), before + 1);
        ids
    }

    fn recall(&mut self, label: &str, key: u128) -> Reply {
        let idempotency = Idempotency { key, content: 1 };
        self.apply(Command::Recall(Recall { queue: self.queue(label), idempotency }))
    }

    fn count(&self, label: &str) -> u64 {
        self.core.view(self.queue(label)).unwrap().state.count()
    }

    fn pass(&mut self, millis: u64) {
        self.now += millis;
        while self.apply(Command::Tick) == (Reply::Ticked { more: true }) {}
    }
}

fn once(key: u128) -> Option<Idempotency> {
    Some(Idempotency { key, content: 1 })
}

#[test]
fn a_repeated_send_is_answered_as_the_first_for_as_long_as_the_window_is() {
    let mut run = Run::new(limits::Bounds::USUAL);
    run.declare(&[("q", b""), ("other", b"")]);
    let ids = run.sent("q", 1);
    run.sent("other", 1);
    run.pass(WINDOW - 1);
    assert_eq!(run.send("q", once(1)), Reply::Sent(ids.clone()));
    assert_eq!(run.recall("q", 1), Reply::Sent(ids.clone()));
    assert_eq!(run.recall("q", 2), Reply::Refused(Refusal::NotSent));
    let other = Some(Idempotency { key: 1, content: 2 });
    assert_eq!(run.send("q", other), Reply::Refused(Refusal::KeyReused));
    let view = run.core.view(run.queue("q")).unwrap();
    assert_eq!((view.state.count(), view.totals.sent, view.totals.duplicate_sends), (1, 1, 2));
    // It counts from the first send, and to the moment, whenever it is forgotten.
    run.now += 1;
    assert_eq!(run.store.remembered(), 2);
    let later = run.sent("q", 1);
    assert_ne!(later, ids);
    // The earlier one is forgotten, this one is not.
    run.pass(WINDOW - 1);
    assert_eq!(run.recall("q", 1), Reply::Sent(later));
    assert_eq!(run.store.remembered(), 1, "the later one");
}

#[test]
fn a_refusal_is_not_remembered_and_a_full_queue_answers_what_it_took() {
    let mut run = Run::new(limits::Bounds::USUAL);
    run.declare(&[("q", &[1])]);
    let ids = run.sent("q", 1);
    let full = Reply::Refused(Refusal::QueueMessagesFull);
    assert_eq!(run.send("q", once(2)), full);
    assert_eq!(run.send("q", once(1)), Reply::Sent(ids.clone()));
    run.declare(&[("q", &[2])]);
    run.sent("q", 2);
    let paused = Policy { paused: true, ..policy(&[1]).unwrap() };
    let queue = DeclaredQueue { label: "q".to_owned(), policy: paused, document: vec![1] };
    run.apply(Command::Declare(Declaration {
        revision: String::new(),
        declarer: String::new(),
        queues: vec![queue],
    }));
    assert_eq!(run.send("q", once(1)), Reply::Sent(ids), "it takes less now, and delivers nothing");
    assert_eq!(run.send("q", once(3)), full);
}

#[test]
fn what_was_purged_does_not_come_back_with_a_repeated_send() {
    let mut run = Run::new(limits::Bounds::USUAL);
    run.declare(&[("q", b"")]);
    let ids = run.sent("q", 1);
    let purge = Command::Purge(Purge { queue: run.queue("q") });
    assert_eq!(run.apply(purge), Reply::Purged(1));
    run.pass(WINDOW - 1);
    assert_eq!(run.send("q", once(1)), Reply::Sent(ids));
    assert_eq!(run.count("q"), 0);
    run.pass(FORGOTTEN);
    assert_eq!(run.store.remembered(), 0);
}

#[test]
fn a_queue_that_is_no_longer_declared_refuses_and_remembers_until_it_is() {
    let mut run = Run::new(limits::Bounds::USUAL);
    run.declare(&[("q", b"")]);
    let (ids, purge) = (run.sent("q", 1), Command::Purge(Purge { queue: run.queue("q") }));
    run.apply(purge);
    run.declare(&[]);
    run.pass(WINDOW - 1);
    let retained = Reply::Refused(Refusal::QueueRetained);
    assert_eq!((run.send("q", once(1)), run.recall("q", 1)), (retained.clone(), retained));
    run.declare(&[("q", b"")]);
    assert_eq!(run.send("q", once(1)), Reply::Sent(ids));
    run.declare(&[]);
    run.pass(FORGOTTEN);
    assert_eq!(run.core.find("q"), None, "it is over when nothing is remembered");
    let left: Vec<_> = run.store.store.records.keys().collect();
    assert_eq!(left, [&Key::Meta, &Key::Clock], "nothing of it is left");
}

#[test]
fn the_time_without_a_process_does_not_count() {
    let mut run = Run::new(limits::Bounds::USUAL);
    run.declare(&[("q", b"")]);
    let ids = run.sent("q", 1);
    for _ in 0..3 {
        run.pass(WINDOW / 4);
        run.core.flush(&mut run.store);
        run.now += 2 * WINDOW;
        run.core = Core::open(&mut run.store, run.now, 9, policy).unwrap();
    }
    run.pass(WINDOW / 4 - 1);
    assert_eq!(run.recall("q", 1), Reply::Sent(ids));
    run.pass(1);
    assert_eq!(run.recall("q", 1), Reply::Refused(Refusal::NotSent));
}

#[test]
fn remembered_sends_are_bounded_and_sends_without_a_key_are_taken_all_the_same() {
    let mut run = Run::new(BOUNDS);
    run.declare(&[("a", b""), ("b", b"")]);
    let full = Reply::Refused(Refusal::KeysFull);
    let first = run.sent("a", 0);
    for key in 1..BOUNDS.sends {
        run.sent("a", key.into());
    }
    assert_eq!(run.send("a", once(100)), full, "of a queue");
    run.pass(WINDOW / 2);
    for key in BOUNDS.sends..BOUNDS.sends_all {
        run.sent("b", key.into());
    }
    assert_eq!(run.send("b", once(100)), full, "of all queues");
    for label in ["a", "b"] {
        assert!(matches!(run.send(label, None), Reply::Sent(_)));
    }
    assert_eq!(run.send("a", once(0)), Reply::Sent(first), "a repeated one needs no room");
    // Room comes with time.
    run.pass(WINDOW / 2 + limits::SENDS_FORGOTTEN_EVERY_MS);
    run.sent("b", 100);
    run.sent("a", 100);
}

#[test]
fn a_key_costs_one_small_record_and_a_read_only_when_it_is_known() {
    let mut run = Run::new(limits::Bounds::USUAL);
    run.declare(&[("q", b"")]);
    run.store.taken();
    run.send("q", None);
    assert_eq!(run.store.taken(), [0, 0, 1], "without a key");
    run.send("q", once(1));
    assert_eq!(run.store.taken(), [0, 0, 2], "with a new one");
    run.send("q", once(1));
    assert_eq!(run.store.taken(), [1, 0, 0], "with one that is known");
}

#[test]
fn sends_are_forgotten_in_bounded_steps_all_together_and_never_passed_again() {
    const SENDS: usize = 5_000;
    let mut run = Run::new(limits::Bounds::USUAL);
    run.declare(&[("a", b""), ("b", b"")]);
    for key in 0..SENDS as u128 {
        run.now += 1;
        run.sent(if key % 2 == 0 { "a" } else { "b" }, key);
    }
    run.pass(0);
    let due = run.core.next_due().unwrap();
    assert!(due > WINDOW && due <= FORGOTTEN, "{due}");
    run.now = WINDOW + SENDS as u64 + limits::SENDS_FORGOTTEN_EVERY_MS;
    run.store.taken();
    for left in (0..SENDS).rev().step_by(limits::SENDS_STEP).skip(1) {
        let more = run.apply(Command::Tick);
        let [_, scanned, _] = run.store.taken();
        assert!(scanned <= limits::SENDS_STEP, "{scanned}");
        assert_eq!(more, Reply::Ticked { more: true });
        assert!(run.store.remembered() <= left + 2 * limits::SENDS_LOOK, "{}", run.store.remembered());
    }
    run.pass(0);
    assert_eq!(run.store.remembered(), 0);
    assert!(run.core.next_due().is_none_or(|due| due > run.now), "nothing more to forget");
    run.sent("a", 1);
    run.store.taken();
    run.pass(FORGOTTEN);
    assert_eq!(run.store.taken()[1], 1, "the one record");
}
