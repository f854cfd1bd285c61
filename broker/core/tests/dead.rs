//! Dead messages go on as soon as their dead-letter queue can take them, however busy the broker is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use capstan_core::memory::MemoryStore;
use capstan_core::{
    Command, ContentType, Core, Declaration, DeclaredQueue, Holder, Peek, Policy, Pull, QueueId, Refusal,
    Reply, Retry, Send, SendItem, Settle,
};

const LETTERS: usize = 150;

fn policy(dead_letter: Option<&str>) -> Policy {
    support::policy(0, dead_letter)
}

fn declaration(dead_letters: bool) -> Command {
    let declared = |label: &str, dead_letter: Option<&str>| DeclaredQueue {
        label: label.to_owned(),
        policy: policy(dead_letter),
        document: Vec::new(),
    };
    let mut queues = vec![declared("main", Some("dead"))];
    queues.extend(dead_letters.then(|| declared("dead", None)));
    Command::Declare(Declaration { revision: String::new(), declarer: String::new(), queues })
}

struct Run {
    core: Core,
    store: MemoryStore,
    now: u64,
}

impl Run {
    fn apply(&mut self, command: Command) -> Reply {
        self.core.apply(command, self.now, &mut self.store).unwrap().reply
    }

    fn send(&mut self, queue: QueueId, bytes: usize) {
        let (delay, content_type, attributes) = (None, ContentType::Bytes, Vec::new());
        let item = SendItem { delay, content_type, attributes, body: vec![0; bytes] };
        self.apply(Command::Send(Send { queue, items: vec![item], idempotency: None }));
    }

    /// Ticks when the core asks for it, as the engine does; other commands pass the time.
    fn busy_second(&mut self, queue: QueueId) {
        for _ in 0..20 {
            self.now += 50;
            self.send(queue, 1);
            if self.core.next_due().is_some_and(|due| due <= self.now) {
                self.apply(Command::Tick);
            }
        }
    }

    fn dead(&self, queue: QueueId) -> u64 {
        self.core.view(queue).unwrap().state.dead
    }
}

fn run_with_dead() -> (Run, QueueId) {
    let mut store = MemoryStore::default();
    let core = Core::open(&mut store, 1000, 7, |_| Some(policy(None))).unwrap();
    let mut run = Run { core, store, now: 1000 };
    run.apply(declaration(false));
    let main = run.core.find("main").unwrap();
    for _ in 0..LETTERS {
        run.send(main, 1);
        let pull = Pull { queue: main, count: 1, bytes: u64::MAX, lease: None, holder: Holder::UNKNOWN };
        let Reply::Delivered(delivered) = run.apply(Command::Pull(pull)) else { panic!("refused") };
        let retries = vec![Retry { lease: delivered[0].lease, delay: None, reason: String::new() }];
        run.apply(Command::Settle(Settle { queue: main, acks: Vec::new(), retries, releases: Vec::new() }));
    }
    assert_eq!(run.dead(main), LETTERS as u64, "they wait while their queue is not there");
    (run, main)
}

#[test]
fn dead_letters_move_on_while_the_broker_is_busy() {
    let (mut run, main) = run_with_dead();
    run.busy_second(main);
    assert_eq!(run.dead(main), LETTERS as u64);
    assert_eq!(run.core.view(main).unwrap().blocked, Some(Refusal::QueueUnknown));
    run.apply(declaration(true));
    run.busy_second(main);
    run.busy_second(main);
    assert_eq!(run.dead(main), 0);
    let letters = run.core.find("dead").unwrap();
    assert_eq!(run.core.view(letters).unwrap().state.ready, LETTERS as u64);
    assert_eq!(run.core.view(main).unwrap().blocked, None);
}

#[test]
fn dead_letters_that_wait_say_why() {
    let why = |consumer: bool, target: Option<Policy>, retained: bool| {
        let (mut run, main) = run_with_dead();
        let declared =
            |label: &str, policy| DeclaredQueue { label: label.to_owned(), policy, document: Vec::new() };
        let consumer = policy(Some("dead")).consumer.filter(|_| consumer);
        let mut queues = vec![declared("main", Policy { consumer, ..policy(None) })];
        if retained {
            // It has a message, so that it stays.
            run.apply(of(vec![declared("dead", policy(None))]));
            let dead = run.core.find("dead").unwrap();
            run.send(dead, 1);
        }
        queues.extend(target.map(|policy| declared("dead", policy)));
        run.apply(of(queues));
        run.busy_second(main);
        run.core.view(main).unwrap().blocked
    };
    let limited = |max_bytes, max_messages| Some(Policy { max_bytes, max_messages, ..policy(None) });
    assert_eq!(why(false, None, false), Some(Refusal::NoConsumer));
    assert_eq!(why(true, None, false), Some(Refusal::QueueUnknown));
    assert_eq!(why(true, None, true), Some(Refusal::QueueRetained));
    assert_eq!(why(true, limited(Some(10), None), false), Some(Refusal::QueueBytesFull));
    assert_eq!(why(true, limited(None, Some(10)), false), Some(Refusal::QueueMessagesFull));
    assert_eq!(why(true, limited(Some(0), None), false), Some(Refusal::BeyondQueue));
    assert_eq!(why(true, limited(None, None), false), None);
}

fn of(queues: Vec<DeclaredQueue>) -> Command {
    Command::Declare(Declaration { revision: String::new(), declarer: String::new(), queues })
}

/// One verdict on 20 messages of a mebibyte each: moved at once they would be held in memory together.
#[test]
fn many_large_dead_letters_move_in_steps() {
    const SIZE: usize = 1 << 20;
    const COUNT: usize = 20;
    let (core, store) = {
        let mut store = MemoryStore::default();
        (Core::open(&mut store, 1000, 7, |_| Some(policy(None))).unwrap(), store)
    };
    let mut run = Run { core, store, now: 1000 };
    run.apply(declaration(true));
    let (main, letters) = (run.core.find("main").unwrap(), run.core.find("dead").unwrap());
    for _ in 0..COUNT {
        run.send(main, SIZE);
    }
    let pull = Pull { queue: main, count: COUNT, bytes: u64::MAX, lease: None, holder: Holder::UNKNOWN };
    let Reply::Delivered(delivered) = run.apply(Command::Pull(pull)) else { panic!("refused") };
    let retry =
        |one: &capstan_core::Delivered| Retry { lease: one.lease, delay: None, reason: String::new() };
    let retries = delivered.iter().map(retry).collect();
    run.apply(Command::Settle(Settle { queue: main, acks: Vec::new(), retries, releases: Vec::new() }));
    let mut steps = vec![run.dead(main)];
    while run.dead(main) > 0 {
        assert!(run.core.next_due().is_some_and(|due| due <= run.now), "they go on at once");
        run.apply(Command::Tick);
        steps.push(run.dead(main));
    }
    assert_eq!(steps, [12, 4, 0]);
    assert_eq!(run.core.view(letters).unwrap().state.ready, COUNT as u64);
}

#[test]
fn a_look_holds_no_more_bytes_than_asked_for_but_one_message() {
    let (mut run, main) = run_with_dead();
    run.apply(declaration(true));
    let letters = run.core.find("dead").unwrap();
    for bytes in [500, 400, 300, 1] {
        run.send(letters, bytes);
    }
    let mut look = |bytes| {
        let Reply::Peeked(peeked) = run.apply(Command::Peek(Peek { queue: letters, count: 100, bytes }))
        else {
            panic!("refused")
        };
        peeked.iter().map(|one| one.message.body.len()).collect::<Vec<_>>()
    };
    assert_eq!(look(100), [500], "always one");
    assert_eq!(look(900), [500, 400]);
    assert_eq!(look(u64::MAX), [500, 400, 300, 1]);
    assert!(run.dead(main) > 0, "nothing moved, as no time passed");
}
