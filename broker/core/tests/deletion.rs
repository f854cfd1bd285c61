//! What becomes of messages when a queue is no longer declared: kept, or purged by the word of the right declarer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use capstan_core::memory::MemoryStore;
use capstan_core::{
    Command, ContentType, Core, Declaration, DeclaredQueue, Holder, Key, Policy, Pull, QueueView, Reply,
    Send, SendItem,
};

/// More than one step of a purge.
const MESSAGES: u64 = 600;
const RETENTION: u64 = 100_000_000;
const HOUR: u64 = 3_600_000;

/// The document is `resource purged_by`, the latter empty where messages are kept.
fn read(document: &[u8]) -> Option<Policy> {
    let (resource, purged_by) = std::str::from_utf8(document).ok()?.split_once(' ')?;
    let purged_by = (!purged_by.is_empty()).then(|| purged_by.to_owned());
    Some(Policy { resource: resource.to_owned(), purged_by, ..support::policy(1, None) })
}

struct Run {
    core: Core,
    store: MemoryStore,
    now: u64,
}

impl Run {
    fn new() -> Self {
        let mut store = MemoryStore::default();
        let core = Core::open(&mut store, 1_000, 7, read).unwrap();
        Self { core, store, now: 1_000 }
    }

    fn apply(&mut self, command: Command) -> Reply {
        let reply = self.core.apply(command, self.now, &mut self.store).unwrap().reply;
        self.core.flush(&mut self.store);
        reply
    }

    /// Declares `q` by its document, or nothing.
    fn declare(&mut self, declarer: &str, document: Option<&str>) {
        let queue = |document: &str| DeclaredQueue {
            label: "q".to_owned(),
            policy: read(document.as_bytes()).unwrap(),
            document: document.as_bytes().to_vec(),
        };
        let queues = document.map(queue).into_iter().collect();
        self.apply(Command::Declare(Declaration {
            revision: String::new(),
            declarer: declarer.to_owned(),
            queues,
        }));
    }

    fn send(&mut self, count: u64) {
        let queue = self.core.find("q").unwrap();
        for _ in 0..count {
            let (content_type, attributes, body) = (ContentType::Text, Vec::new(), vec![b'x']);
            let items = vec![SendItem { delay: None, content_type, attributes, body }];
            let reply = self.apply(Command::Send(Send { queue, items, idempotency: None }));
            assert!(matches!(reply, Reply::Sent(_)), "{reply:?}");
        }
    }

    fn view(&self) -> Option<QueueView<'_>> {
        self.core.view(self.core.find("q")?)
    }

    fn count(&self) -> u64 {
        self.view().map_or(0, |view| view.state.count())
    }

    fn reopen(&mut self, downtime: u64) {
        self.now += downtime;
        self.core = Core::open(&mut self.store, self.now, 7, read).unwrap();
    }

    fn settle_down(&mut self) {
        while self.apply(Command::Tick) == (Reply::Ticked { more: true }) {}
    }

    fn messages_on_disk(&self) -> usize {
        self.store.records.keys().filter(|key| matches!(key, Key::Fresh(..))).count()
    }
}

fn filled(document: &str) -> Run {
    let mut run = Run::new();
    run.declare("broker-1", Some(document));
    run.send(MESSAGES);
    run
}

#[test]
fn its_own_declarer_takes_the_messages_with_the_queue() {
    let mut run = filled("a broker-1");
    run.declare("broker-1", None);
    let view = run.view().unwrap();
    assert!(view.retained && view.purging, "its records follow in steps");
    assert_eq!((run.count(), run.core.empty_by(view.id)), (0, None));
    run.apply(Command::Tick);
    assert!((1..MESSAGES as usize).contains(&run.messages_on_disk()), "{}", run.messages_on_disk());
    // The process ends in the middle of it.
    run.reopen(5_000);
    run.settle_down();
    assert_eq!((run.messages_on_disk(), run.core.find("q")), (0, None));
}

#[test]
fn nobody_elses_word_takes_anything() {
    for (document, declarer) in [
        ("a ", "broker-1"),
        ("a broker-1", ""),
        // A Broker that was made anew, perhaps from a backup, of which the queues are still to come.
        ("a broker-1", "broker-2"),
    ] {
        let mut run = filled(document);
        run.declare(declarer, None);
        assert_eq!(run.count(), MESSAGES, "{document} {declarer}");
        assert!(run.view().unwrap().retained);
        // What was kept once is not purged by a later declaration without it.
        run.declare("broker-1", None);
        run.settle_down();
        assert_eq!(run.count(), MESSAGES, "{document} {declarer}");
        // And it is adopted, whoever has it then.
        run.declare("broker-2", Some("b broker-2"));
        assert_eq!((run.count(), run.view().unwrap().retained), (MESSAGES, false));
    }
}

#[test]
fn a_queue_that_is_made_anew_begins_empty_however_late_that_is_noticed() {
    for gone_between in [true, false] {
        let mut run = filled("a broker-1");
        let pull = Pull {
            queue: run.core.find("q").unwrap(),
            count: 10,
            bytes: u64::MAX,
            lease: Some(60_000),
            holder: Holder::UNKNOWN,
        };
        run.apply(Command::Pull(pull));
        if gone_between {
            run.declare("broker-1", None);
        }
        run.declare("broker-1", Some("b "));
        assert_eq!(run.count(), 0, "{gone_between}");
        // While the old records go, it is a queue like any other, also over a crash.
        run.send(3);
        run.apply(Command::Tick);
        run.reopen(0);
        run.settle_down();
        assert_eq!((run.count(), run.messages_on_disk()), (3, 3));
        // This one keeps its messages.
        run.declare("broker-1", Some("c "));
        assert_eq!(run.count(), 3);
    }
}

#[test]
fn another_policy_of_the_same_resource_takes_nothing() {
    let mut run = filled("a broker-1");
    run.declare("broker-1", Some("a "));
    assert_eq!(run.count(), MESSAGES);
    run.declare("broker-1", None);
    assert_eq!(run.count(), MESSAGES, "it was to be kept in the end");
}

#[test]
fn a_declarer_from_before_marks_takes_nothing() {
    let mut run = filled("a broker-1");
    run.declare("", Some(" "));
    assert_eq!(run.count(), MESSAGES);
    run.declare("broker-1", Some("a broker-1"));
    assert_eq!(run.count(), MESSAGES);
}

#[test]
fn what_is_kept_says_when_it_has_expired() {
    let mut run = filled("a ");
    assert_eq!(run.core.empty_by(run.core.find("q").unwrap()), None, "sends may come");
    run.now += HOUR;
    run.declare("broker-1", None);
    let by = |run: &Run| run.core.empty_by(run.core.find("q").unwrap()).unwrap();
    let first = by(&run);
    assert_eq!(first, run.now + RETENTION);
    run.reopen(HOUR / 2);
    assert_eq!(by(&run), first, "a short outage counts towards the retention");
    run.reopen(2 * HOUR);
    assert_eq!(by(&run), first + 2 * HOUR, "a long one does not");
    run.now = by(&run);
    run.settle_down();
    assert_eq!(run.core.find("q"), None, "and so it is");
}
