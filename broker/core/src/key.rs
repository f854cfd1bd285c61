//! Every key of the store, in the order in which the store keeps them.
//!
//! The derived order is the order of the encoded bytes: kind first, then big-endian numbers. What every commit rewrites comes
//! last: new messages and these records then lie side by side, and the older messages before them stay out of compaction.

use crate::id::{Millis, Order, QueueId, Seq};
use crate::record::Table;

/// The name of one record. What is said of each: its value, when it is written, when it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// [`crate::Message`] sent without a delay; never overwritten. Fresh ready ones are those from the cursor on.
    Fresh(QueueId, Seq),
    /// [`crate::Message`] sent with a delay, so that the cursor never meets it; never overwritten.
    Parked(QueueId, Seq),
    /// [`crate::Delivery`]: what happened to a message so far. Written when it first leaves its first state; goes with it.
    Delivery(QueueId, Seq),
    /// The [`Seq`] of a message that is ready again. Goes when it is leased or gone.
    Returned(QueueId, Order),
    /// The [`Seq`] of a message that waits for its dead-letter queue. Goes when it is moved or gone.
    Dead(QueueId, Order),
    /// [`crate::Timer`]: a delayed message and when it is due. Goes when it is due or gone.
    Timer(Millis, QueueId, Seq),
    /// [`crate::SentRecord`] of the send whose first message this is, if it named an idempotency key. Goes when its window is over.
    Sent(QueueId, Seq),
    /// [`crate::Meta`]: identity of the store and of its declaration. One; rewritten by a declaration.
    Meta,
    /// [`crate::QueueRecord`]: name and policy. Written by a declaration; goes when the queue is retained and empty.
    Queue(QueueId),
    /// [`crate::State`]: positions and counts. Written by every commit that touches the queue; goes with the queue.
    State(QueueId),
    /// [`crate::Clock`]: time of the last commit. One; written by every commit.
    Clock,
    /// [`crate::PurgeRecord`]: what a purge has left to remove. Written by a purge; goes when all is removed.
    Purge(QueueId),
    /// [`crate::GapsRecord`]: where nothing lives any more, between what does. Written when low marks are moved, while
    /// something lives long; goes with it.
    Gaps(QueueId),
    /// [`crate::RememberedMarks`]: where remembered sends begin. Written when some are forgotten, or when some are there at a
    /// start; goes with the queue.
    Remembered(QueueId),
}

impl Key {
    /// The key of a message in `table`.
    #[must_use]
    pub const fn message(table: Table, queue: QueueId, seq: Seq) -> Self {
        match table {
            Table::Fresh => Self::Fresh(queue, seq),
            Table::Parked => Self::Parked(queue, seq),
        }
    }
}
