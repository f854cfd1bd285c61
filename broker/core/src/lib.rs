//! The queue as a state machine: `apply(command, now, store) → effects`, with no I/O, no clock and no threads.
//!
//! ```text
//! send ──► delayed ──due──► ready ──pull──► leased ──ack──────────────────────────► gone
//!   └────────(no delay)──────▲                │ ├─retry(delay)──► delayed | ready        (an attempt)
//!                            ├───lease ends───┤ └─release───────► ready                  (no attempt)
//!                            └────────────────┘
//!                              retries used up ──► dead-letter queue, or gone; `dead` while the target cannot take it
//!  any state ──older than retention──► gone         any state ──purge──► gone
//! ```
//!
//! A caller (the broker's engine, or a test) gives each [`Command`] to [`Core::apply`] with the time and a [`Store`],
//! calls [`Core::flush`] and commits what the store collected, and only then acts on the [`Effects`].
//!
//! Invariants, asserted by the model test in `tests/model.rs`:
//!
//! 1. Each message is in exactly one state, and a queue's counts are the number of its messages in each.
//! 2. The same commands with the same times give the same records, however they are cut into commits.
//! 3. What is kept in memory is what [`Core::open`] rebuilds from the records.
//! 4. A message is leased at most `max_retries + 1` times, releases not counted; its attempts never fall.
//! 5. Every command reads and writes a bounded number of records, whatever the backlog.
//! 6. Time never runs backwards; an entry of an ordered index is never written before the index's remembered head.
//! 7. A send that is repeated with its idempotency key within the window is stored once.

mod ahead;
mod backlog;
mod command;
mod core;
mod declare;
mod extend;
mod fail;
mod fault;
mod front;
mod gaps;
mod id;
mod key;
pub mod limits;
pub mod memory;
mod peek;
mod policy;
mod pull;
mod purge;
mod queue;
mod record;
mod remembered;
mod remove;
mod send;
mod settle;
mod store;
mod tick;

pub use command::{
    Command, Declaration, DeclaredQueue, Delivered, Effects, Extend, Idempotency, Lease, Peek, Peeked, Pull,
    Purge, Recall, Refusal, Remove, Reply, Retry, Send, SendItem, Settle, Settled, Verdict, Warning,
};
pub use core::{Core, QueueView};
pub use fault::Fault;
pub use id::{Holder, MessageId, Millis, Order, QueueId, Seq};
pub use key::Key;
pub use policy::{Backoff, Consumer, Policy};
pub use queue::Totals;
pub use record::{
    Clock, ContentType, Delivery, Gap, Gaps as GapsRecord, Message, Meta, Origin, Place,
    Purge as PurgeRecord, QueueRecord, Record, RememberedMarks, SentRecord, State, Table, Timer, Times,
};
pub use store::{Limit, Store};
