//! What goes into the core and what comes out.

use crate::id::{Holder, MessageId, Millis, QueueId, Seq};
use crate::policy::Policy;
use crate::record::{ContentType, Message, Table};

/// Everything that can happen to the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Declare(Declaration),
    Send(Send),
    /// What a send was answered, if it is a repeated one. Nothing is stored.
    Recall(Recall),
    Pull(Pull),
    Settle(Settle),
    Extend(Extend),
    Peek(Peek),
    Purge(Purge),
    Remove(Remove),
    /// Time passes: timers, leases, retention, dead messages; a bounded step of each.
    Tick,
}

/// All policies; replaces the last ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    pub revision: String,
    /// Who declares, of [`Policy::purged_by`]; empty when nobody says.
    pub declarer: String,
    pub queues: Vec<DeclaredQueue>,
}

/// A queue of a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredQueue {
    pub label: String,
    pub policy: Policy,
    /// The policy in the caller's own form: given back by [`crate::Core::open`].
    pub document: Vec<u8>,
}

/// Messages for one queue, all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    pub queue: QueueId,
    /// At most [`crate::limits::BATCH_MAX`].
    pub items: Vec<SendItem>,
    /// Of a send that may be repeated: it is stored once.
    pub idempotency: Option<Idempotency>,
}

/// What a repeated send is known by. Both are digests, of the caller's choice: equal ones mean equal things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// Of the idempotency key, which names the send within its queue.
    pub key: u128,
    /// Of what was sent: with another one it is no repetition, but a mistake.
    pub content: u128,
}

/// A question for the answer to an earlier send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recall {
    pub queue: QueueId,
    pub idempotency: Idempotency,
}

/// One message to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendItem {
    /// The queue's delay when `None`; `Some(0)` means none.
    pub delay: Option<Millis>,
    pub content_type: ContentType,
    pub attributes: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// A wish for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    pub queue: QueueId,
    /// At most [`crate::limits::BATCH_MAX`].
    pub count: usize,
    /// No more body and attribute bytes than this, but always one message.
    pub bytes: u64,
    /// How long the leases last; the consumer's visibility timeout when `None`.
    pub lease: Option<Millis>,
    /// Who gets them.
    pub holder: Holder,
}

/// A lease, as its holder names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub queue: QueueId,
    pub seq: Seq,
    pub nonce: u64,
}

/// Verdicts on leased messages of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settle {
    pub queue: QueueId,
    pub acks: Vec<Lease>,
    pub retries: Vec<Retry>,
    pub releases: Vec<Lease>,
}

/// A failed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    pub lease: Lease,
    /// The consumer's delay when `None`.
    pub delay: Option<Millis>,
    /// Cut at [`crate::limits::REASON_MAX`] bytes.
    pub reason: String,
}

/// Longer leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extend {
    pub queue: QueueId,
    pub leases: Vec<Lease>,
    /// From now; the consumer's visibility timeout when `None`.
    pub duration: Option<Millis>,
}

/// A look at the oldest messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek {
    pub queue: QueueId,
    /// At most [`crate::limits::BATCH_MAX`].
    pub count: usize,
    /// No more body and attribute bytes than this, but always one message.
    pub bytes: u64,
}

/// All messages of a queue go, whatever their state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purge {
    pub queue: QueueId,
}

/// Some messages of a queue go, whatever their state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remove {
    pub queue: QueueId,
    pub messages: Vec<Seq>,
}

/// What follows from a command, once it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effects {
    pub reply: Reply,
    /// Queues that have ready messages they had not before.
    pub woken: Vec<QueueId>,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Declared,
    /// The messages of a send; of a repeated one those of the first.
    Sent(Vec<MessageId>),
    Delivered(Vec<Delivered>),
    Settled(Settled),
    /// The number of extended leases, and what had no effect.
    Extended(u32, Vec<(Lease, Warning)>),
    Peeked(Vec<Peeked>),
    /// How many messages went.
    Purged(u64),
    /// How many messages went, and those that were gone already.
    Removed(u32, Vec<Seq>),
    /// Whether more is due already.
    Ticked {
        more: bool,
    },
    Refused(Refusal),
}

/// Why a command had no effect at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No such queue.
    QueueUnknown,
    /// The queue is not declared any more; it only keeps what it has.
    QueueRetained,
    /// The queue or its consumer is paused.
    DeliveryPaused,
    /// Nothing consumes this queue.
    NoConsumer,
    /// More than the queue's `max_bytes` or `max_messages` at once: there will never be room.
    BeyondQueue,
    /// The queue's `max_bytes` would be passed.
    QueueBytesFull,
    /// The queue's `max_messages` would be passed.
    QueueMessagesFull,
    /// The idempotency key is that of an earlier send, of other content.
    KeyReused,
    /// Too many sends with idempotency keys are remembered, of the queue or of all.
    KeysFull,
    /// No such send is remembered: the answer to [`Recall`].
    NotSent,
}

/// A leased message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    pub lease: Lease,
    /// This delivery included: 1 at first.
    pub attempt: u32,
    pub until: Millis,
    pub message: Box<Message>,
}

/// What became of verdicts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    pub acks: u32,
    pub retries: u32,
    pub releases: u32,
    pub warnings: Vec<(Lease, Warning)>,
}

/// The kinds of verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Ack,
    Retry,
    Release,
    Extend,
}

/// Why a verdict had no effect, or an unusual one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning {
    /// The message is gone: acknowledged, dead-lettered, expired or purged. Nothing was done.
    Gone,
    /// The lease had ended and the message lives: an ack counts all the same, anything else is ignored.
    Late(Verdict),
    /// The lease is one of another queue. Nothing was done.
    OtherQueue,
}

/// A message as peek sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peeked {
    pub seq: Seq,
    pub table: Table,
    /// Deliveries so far.
    pub attempts: u32,
    /// `ready`, `delayed`, `leased` or `dead`.
    pub state: &'static str,
    pub message: Box<Message>,
}
