//! Every record of the store.

use crate::id::{MessageId, Millis, Order, QueueId, Seq};

/// A value of the store; [`crate::Key`] says which belongs where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    Meta(Meta),
    Queue(QueueRecord),
    State(State),
    Purge(Purge),
    Gaps(Gaps),
    Remembered(RememberedMarks),
    Clock(Clock),
    Message(Box<Message>),
    Delivery(Delivery),
    Entry(Seq),
    Timer(Timer),
    Sent(SentRecord),
}

impl Record {
    /// Bytes of the body and attributes of a message; 0 of all other records.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        if let Self::Message(message) = self { message.bytes() } else { 0 }
    }
}

/// Identity of the store and of its declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Random, made with the store: tells it from every other.
    pub incarnation: u64,
    /// The id of the next new queue.
    pub next_queue: QueueId,
    /// The declarer's mark of the last declaration.
    pub revision: String,
}

/// A queue's name and policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRecord {
    pub label: String,
    /// Missing from the last declaration.
    pub retained: bool,
    pub times: Times,
    /// The policy in the caller's own form.
    pub document: Vec<u8>,
}

/// When a queue was declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// First.
    pub created_at: Millis,
    /// With another policy than before.
    pub modified_at: Millis,
    /// With a consumer, where it had none before; 0 while it has none.
    pub consumer_at: Millis,
}

/// A queue's positions and counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The next message's sequence number.
    pub tail: Seq,
    /// No fresh message below this was never leased.
    pub cursor: Seq,
    /// No fresh message lives below this.
    pub fresh_low: Seq,
    /// No parked message lives below this.
    pub parked_low: Seq,
    /// No returned entry lives below this.
    pub returned_head: Order,
    /// No dead entry lives below this.
    pub dead_head: Order,
    /// The next returned or dead entry's place.
    pub next_order: Order,
    /// Leases made so far: part of each lease's nonce.
    pub leases_made: u64,
    /// When the queue was last purged; 0 when it never was.
    pub purged_at: Millis,
    pub ready: u64,
    pub delayed: u64,
    pub leased: u64,
    pub dead: u64,
    /// Of bodies and attributes of all messages.
    pub bytes: u64,
}

impl State {
    /// Of a queue that never had a message.
    pub const EMPTY: Self = Self {
        tail: Seq(1),
        cursor: Seq(1),
        fresh_low: Seq(1),
        parked_low: Seq(1),
        returned_head: Order(1),
        dead_head: Order(1),
        next_order: Order(1),
        leases_made: 0,
        purged_at: 0,
        ready: 0,
        delayed: 0,
        leased: 0,
        dead: 0,
        bytes: 0,
    };

    /// All messages.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.ready + self.delayed + self.leased + self.dead
    }
}

/// What a purge has left to remove: its messages are gone already, their records follow in steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purge {
    /// Nothing is left below these.
    pub fresh: Seq,
    pub parked: Seq,
    pub delivery: Seq,
    pub returned: Order,
    pub dead: Order,
    /// What is left is below these.
    pub end: Seq,
    pub order_end: Order,
}

/// Sequence numbers from the first to below the last, none of which has a message.
pub type Gap = std::ops::Range<Seq>;

/// Long gaps between the messages of a queue, in each table: in order, and apart. What lies in one is never read again, as
/// below the queue's marks; so is a delivery that lies in both tables' gaps, or below their marks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gaps {
    pub fresh: Vec<Gap>,
    pub parked: Vec<Gap>,
}

/// A send that named an idempotency key. Its messages are those from its place on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentRecord {
    /// As in [`crate::Idempotency`].
    pub key: u128,
    pub content: u128,
    /// How many messages.
    pub count: u32,
    /// In time less [`RememberedMarks::down`]: the window is counted from here.
    pub sent_at: Millis,
}

/// Where a queue's remembered sends begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RememberedMarks {
    /// None is remembered below this.
    pub low: Seq,
    /// Time without a broker, summed, while some were remembered: nobody could repeat them then.
    pub down: Millis,
}

impl Default for RememberedMarks {
    fn default() -> Self {
        Self { low: Seq(0), down: 0 }
    }
}

/// Time, as of the last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// When the last commit was made.
    pub committed: Millis,
    /// Long outages so far, summed: retention is counted in time less this.
    pub outage: Millis,
    /// No timer lives below this.
    pub timer_head: (Millis, QueueId, Seq),
}

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContentType {
    Json,
    Text,
    Bytes,
    V8,
}

/// A message as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: MessageId,
    pub sent_at: Millis,
    /// When this queue took it, in time less outages: retention counts from here.
    pub stored_at: Millis,
    /// When it is first due; 0 when it was sent without a delay.
    pub due: Millis,
    pub content_type: ContentType,
    pub attributes: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Where it was before this dead-letter queue.
    pub origin: Option<Origin>,
}

impl Message {
    /// What it counts towards its queue's bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let attributes: usize = self.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        (self.body.len() + attributes) as u64
    }
}

/// What a dead letter was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The label of the queue it comes from.
    pub label: String,
    /// Attempts spent there.
    pub attempts: u32,
    /// Why the last one failed; empty when nobody said.
    pub reason: String,
    /// When it was moved.
    pub moved_at: Millis,
}

/// Where a message is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Fresh,
    Parked,
}

/// What happened to a message so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub table: Table,
    /// As in [`Message::bytes`], so that settling need not read the message.
    pub bytes: u64,
    /// Attempts spent: leases that ended by retry, by time, or by a release too many.
    pub attempts: u32,
    /// Leases given back.
    pub releases: u32,
    pub place: Place,
    /// Why the last attempt failed; empty when nobody said.
    pub reason: String,
}

/// The state of a message that left its first state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `batch` is the same for all messages of one pull.
    Leased {
        until: Millis,
        nonce: u64,
        batch: u64,
    },
    Returned {
        order: Order,
    },
    Waiting {
        due: Millis,
    },
    Dead {
        order: Order,
    },
}

/// A delayed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    pub table: Table,
}
