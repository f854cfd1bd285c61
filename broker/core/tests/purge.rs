//! A purge takes effect at once, whatever is in the queue, and leaves nothing behind in the end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use capstan_core::memory::MemoryStore;
use capstan_core::{
    Command, ContentType, Core, Declaration, DeclaredQueue, Delivered, Holder, Key, Lease, Policy, Pull,
    Purge, QueueId, Reply, Retry, Send, SendItem, Settle, Warning,
};

/// More than one step of everything.
const EACH: usize = 400;

fn policy(_: &[u8]) -> Option<Policy> {
    // Nobody declares it: what is to go there waits as dead.
    Some(support::policy(1, Some("missing")))
}

struct Run {
    core: Core,
    store: MemoryStore,
    queue: QueueId,
}

impl Run {
    fn new() -> Self {
        let mut store = MemoryStore::default();
        let mut core = Core::open(&mut store, 1, 7, policy).unwrap();
        core.apply(declaration(&["q"]), 1, &mut store).unwrap();
        let queue = core.find("q").unwrap();
        Self { core, store, queue }
    }

    fn apply(&mut self, command: Command) -> Reply {
        let reply = self.core.apply(command, 1, &mut self.store).unwrap().reply;
        self.core.flush(&mut self.store);
        reply
    }

    fn send(&mut self, count: usize, delay: u64) {
        for _ in 0..count {
            let (content_type, attributes, body) = (ContentType::Text, Vec::new(), vec![b'x'; 3]);
            let items = vec![SendItem { delay: Some(delay), content_type, attributes, body }];
            self.apply(Command::Send(Send { queue: self.queue, items, idempotency: None }));
        }
    }

    fn pull(&mut self, count: usize) -> Vec<Delivered> {
        let mut all = Vec::new();
        while all.len() < count {
            let pull =
                Pull { queue: self.queue, count: 100, bytes: u64::MAX, lease: None, holder: Holder::UNKNOWN };
            let Reply::Delivered(delivered) = self.apply(Command::Pull(pull)) else { panic!("refused") };
            assert!(!delivered.is_empty());
            all.extend(delivered);
        }
        all
    }

    fn retry(&mut self, delivered: &[Delivered], delay: u64) {
        let retry = |one: &Delivered| Retry { lease: one.lease, delay: Some(delay), reason: String::new() };
        let retries = delivered.iter().map(retry).collect();
        self.apply(settle(self.queue, Vec::new(), retries));
    }

    /// Fills the queue with messages in every state; answers the leased ones.
    fn fill(&mut self) -> Vec<Lease> {
        self.send(EACH, 0);
        for _ in 0..2 {
            let dead = self.pull(EACH);
            self.retry(&dead, 0);
        }
        self.send(EACH, 0);
        let delayed = self.pull(EACH);
        self.retry(&delayed, 60_000);
        self.send(EACH, 60_000);
        self.send(EACH, 0);
        let leased = self.pull(EACH);
        self.send(EACH, 0);
        let returned = self.pull(EACH);
        self.retry(&returned, 0);
        self.send(EACH, 0);
        let state = self.core.view(self.queue).unwrap().state;
        let counts = [state.ready, state.delayed, state.leased, state.dead];
        assert_eq!(counts, [2, 2, 1, 1].map(|times| times * EACH as u64));
        leased.iter().map(|one| one.lease).collect()
    }

    fn left(&self) -> Vec<Key> {
        let of_queue = |key: &&Key| !matches!(key, Key::Meta | Key::Clock | Key::Queue(_) | Key::State(_));
        self.store.records.keys().filter(of_queue).copied().collect()
    }
}

fn declaration(labels: &[&str]) -> Command {
    let queue = |label: &&str| DeclaredQueue {
        label: (*label).to_owned(),
        policy: policy(b"").unwrap(),
        document: Vec::new(),
    };
    let queues = labels.iter().map(queue).collect();
    Command::Declare(Declaration { revision: String::new(), declarer: String::new(), queues })
}

fn settle(queue: QueueId, acks: Vec<Lease>, retries: Vec<Retry>) -> Command {
    Command::Settle(Settle { queue, acks, retries, releases: Vec::new() })
}

#[test]
fn a_purge_counts_at_once_and_its_records_go_in_bounded_steps() {
    let mut run = Run::new();
    let leased = run.fill();
    let before = run.core.view(run.queue).unwrap().state.count();
    assert_eq!(run.apply(Command::Purge(Purge { queue: run.queue })), Reply::Purged(before));
    let state = run.core.view(run.queue).unwrap().state.clone();
    assert_eq!((state.count(), state.bytes), (0, 0));
    let Reply::Settled(settled) = run.apply(settle(run.queue, leased[..2].to_vec(), Vec::new())) else {
        panic!("refused")
    };
    assert_eq!((settled.acks, settled.warnings[0].1), (0, Warning::Gone), "an ack of what was purged");
    // What comes now is not purged.
    run.send(1, 0);
    let mut steps = 0;
    let mut records = run.store.records.len();
    while run.apply(Command::Tick) == (Reply::Ticked { more: true }) {
        let now = run.store.records.len();
        assert!(records - now <= 3 * 256, "a step of {}", records - now);
        (records, steps) = (now, steps + 1);
        if steps == 3 {
            run.core = Core::open(&mut run.store, 1, 7, policy).unwrap();
        }
    }
    assert!(steps > 5, "{steps}");
    assert_eq!(run.left().len(), 1, "one message: {:?}", run.left());
    assert_eq!(run.pull(1).len(), 1);
}

#[test]
fn a_queue_that_is_no_longer_declared_goes_when_its_purge_is_done() {
    let mut run = Run::new();
    run.fill();
    run.apply(declaration(&[]));
    assert!(run.core.view(run.queue).is_some_and(|view| view.retained));
    run.apply(Command::Purge(Purge { queue: run.queue }));
    assert!(run.core.view(run.queue).is_some(), "its records are still there");
    while run.apply(Command::Tick) == (Reply::Ticked { more: true }) {}
    assert!(run.core.view(run.queue).is_none());
    let own: Vec<_> = run.store.records.keys().filter(|key| !matches!(key, Key::Meta | Key::Clock)).collect();
    assert!(own.is_empty(), "{own:?}");
}
