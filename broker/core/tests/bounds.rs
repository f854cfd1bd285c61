//! What is held in memory is bounded over all queues.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use capstan_core::memory::MemoryStore;
use capstan_core::{
    Command, ContentType, Core, Declaration, DeclaredQueue, Delivered, Holder, Policy, Pull, QueueId, Reply,
    Send, SendItem, Settle, limits,
};

const QUEUES: usize = 5;

fn policy(_: &[u8]) -> Option<Policy> {
    Some(support::policy(1, None))
}

fn send(core: &mut Core, store: &mut MemoryStore, queue: QueueId) {
    let item = || SendItem {
        delay: None,
        content_type: ContentType::Text,
        attributes: Vec::new(),
        body: Vec::new(),
    };
    let items = std::iter::repeat_with(item).take(limits::BATCH_MAX).collect();
    core.apply(Command::Send(Send { queue, items, idempotency: None }), 1, store).unwrap();
}

fn pull(core: &mut Core, store: &mut MemoryStore, queue: QueueId) -> Vec<Delivered> {
    let pull =
        Pull { queue, count: limits::BATCH_MAX, bytes: u64::MAX, lease: None, holder: Holder::UNKNOWN };
    let Reply::Delivered(delivered) = core.apply(Command::Pull(pull), 1, store).unwrap().reply else {
        panic!("refused")
    };
    delivered
}

#[test]
fn leases_are_bounded_over_all_queues() {
    let mut store = MemoryStore::default();
    let mut core = Core::open(&mut store, 1, 7, policy).unwrap();
    let declared = |number: usize| DeclaredQueue {
        label: format!("q{number}"),
        policy: policy(b"").unwrap(),
        document: Vec::new(),
    };
    let queues = (0..QUEUES).map(declared).collect();
    let declare = Command::Declare(Declaration { revision: String::new(), declarer: String::new(), queues });
    core.apply(declare, 1, &mut store).unwrap();
    let ids: Vec<QueueId> = core.views().map(|view| view.id).collect();
    let each = usize::try_from(limits::LEASED_ALL_MAX).unwrap() / QUEUES / limits::BATCH_MAX + 1;
    let (mut leased, mut first) = (0, Vec::new());
    for id in &ids {
        for _ in 0..each {
            send(&mut core, &mut store, *id);
            let delivered = pull(&mut core, &mut store, *id);
            leased += delivered.len() as u64;
            if first.is_empty() {
                first = delivered;
            }
        }
    }
    assert_eq!(leased, limits::LEASED_ALL_MAX);
    assert!(core.leases_full());
    let last = ids[QUEUES - 1];
    assert!(pull(&mut core, &mut store, last).is_empty(), "the messages wait");
    // What another queue gives back may be leased.
    let acks = first.iter().take(30).map(|one| one.lease).collect();
    let settle = Settle { queue: ids[0], acks, retries: Vec::new(), releases: Vec::new() };
    core.apply(Command::Settle(settle), 1, &mut store).unwrap();
    assert_eq!(pull(&mut core, &mut store, last).len(), 30);
}
