//! Releases: free, but not for ever, and not as quick as many pods can make them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use capstan_core::memory::MemoryStore;
use capstan_core::{
    Command, ContentType, Core, Declaration, DeclaredQueue, Delivered, Holder, Pull, QueueId, Reply, Send,
    SendItem, Settle,
};

const HOUR_MS: u64 = 3_600_000;

struct Run {
    core: Core,
    store: MemoryStore,
    queue: QueueId,
    now: u64,
}

impl Run {
    fn new() -> Self {
        let mut store = MemoryStore::default();
        let policy = || support::policy(3, None);
        let core = Core::open(&mut store, 1000, 7, move |_| Some(policy())).unwrap();
        let mut run = Self { core, store, queue: QueueId(0), now: 1000 };
        let queue = DeclaredQueue { label: "main".to_owned(), policy: policy(), document: Vec::new() };
        run.apply(Command::Declare(Declaration {
            revision: String::new(),
            declarer: String::new(),
            queues: vec![queue],
        }));
        run.queue = run.core.find("main").unwrap();
        run
    }

    fn apply(&mut self, command: Command) -> Reply {
        self.core.apply(command, self.now, &mut self.store).unwrap().reply
    }

    /// The next delivery, as soon as there is one.
    fn next(&mut self) -> Delivered {
        loop {
            let pull =
                Pull { queue: self.queue, count: 1, bytes: u64::MAX, lease: None, holder: Holder::UNKNOWN };
            let Reply::Delivered(mut delivered) = self.apply(Command::Pull(pull)) else { panic!("refused") };
            if let Some(delivered) = delivered.pop() {
                return delivered;
            }
            self.now = self.core.next_due().expect("something will be due").max(self.now);
            self.apply(Command::Tick);
        }
    }
}

#[test]
fn a_message_that_nobody_takes_keeps_its_attempts_for_most_of_a_day_however_many_try() {
    let mut run = Run::new();
    let item =
        SendItem { delay: None, content_type: ContentType::Bytes, attributes: Vec::new(), body: vec![0] };
    run.apply(Command::Send(Send { queue: run.queue, items: vec![item], idempotency: None }));
    let start = run.now;
    let mut waits = Vec::new();
    for release in 1..=1000 {
        let before = run.now;
        let Delivered { lease, attempt, .. } = run.next();
        assert_eq!(attempt, 1, "release {release}");
        waits.push((run.now - before) / 1000);
        let (queue, acks, retries) = (run.queue, Vec::new(), Vec::new());
        let settled = run.apply(Command::Settle(Settle { queue, acks, retries, releases: vec![lease] }));
        assert!(matches!(settled, Reply::Settled(settled) if settled.releases == 1));
    }
    // At once as long as pods that end may be the cause.
    assert_eq!(waits[..11], [0; 11]);
    assert_eq!(waits[11..20], [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert!(run.now - start > 16 * HOUR_MS, "{} h", (run.now - start) / HOUR_MS);
    let Delivered { lease, .. } = run.next();
    let (queue, acks, retries) = (run.queue, Vec::new(), Vec::new());
    run.apply(Command::Settle(Settle { queue, acks, retries, releases: vec![lease] }));
    assert_eq!(run.next().attempt, 2, "then each release is an attempt");
}
