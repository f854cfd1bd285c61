//! Random commands against a small reference model, with restarts in between. proptest prints the failing case's seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod reference;

use std::collections::BTreeMap;

use capstan_core::memory::MemoryStore;
use capstan_core::{
    Backoff, Command, Consumer, ContentType, Core, Declaration, DeclaredQueue, Extend, GapsRecord, Holder,
    Idempotency, Key, Lease, Peek, Policy, Pull, Purge, QueueId, QueueView, Recall, Record, Refusal, Remove,
    Reply, Retry, Send, SendItem, Seq, Settle, limits,
};
use proptest::prelude::*;
use reference::operation::{Operation, operation};
use reference::{Model, Recalled, State};

const MAX_RETRIES: u32 = 2;
const VISIBILITY: u64 = 5_000;
const RETENTION: u64 = 120_000;
/// Of a message that stays while all around it goes.
const LONG: u64 = RETENTION - 10_000;
const SEND_WINDOW: u64 = 20_000;
/// Of a queue, and of both.
const SENDS_MAX: [usize; 2] = [3, 5];
/// Gaps matter from two messages on, and few sends are remembered, for a short while.
const BOUNDS: limits::Bounds = limits::Bounds {
    gap_least: 2,
    send_window: SEND_WINDOW,
    sends: SENDS_MAX[0] as u64,
    sends_all: SENDS_MAX[1] as u64,
    ahead: AHEAD_MAX,
    ..limits::Bounds::USUAL
};
/// Most messages that are known to be due soon.
const AHEAD_MAX: usize = 5;
const DECLARER: &str = "us";
/// Of the queue `other`; `main` has no limit.
const MAX_CONCURRENCY: usize = 2;

fn policy(dead_letter: Option<&str>, max_concurrency: Option<usize>) -> Policy {
    let consumer = Consumer {
        paused: false,
        max_concurrency: max_concurrency.map(|most| u32::try_from(most).unwrap()),
        max_retries: MAX_RETRIES,
        retry_delay: 0,
        backoff: None,
        dead_letter: dead_letter.map(str::to_owned),
        visibility_timeout: VISIBILITY,
    };
    Policy {
        paused: false,
        delivery_delay: 0,
        retention: RETENTION,
        max_bytes: None,
        max_messages: None,
        consumer: Some(consumer),
        resource: String::new(),
        purged_by: None,
    }
}

/// The policy travels as its first letter: `m` for the main queue, `o` for the other, `d` for the dead letters',
/// or `p` where these go with their declaration.
fn read_policy(document: &[u8]) -> Option<Policy> {
    match document.first()? {
        b'm' => Some(policy(Some("dead"), None)),
        b'o' => Some(policy(Some("dead"), Some(MAX_CONCURRENCY))),
        b'd' => Some(policy(None, None)),
        b'p' => Some(Policy { purged_by: Some(DECLARER.to_owned()), ..policy(None, None) }),
        _ => None,
    }
}

fn declaration(dead_letters: Option<&[u8]>) -> Command {
    let mut queues = vec![declared("main", b"m"), declared("other", b"o")];
    queues.extend(dead_letters.map(|document| declared("dead", document)));
    let revision = format!("{dead_letters:?}");
    Command::Declare(Declaration { revision, declarer: DECLARER.to_owned(), queues })
}

fn declared(label: &str, document: &[u8]) -> DeclaredQueue {
    let policy = read_policy(document).unwrap();
    DeclaredQueue { label: label.to_owned(), policy, document: document.to_vec() }
}

/// The core under test, what it was given, and the model beside it.
struct Run {
    core: Core,
    store: MemoryStore,
    model: Model,
    now: u64,
    leases: Vec<(Lease, QueueId)>,
    pulls: u64,
    /// Pulls before the last reopening.
    forgotten: u64,
    /// What each key held last.
    held: BTreeMap<Key, Record>,
}

impl Run {
    fn new() -> Self {
        let (mut store, now) = (MemoryStore::default(), 1_000_000);
        let core = Core::open_with(&mut store, now, 7, read_policy, BOUNDS).unwrap();
        let (model, leases, held) = Default::default();
        let mut run = Self { core, store, model, now, leases, pulls: 0, forgotten: 0, held };
        run.apply(declaration(Some(b"d")));
        run
    }

    fn apply(&mut self, command: Command) -> Reply {
        let effects = self.core.apply(command, self.now, &mut self.store).unwrap();
        self.core.flush(&mut self.store);
        effects.reply
    }

    fn queue(&self, index: usize) -> QueueId {
        self.core.find(["main", "other"][index]).unwrap()
    }

    fn pick(&self, pick: usize) -> Option<(Lease, QueueId)> {
        (!self.leases.is_empty()).then(|| self.leases[pick % self.leases.len()])
    }

    fn step(&mut self, operation: Operation) {
        match operation {
            Operation::Send { queue, bodies, delay } => self.send(self.queue(queue), &bodies, delay),
            Operation::SendOnce { queue, key, content } => self.send_once(self.queue(queue), key, content),
            Operation::Pull { queue, count, lease } => self.pull(self.queue(queue), count, lease),
            Operation::Ack { pick } => self.settle(pick, |lease, settle| settle.acks.push(lease)),
            Operation::Retry { pick, delay } => self.settle(pick, |lease, settle| {
                settle.retries.push(Retry { lease, delay, reason: "no".to_owned() });
            }),
            Operation::Release { pick } => self.settle(pick, |lease, settle| settle.releases.push(lease)),
            Operation::Extend { pick } => self.extend(pick),
            Operation::Peek { queue } => self.peek(self.queue(queue)),
            Operation::Purge { queue, reopen } => self.purge(queue, reopen),
            Operation::Remove { queue, seq } => self.remove(self.queue(queue), Seq(seq)),
            Operation::Pass { millis } => self.now += millis,
            Operation::Reopen { down } => self.reopen(down),
            Operation::DeclareDeadLetters { present, purged } => self.declare_dead_letters(present, purged),
        }
        while self.apply(Command::Tick) == (Reply::Ticked { more: true }) {}
        self.model.pass(self.now, self.dead_letters_taken(), MAX_RETRIES, RETENTION);
        self.model.forget(self.now, SEND_WINDOW);
        self.compare();
        self.compare_demand();
    }

    /// The dead-letter queue, while it takes messages.
    fn dead_letters_taken(&self) -> Option<QueueId> {
        let id = self.core.find("dead")?;
        (!self.core.view(id)?.retained).then_some(id)
    }

    fn send(&mut self, queue: QueueId, bodies: &[u8], delay: Option<u64>) {
        let Reply::Sent(ids) = self.apply(command(queue, bodies, delay, None)) else { panic!("refused") };
        assert_eq!(ids.len(), bodies.len());
        for (id, body) in ids.into_iter().zip(bodies) {
            self.model.sent(queue, id, u64::from(*body), self.now, delay.unwrap_or(0));
        }
    }

    fn send_once(&mut self, queue: QueueId, key: u8, content: u8) {
        let bodies = vec![content; usize::from(content) + 1];
        let delay = u64::from(content) * 1_000;
        let reply = self.apply(command(queue, &bodies, Some(delay), Some(idempotency(key, content))));
        let may_be_new = match self.model.recalled((queue, key), content, self.now, SEND_WINDOW) {
            Recalled::Same(ids) => return assert_eq!(reply, Reply::Sent(ids), "a repeated send"),
            Recalled::Other => return assert_eq!(reply, Reply::Refused(Refusal::KeyReused)),
            Recalled::Unknown => self.model.remembered(Some(queue)) < SENDS_MAX[0],
        };
        if !may_be_new || self.model.remembered(None) >= SENDS_MAX[1] {
            return assert_eq!(reply, Reply::Refused(Refusal::KeysFull));
        }
        let Reply::Sent(ids) = reply else { panic!("{reply:?}") };
        for (id, body) in ids.iter().zip(&bodies) {
            self.model.sent(queue, *id, u64::from(*body), self.now, delay);
        }
        self.model.remember((queue, key), content, ids, self.now);
    }

    fn pull(&mut self, queue: QueueId, count: usize, lease: Option<u64>) {
        let ready = self.model.count(queue, |state| matches!(state, State::Ready));
        let full = Some(queue) == self.core.find("other") && self.model.pulls_open(queue) >= MAX_CONCURRENCY;
        let expected = if full { 0 } else { count.min(ready) };
        // Each pull is another holder.
        let holder = Holder(self.pulls + 1);
        let pull = Pull { queue, count, bytes: u64::MAX, lease, holder };
        let Reply::Delivered(delivered) = self.apply(Command::Pull(pull)) else { panic!("refused") };
        assert_eq!(delivered.len(), expected, "a pull takes what is ready");
        self.pulls += 1;
        for one in delivered {
            assert_eq!(one.until, self.now + lease.unwrap_or(VISIBILITY));
            let lease = (one.lease, self.pulls);
            self.model.delivered(queue, one.message.id, lease, one.attempt, one.until);
            self.leases.push((one.lease, queue));
        }
    }

    fn settle(&mut self, pick: usize, verdict: impl Fn(Lease, &mut Settle)) {
        let Some((lease, queue)) = self.pick(pick) else {
            return;
        };
        let mut settle = Settle { queue, acks: Vec::new(), retries: Vec::new(), releases: Vec::new() };
        verdict(lease, &mut settle);
        let Reply::Settled(settled) = self.apply(Command::Settle(settle.clone())) else { panic!("refused") };
        let effective = self.model.settled(&settle, self.now, MAX_RETRIES);
        assert_eq!(settled.acks + settled.retries + settled.releases, u32::from(effective), "{settle:?}");
    }

    fn extend(&mut self, pick: usize) {
        let Some((lease, queue)) = self.pick(pick) else {
            return;
        };
        let extend = Extend { queue, leases: vec![lease], duration: Some(9_000) };
        let Reply::Extended(count, warnings) = self.apply(Command::Extend(extend)) else { panic!("refused") };
        assert_eq!(count == 1, self.model.extended(lease, self.now + 9_000));
        assert_eq!(count as usize + warnings.len(), 1);
    }

    fn peek(&mut self, queue: QueueId) {
        let Reply::Peeked(peeked) = self.apply(Command::Peek(Peek { queue, count: 100, bytes: u64::MAX }))
        else {
            panic!("refused")
        };
        let seen: BTreeMap<_, _> = peeked.iter().map(|one| (one.message.id, one.state)).collect();
        assert_eq!(seen, self.model.states(queue, 100));
    }

    fn purge(&mut self, index: usize, reopen: bool) {
        let Some(queue) = self.core.find(["main", "other", "dead"][index]) else {
            return;
        };
        let expected = self.model.count(queue, |_| true) as u64;
        assert_eq!(self.apply(Command::Purge(Purge { queue })), Reply::Purged(expected));
        self.model.purged(queue);
        if reopen {
            self.reopen(0);
        }
    }

    fn declare_dead_letters(&mut self, present: bool, purged: bool) {
        let declared = self.core.find("dead").and_then(|id| self.core.view(id)).filter(|view| !view.retained);
        let goes = declared.filter(|view| view.document == b"p").map(|view| view.id);
        self.apply(declaration(present.then_some(if purged { b"p" } else { b"d" })));
        if let Some(id) = goes.filter(|_| !present) {
            self.model.purged(id);
        }
    }

    fn remove(&mut self, queue: QueueId, seq: Seq) {
        // A message's id ends in its place.
        let id = self.model.ids(queue).into_iter().find(|id| id.0 as u64 == seq.0);
        let reply = self.apply(Command::Remove(Remove { queue, messages: vec![seq] }));
        let gone = if id.is_some() { Vec::new() } else { vec![seq] };
        assert_eq!(reply, Reply::Removed(u32::from(id.is_some()), gone));
        if let Some(id) = id {
            self.model.removed(queue, id);
        }
    }

    fn reopen(&mut self, down: u64) {
        self.now += down;
        let core = Core::open_with(&mut self.store, self.now, 99, read_policy, BOUNDS).unwrap();
        assert_eq!(core.incarnation(), 7, "an old store keeps its name");
        self.core = core;
        self.model.leases_move(down);
        self.model.away(down);
        self.model.reopened(self.now);
        self.forgotten = self.pulls;
    }

    fn compare(&mut self) {
        let views: Vec<_> = self.core.views().map(|view| (view.id, view.state.clone())).collect();
        for (id, state) in views {
            let count =
                |wanted: &str| self.model.states(id, usize::MAX).values().filter(|s| **s == wanted).count();
            let counts = ["ready", "delayed", "leased", "dead"].map(|name| count(name) as u64);
            assert_eq!([state.ready, state.delayed, state.leased, state.dead], counts, "queue {id:?}");
            assert_eq!(state.bytes, self.model.bytes(id), "queue {id:?}");
            let remembered = self.core.view(id).unwrap().remembered;
            assert_eq!(remembered, self.model.remembered(Some(id)) as u64, "queue {id:?}");
            let oldest = self.core.oldest_sent_at(id, &self.store).unwrap();
            // Which of several messages that die at once is moved first is not part of the model.
            if Some(id) != self.core.find("dead") {
                assert_eq!(oldest, self.model.oldest(id), "queue {id:?}");
            }
        }
        self.core.move_marks(&mut self.store).unwrap();
        self.core.flush(&mut self.store);
        self.haunt();
        self.compare_with_rebuilt();
    }

    /// Below a low mark and in a recorded gap the store may forget that something was removed: there everything comes back,
    /// and must not be seen.
    fn haunt(&mut self) {
        for (key, record) in &self.held {
            let below = match *key {
                Key::Fresh(id, seq) => self.gone(id, 0, seq),
                Key::Parked(id, seq) => self.gone(id, 1, seq),
                Key::Delivery(id, seq) => self.gone(id, 2, seq),
                Key::Returned(id, order) => self.state(id).is_none_or(|state| order < state.returned_head),
                Key::Dead(id, order) => self.state(id).is_none_or(|state| order < state.dead_head),
                Key::Timer(..) => match self.store.records.get(&Key::Clock) {
                    Some(Record::Clock(clock)) => {
                        let (due, queue, seq) = clock.timer_head;
                        *key < Key::Timer(due, queue, seq)
                    }
                    _ => false,
                },
                Key::Sent(id, seq) => match self.store.records.get(&Key::Remembered(id)) {
                    Some(Record::Remembered(sends)) => seq < sends.low,
                    _ => self.state(id).is_none(),
                },
                Key::Meta
                | Key::Queue(_)
                | Key::State(_)
                | Key::Purge(_)
                | Key::Gaps(_)
                | Key::Remembered(_)
                | Key::Clock => false,
            };
            if below {
                self.store.records.entry(*key).or_insert_with(|| record.clone());
            }
        }
        self.held.extend(self.store.records.clone());
    }

    /// Whether a record may come back, by what is committed of its queue: of the ranges of one kind of key.
    fn gone(&self, id: QueueId, kind: usize, seq: Seq) -> bool {
        let Some(state) = self.state(id) else { return true };
        let recorded = match self.store.records.get(&Key::Gaps(id)) {
            Some(Record::Gaps(gaps)) => gaps.clone(),
            _ => GapsRecord::default(),
        };
        recorded.dead(state)[kind].iter().any(|gap| gap.contains(&seq))
    }

    fn state(&self, id: QueueId) -> Option<&capstan_core::State> {
        self.core.view(id).map(|view| view.state)
    }

    /// What is kept in memory is what opening the store makes.
    fn compare_with_rebuilt(&mut self) {
        let mut store = self.store.clone();
        let mut rebuilt = Core::open_with(&mut store, self.now, 99, read_policy, BOUNDS).unwrap();
        assert_eq!(store, self.store, "opening without downtime changes nothing");
        let states = |core: &Core| {
            let view = |view: QueueView<'_>| (view.id, view.state.clone(), view.pulls_left, view.remembered);
            core.views().map(view).collect::<Vec<_>>()
        };
        assert_eq!(states(&rebuilt), states(&self.core));
        let mut look = |core: &mut Core, queue| {
            core.apply(Command::Peek(Peek { queue, count: 9, bytes: u64::MAX }), self.now, &mut store)
                .unwrap()
        };
        let recall = |core: &mut Core, queue, key| {
            let recall = Recall { queue, idempotency: idempotency(key, 0) };
            core.apply(Command::Recall(recall), self.now, &mut self.store.clone()).unwrap()
        };
        for id in self.core.views().map(|view| view.id).collect::<Vec<_>>() {
            assert_eq!(look(&mut rebuilt, id), look(&mut self.core, id), "{id:?}");
            for key in 0..4 {
                assert_eq!(recall(&mut rebuilt, id, key), recall(&mut self.core, id, key), "{id:?} {key}");
            }
        }
    }
}

fn idempotency(key: u8, content: u8) -> Idempotency {
    Idempotency { key: key.into(), content: content.into() }
}

/// A send of bodies that are as many bytes as their value.
fn command(queue: QueueId, bodies: &[u8], delay: Option<u64>, idempotency: Option<Idempotency>) -> Command {
    let item = |body: &u8| SendItem {
        delay,
        content_type: ContentType::Bytes,
        attributes: Vec::new(),
        body: vec![*body; usize::from(*body)],
    };
    Command::Send(Send { queue, items: bodies.iter().map(item).collect(), idempotency })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_the_model(operations in prop::collection::vec(operation(), 1..120)) {
        let mut run = Run::new();
        for operation in operations {
            run.step(operation);
        }
    }

    #[test]
    fn any_split_into_commits_gives_the_same_records(
        commands in prop::collection::vec((0..9usize, 1..4_000u64), 1..60),
        cuts in prop::collection::vec(any::<bool>(), 60),
    ) {
        let (whole, cut) = (records_of(&commands, |_| false), records_of(&commands, |i| cuts[i]));
        prop_assert_eq!(whole, cut);
    }
}

/// Applies commands made of numbers, flushing where `cut` says.
fn records_of(commands: &[(usize, u64)], cut: impl Fn(usize) -> bool) -> MemoryStore {
    let mut store = MemoryStore::default();
    let mut core = Core::open_with(&mut store, 1, 7, read_policy, BOUNDS).unwrap();
    core.apply(declaration(Some(b"d")), 1, &mut store).unwrap();
    let queue = core.find("main").unwrap();
    let (mut now, mut leases) = (1, Vec::new());
    for (index, (kind, number)) in commands.iter().enumerate() {
        now += number;
        let lease = leases.get(usize::try_from(*number).unwrap() % leases.len().max(1)).copied();
        let command = command_of(*kind, *number, queue, lease);
        if let Reply::Delivered(delivered) = core.apply(command, now, &mut store).unwrap().reply {
            leases.extend(delivered.iter().map(|one| one.lease));
        }
        if cut(index) {
            core.flush(&mut store);
        }
    }
    core.flush(&mut store);
    store
}

fn command_of(kind: usize, number: u64, queue: QueueId, lease: Option<Lease>) -> Command {
    let mut settle = Settle { queue, acks: Vec::new(), retries: Vec::new(), releases: Vec::new() };
    match (kind, lease) {
        (0 | 1, _) => {
            let delay = Some(if number.is_multiple_of(3) { number } else { 0 });
            command(queue, &[3], delay, None)
        }
        (8, _) => command(queue, &[1, 2], None, Some(idempotency((number % 4) as u8, (number % 2) as u8))),
        (2, _) => Command::Pull(Pull { queue, count: 3, bytes: 1000, lease: None, holder: Holder::UNKNOWN }),
        (3, Some(lease)) => {
            settle.acks.push(lease);
            Command::Settle(settle)
        }
        (4, Some(lease)) => {
            settle.retries.push(Retry { lease, delay: None, reason: String::new() });
            Command::Settle(settle)
        }
        (6, _) => Command::Remove(Remove { queue, messages: vec![Seq(number % 20 + 1)] }),
        (7, _) if number.is_multiple_of(4) => Command::Purge(Purge { queue }),
        _ => Command::Tick,
    }
}

#[test]
fn backoff_delays_are_the_same_in_every_run() {
    let run = |seed: u64| {
        let mut store = MemoryStore::default();
        let backoff = |_: &[u8]| {
            let mut policy = policy(None, None);
            let consumer = policy.consumer.as_mut()?;
            (consumer.retry_delay, consumer.backoff) = (1000, Some(Backoff { factor: 2, max_delay: 60_000 }));
            Some(policy)
        };
        let mut core = Core::open(&mut store, seed, 7, backoff).unwrap();
        let queue =
            DeclaredQueue { label: "q".to_owned(), policy: backoff(b"").unwrap(), document: Vec::new() };
        let declare = Command::Declare(Declaration {
            revision: String::new(),
            declarer: String::new(),
            queues: vec![queue],
        });
        core.apply(declare, seed, &mut store).unwrap();
        let queue = core.find("q").unwrap();
        core.apply(command_of(0, 1, queue, None), seed, &mut store).unwrap();
        let pulled = core.apply(command_of(2, 0, queue, None), seed, &mut store).unwrap().reply;
        let Reply::Delivered(delivered) = pulled else { panic!("refused") };
        core.apply(command_of(4, 0, queue, Some(delivered[0].lease)), seed, &mut store).unwrap();
        core.apply(Command::Tick, seed, &mut store).unwrap();
        core.next_due()
    };
    assert_eq!(run(5_000), run(5_000));
    assert_ne!(run(5_000), run(5_001).map(|due| due - 1), "the jitter differs from message to message");
}
