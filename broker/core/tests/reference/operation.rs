//! What a case of the model test may do.

use proptest::prelude::*;

use crate::{LONG, RETENTION};

/// What a case does; indexes pick among what exists.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Send {
        queue: usize,
        bodies: Vec<u8>,
        delay: Option<u64>,
    },
    /// A send with an idempotency key, of the few that there are; `content` decides what is sent.
    SendOnce {
        queue: usize,
        key: u8,
        content: u8,
    },
    Pull {
        queue: usize,
        count: usize,
        lease: Option<u64>,
    },
    Ack {
        pick: usize,
    },
    Retry {
        pick: usize,
        delay: Option<u64>,
    },
    Release {
        pick: usize,
    },
    Extend {
        pick: usize,
    },
    Peek {
        queue: usize,
    },
    /// All messages go; with `reopen`, the process ends before their records are removed.
    Purge {
        queue: usize,
        reopen: bool,
    },
    /// One message goes, by its place among all that were sent.
    Remove {
        queue: usize,
        seq: u64,
    },
    Pass {
        millis: u64,
    },
    /// The process ends and opens its store again, `down` later.
    Reopen {
        down: u64,
    },
    /// The dead-letter queue's declaration comes or goes; `purged` ones take their messages with them.
    DeclareDeadLetters {
        present: bool,
        purged: bool,
    },
}

pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    let delay = prop_oneof![
        4 => Just(None),
        4 => Just(Some(0)),
        4 => (1..8_000u64).prop_map(Some),
        1 => Just(Some(LONG)),
    ];
    let lease = prop_oneof![4 => Just(None), 1 => Just(Some(LONG))];
    prop_oneof![
        4 => (0..2usize, prop::collection::vec(any::<u8>(), 1..6), delay.clone())
            .prop_map(|(queue, bodies, delay)| Operation::Send { queue, bodies, delay }),
        4 => (0..2usize, 0..4u8, 0..2u8)
            .prop_map(|(queue, key, content)| Operation::SendOnce { queue, key, content }),
        4 => (0..2usize, 1..5usize, lease)
            .prop_map(|(queue, count, lease)| Operation::Pull { queue, count, lease }),
        3 => any::<usize>().prop_map(|pick| Operation::Ack { pick }),
        3 => (any::<usize>(), delay).prop_map(|(pick, delay)| Operation::Retry { pick, delay }),
        2 => any::<usize>().prop_map(|pick| Operation::Release { pick }),
        1 => any::<usize>().prop_map(|pick| Operation::Extend { pick }),
        1 => (0..2usize).prop_map(|queue| Operation::Peek { queue }),
        1 => (0..3usize, any::<bool>()).prop_map(|(queue, reopen)| Operation::Purge { queue, reopen }),
        2 => (0..2usize, 1..60u64).prop_map(|(queue, seq)| Operation::Remove { queue, seq }),
        3 => prop_oneof![1..300u64, 1_000..9_000u64, Just(RETENTION / 2)].prop_map(|millis| Operation::Pass { millis }),
        1 => (0..20_000u64).prop_map(|down| Operation::Reopen { down }),
        1 => (any::<bool>(), any::<bool>())
            .prop_map(|(present, purged)| Operation::DeclareDeadLetters { present, purged }),
    ]
}
