//! What a command passes over and reads is bounded: removed records in number, bodies in bytes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::convert::Infallible;

use capstan_core::memory::MemoryStore;
use capstan_core::{
    Command, ContentType, Core, Declaration, DeclaredQueue, Delivered, Holder, Key, Lease, Limit, Peek,
    Policy, Pull, Purge, QueueId, Record, Reply, Retry, Send, SendItem, Settle, Store, limits,
};

const MIB: u64 = 1 << 20;
/// Removed messages behind one that stays.
const WENT: usize = 20_000;
/// What a scan may pass over for each message that it finds, and at its ends.
const PASSED_MAX: u64 = 2 * limits::GAP_LEAST;

/// Remembers what was removed, which the real store keeps for a while, and counts.
#[derive(Default)]
struct Counting {
    store: MemoryStore,
    removed: BTreeSet<Key>,
    /// Removed records that scans passed over.
    passed: Cell<u64>,
    /// Bytes of bodies that were read.
    read: Cell<u64>,
}

impl Counting {
    /// What was passed over and read since the last call.
    fn taken(&self) -> (u64, u64) {
        (self.passed.take(), self.read.take())
    }
}

impl Store for Counting {
    type Error = Infallible;

    fn get(&self, key: Key) -> Result<Option<Record>, Infallible> {
        let found = self.store.get(key)?;
        let bytes = found.as_ref().map_or(0, Record::body_bytes);
        self.read.set(self.read.get() + bytes);
        Ok(found)
    }

    fn scan(&self, from: Key, to: Key, mut limit: Limit) -> Result<Vec<(Key, Record)>, Infallible> {
        let found = self.store.scan(from, to, limit)?;
        for (_, record) in &found {
            self.read.set(self.read.get() + record.body_bytes());
            limit.count(record.body_bytes());
        }
        // It went on to the end, unless it had enough.
        let end = found.last().filter(|_| limit.is_reached()).map_or(to, |(key, _)| *key);
        if from < end {
            self.passed.set(self.passed.get() + self.removed.range(from..end).count() as u64);
        }
        Ok(found)
    }

    fn put(&mut self, key: Key, record: Record) {
        self.removed.remove(&key);
        self.store.put(key, record);
    }

    fn remove(&mut self, key: Key) {
        self.removed.insert(key);
        self.store.remove(key);
    }
}

fn policy(_: &[u8]) -> Option<Policy> {
    Some(support::policy(1, Some("missing")))
}

struct Run {
    core: Core,
    store: Counting,
    queue: QueueId,
    now: u64,
}

impl Run {
    fn new() -> Self {
        let mut store = Counting::default();
        let mut core = Core::open(&mut store, 1, 7, policy).unwrap();
        let queue =
            DeclaredQueue { label: "q".to_owned(), policy: policy(b"").unwrap(), document: Vec::new() };
        let declare = Command::Declare(Declaration {
            revision: String::new(),
            declarer: String::new(),
            queues: vec![queue],
        });
        core.apply(declare, 1, &mut store).unwrap();
        let queue = core.find("q").unwrap();
        Self { core, store, queue, now: 1 }
    }

    fn apply(&mut self, command: Command) -> Reply {
        let reply = self.core.apply(command, self.now, &mut self.store).unwrap().reply;
        self.core.flush(&mut self.store);
        reply
    }

    /// As one that makes `reads` of its own, and no more than these.
    fn within(&mut self, what: &str, command: Command, (passed, read): (u64, u64)) -> Reply {
        self.store.taken();
        let reply = self.apply(command);
        let taken = self.store.taken();
        assert!(taken.0 <= passed, "{what} passes over {} removed records", taken.0);
        assert!(taken.1 <= read, "{what} reads {} MiB", taken.1 / MIB);
        reply
    }

    fn send(&mut self, count: usize, bytes: u64, delay: u64) {
        for _ in 0..count {
            let body = vec![0; usize::try_from(bytes).unwrap()];
            let (content_type, attributes) = (ContentType::Bytes, Vec::new());
            let items = vec![SendItem { delay: Some(delay), content_type, attributes, body }];
            self.apply(Command::Send(Send { queue: self.queue, items, idempotency: None }));
        }
    }

    fn pull(&mut self, count: usize) -> Vec<Delivered> {
        let pull = Pull {
            queue: self.queue,
            count,
            bytes: 8 * MIB,
            lease: Some(50_000_000),
            holder: Holder::UNKNOWN,
        };
        let Reply::Delivered(delivered) = self.apply(Command::Pull(pull)) else { panic!("refused") };
        delivered
    }

    fn ack(&mut self, acks: Vec<Lease>) {
        let (retries, releases) = Default::default();
        self.apply(Command::Settle(Settle { queue: self.queue, acks, retries, releases }));
    }

    fn retry(&mut self, lease: Lease, delay: u64) {
        let retries = vec![Retry { lease, delay: Some(delay), reason: String::new() }];
        let (acks, releases) = Default::default();
        self.apply(Command::Settle(Settle { queue: self.queue, acks, retries, releases }));
    }

    /// Messages come and go, those of each hundred in another order.
    fn flow(&mut self, count: usize, delay: u64) {
        for _ in 0..count / 100 {
            self.send(100, 1, delay);
            self.now += delay;
            self.apply(Command::Tick);
            let mut leases: Vec<Lease> = self.pull(100).iter().map(|one| one.lease).collect();
            assert_eq!(leases.len(), 100);
            leases.sort_by_key(|lease| lease.nonce);
            self.ack(leases);
        }
    }

    fn peek(&self, count: usize) -> Command {
        Command::Peek(Peek { queue: self.queue, count, bytes: 8 * MIB })
    }

    fn reopen(&mut self) {
        self.core = Core::open(&mut self.store, self.now, 7, policy).unwrap();
    }
}

/// Messages that stay, with many between them that went: `make` makes one, first.
fn stays(make: impl Fn(&mut Run), delay: u64) {
    let mut run = Run::new();
    for _ in 0..3 {
        make(&mut run);
        run.flow(WENT, delay);
    }
    make(&mut run);
    run.core.move_marks(&mut run.store).unwrap();
    for opened_again in [false, true] {
        if opened_again {
            run.reopen();
            // Once it may look at what no record says.
            let peek = run.peek(100);
            run.apply(peek);
        }
        let reply = run.within("a peek", run.peek(100), (10 * PASSED_MAX, MIB));
        let Reply::Peeked(peeked) = reply else { panic!("refused") };
        assert_eq!(peeked.len(), 4);
        run.within("a tick", Command::Tick, (10 * PASSED_MAX, MIB));
        // The oldest is looked for anew.
        let first = peeked[0].seq;
        run.apply(Command::Remove(capstan_core::Remove { queue: run.queue, messages: vec![first] }));
        run.store.taken();
        run.core.oldest_sent_at(run.queue, &run.store).unwrap();
        assert!(run.store.taken().0 <= 2 * PASSED_MAX, "the look at the oldest");
        run.send(1, 1, 0);
        run.store.taken();
        run.core.ready_since(run.queue, &run.store).unwrap().expect("one is ready");
        assert!(run.store.taken().0 <= 2 * PASSED_MAX, "the look at the first that is ready");
        let leases = run.pull(1).iter().map(|one| one.lease).collect();
        run.ack(leases);
        make(&mut run);
    }
    // All expire.
    run.now += 200_000_000;
    while run.within("expiry", Command::Tick, (20 * PASSED_MAX, MIB)) == (Reply::Ticked { more: true }) {}
    let state = run.core.view(run.queue).unwrap().state;
    assert_eq!(state.count(), 0);
}

#[test]
fn behind_a_long_lease_nobody_passes_over_what_went() {
    stays(
        |run| {
            run.send(1, 1, 0);
            run.pull(1);
        },
        0,
    );
}

#[test]
fn behind_a_long_retry_delay_nobody_passes_over_what_went() {
    stays(
        |run| {
            run.send(1, 1, 0);
            let lease = run.pull(1)[0].lease;
            run.retry(lease, 50_000_000);
        },
        0,
    );
}

#[test]
fn behind_a_long_send_delay_nobody_passes_over_what_went() {
    stays(|run| run.send(1, 1, 50_000_000), 7);
}

/// A record is made now and then: what went since is found at opening, with the leases.
#[test]
fn what_no_record_says_is_found_at_opening() {
    let mut run = Run::new();
    for _ in 0..2 {
        run.send(1, 1, 0);
        run.pull(1);
        run.flow(WENT, 0);
    }
    run.reopen();
    let Reply::Peeked(peeked) = run.within("a peek", run.peek(100), (4 * PASSED_MAX, MIB)) else {
        panic!("refused")
    };
    assert_eq!(peeked.len(), 2);
}

#[test]
fn far_timers_of_messages_that_went_are_passed_over_once() {
    let mut run = Run::new();
    run.send(WENT, 1, 50_000_000);
    run.send(1, 1, 60_000_000);
    let state = run.core.view(run.queue).unwrap().state;
    let messages = (1..state.tail.0 - 1).map(capstan_core::Seq).collect();
    run.apply(Command::Remove(capstan_core::Remove { queue: run.queue, messages }));
    let mut most = 0;
    for round in 0..10 {
        // Of each of these nothing more is known than that it is the next one.
        run.send(1, 1, 1_000);
        run.send(1, 1, 7_000);
        run.now += 5_000;
        run.store.taken();
        run.apply(Command::Tick);
        run.now += 5_000;
        run.apply(Command::Tick);
        if round > 0 {
            most = most.max(run.store.taken().0);
        }
        assert_eq!(run.core.next_due(), Some(60_000_001), "round {round}");
        let leases: Vec<Lease> = run.pull(9).iter().map(|one| one.lease).collect();
        assert_eq!(leases.len(), 2);
        run.ack(leases);
    }
    assert!(most < PASSED_MAX, "{most}");
}

/// Looked at each second while they come nearer, in which more are sent.
#[test]
fn a_look_ahead_passes_what_went_once_and_finds_what_is_between() {
    let mut run = Run::new();
    run.send(1, 1, 30_000);
    run.send(WENT, 1, 30_001);
    run.send(1, 1, 30_002);
    run.core.look_ahead(run.now, 10_000, &run.store).unwrap();
    let tail = run.core.view(run.queue).unwrap().state.tail.0;
    let messages = (2..tail - 1).map(capstan_core::Seq).collect();
    run.apply(Command::Remove(capstan_core::Remove { queue: run.queue, messages }));
    run.store.taken();
    for second in 1..30 {
        run.now = 1_000 * second;
        run.send(1, 1, 500);
        assert_eq!(
            run.core.due_soon(run.queue),
            if second <= 20 { 1 } else { 3 },
            "sent since the last look"
        );
        run.apply(Command::Tick);
        let found = run.core.look_ahead(run.now + 600, 10_000, &run.store).unwrap();
        run.now += 600;
        run.apply(Command::Tick);
        assert_eq!(!found.is_empty(), second == 20, "found once, in second {second}");
        assert_eq!(run.core.due_soon(run.queue), if second < 20 { 0 } else { 2 });
    }
    // The look at the next timer passes them once by itself.
    assert!(run.store.taken().0 <= 2 * WENT as u64 + 100 * PASSED_MAX);
    run.apply(Command::Purge(Purge { queue: run.queue }));
    assert_eq!(run.core.due_soon(run.queue), 0);
    while run.apply(Command::Tick) == (Reply::Ticked { more: true }) {}
    assert!(run.core.look_ahead(run.now, 10_000, &run.store).unwrap().is_empty());
}

#[test]
fn a_look_ahead_is_bounded_and_what_goes_makes_room() {
    let mut run = Run::new();
    run.send(limits::AHEAD_MAX + 10, 1, 5_000);
    run.send(1, 1, 1_000);
    let look = |run: &mut Run| {
        let found = run.core.look_ahead(run.now, 10_000, &run.store).unwrap();
        (found.len(), run.core.due_soon(run.queue))
    };
    let most = limits::AHEAD_MAX as u64;
    assert_eq!(look(&mut run), (1, most));
    assert_eq!(look(&mut run), (0, most), "there is no room");
    // One that is due earlier takes the place of the last.
    run.send(1, 1, 1);
    assert_eq!(run.core.due_soon(run.queue), most);
    run.now += 4_000;
    run.apply(Command::Tick);
    assert_eq!(run.core.due_soon(run.queue), most - 2);
    assert_eq!(look(&mut run), (1, most));
    run.core.look_no_more();
    assert_eq!(run.core.due_soon(run.queue), 0);
}

#[test]
fn a_purge_passes_over_none_that_went() {
    let mut run = Run::new();
    run.send(1, 1, 0);
    run.pull(1);
    run.flow(WENT, 0);
    run.send(10, 1, 0);
    run.apply(Command::Purge(Purge { queue: run.queue }));
    while run.within("a step", Command::Tick, (20 * PASSED_MAX, MIB)) == (Reply::Ticked { more: true }) {}
    let kept = |key: &&Key| matches!(key, Key::Meta | Key::Clock | Key::Queue(_) | Key::State(_));
    let left = run.store.store.records.keys().filter(|key| !kept(key));
    assert_eq!(left.count(), 0);
}

/// One of a mebibyte may be read beyond a limit, to see that it is passed.
#[test]
fn bodies_are_read_within_a_limit_of_bytes() {
    let mut run = Run::new();
    run.send(100, MIB, 0);
    let pull = |run: &Run| {
        Command::Pull(Pull {
            queue: run.queue,
            count: 100,
            bytes: 8 * MIB,
            lease: Some(10),
            holder: Holder::UNKNOWN,
        })
    };
    let Reply::Delivered(delivered) = run.within("a pull", pull(&run), (0, 9 * MIB)) else {
        panic!("refused")
    };
    assert_eq!(delivered.len(), 8);
    run.within("a peek", run.peek(100), (0, 2 * 9 * MIB));
    // What came back is read with what did not.
    run.now += 20;
    run.apply(Command::Tick);
    let Reply::Delivered(delivered) = run.within("a pull of both", pull(&run), (0, 10 * MIB)) else {
        panic!("refused")
    };
    assert_eq!(delivered.len(), 8);
    run.send(100, MIB, 5_000);
    run.now += 5_001;
    let most = limits::BODIES_BYTES + MIB;
    let mut steps = 0;
    while run.within("those that are due", Command::Tick, (0, most)) == (Reply::Ticked { more: true }) {
        steps += 1;
    }
    assert!(steps > 10, "{steps}");
    run.now += 200_000_000;
    let both = 2 * (most + MIB);
    let mut steps = 0;
    while run.within("expiry", Command::Tick, (400, both)) == (Reply::Ticked { more: true }) {
        steps += 1;
    }
    assert!(steps > 10, "{steps}");
    assert_eq!(run.core.view(run.queue).unwrap().state.count(), 0);
    run.send(100, MIB, 0);
    run.apply(Command::Purge(Purge { queue: run.queue }));
    while run.within("a purge", Command::Tick, (400, most)) == (Reply::Ticked { more: true }) {}
}
