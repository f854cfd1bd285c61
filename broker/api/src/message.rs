//! Requests and answers of the data plane, under `/client/v4/accounts/{namespace}/queues/{queue}/…`.
//!
//! Field names are Cloudflare's. Fields marked *extension* are Capstan's; a client that does not know them loses nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::bounded;
use crate::limits::{ATTRIBUTES_MAX, BATCH_COUNT_MAX};
use crate::name::Name;
use crate::number::{Number, Whole};

/// String headers that travel with a message, such as `traceparent` (extension).
pub type Attributes = BTreeMap<String, String>;

/// How a body is encoded. Sent in any case, answered in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentType {
    /// Any JSON value.
    #[default]
    Json,
    /// A string.
    Text,
    /// Base64 of any bytes (extension for sends over REST).
    Bytes,
    /// Base64 of a value in V8's serialization format (extension for sends over REST).
    V8,
}

impl ContentType {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::V8 => "v8",
        }
    }

    /// Reads a name in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Json, Self::Text, Self::Bytes, Self::V8]
            .into_iter()
            .find(|t| t.as_str().eq_ignore_ascii_case(text))
    }
}

/// Body of `POST messages`, and an item of [`SendBatch`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Send {
    /// The body: any JSON value for `json`, a string for `text`, base64 for `bytes` and `v8`.
    pub body: Box<RawValue>,
    /// `json` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// 0 to 86,400; over the batch's, over the queue's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_seconds: Option<Number>,
    /// At most 16 (extension). Of more, 17 are read.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::map::<_, ATTRIBUTES_MAX>"
    )]
    pub attributes: Option<Attributes>,
}

/// Body of `POST messages/batch`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SendBatch {
    /// 1 to 100 messages. Of more, 101 are read.
    #[serde(deserialize_with = "bounded::list::<_, _, BATCH_COUNT_MAX>")]
    pub messages: Vec<Send>,
    /// The delay of messages that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_seconds: Option<Number>,
}

/// Answer of both sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    pub metadata: Metadata,
    /// The ids given to the messages, in order (extension).
    #[serde(default)]
    pub ids: Vec<String>,
}

/// What several answers carry beside their result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    pub metrics: Metrics,
}

/// Answer of `GET metrics`: exact, over all messages that are neither acknowledged nor gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Metrics {
    pub backlog_count: u64,
    /// Bytes of their bodies and attributes.
    pub backlog_bytes: u64,
    /// When the oldest was sent, milliseconds since 1970; 0 when there is none.
    pub oldest_message_timestamp_ms: u64,
}

/// A queue in the answer of `GET queues`, as far as clients of Capstan read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedQueue {
    pub queue_name: Name,
    /// None or one.
    pub consumers: Vec<ListedConsumer>,
}

/// Who consumes a listed queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedConsumer {
    /// The workload of a push consumer; absent for a pull consumer.
    #[serde(default)]
    pub script_name: Option<String>,
}

/// Body of `POST messages/pull`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pull {
    /// 1 to 100, 5 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<Whole>,
    /// How long the lease lasts; the consumer's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility_timeout_ms: Option<Whole>,
    /// The older spelling of `visibility_timeout_ms`, which wins when both are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility_timeout: Option<Whole>,
    /// Gather for so long after the first ready message, unless the batch is full before; 0 when absent (extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<Whole>,
    /// Wait so long for a first ready message; `wait_ms` when absent (extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<Whole>,
    /// No more body bytes than this, at most 8 MiB, but always one message; 8 MiB when absent (extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_bytes: Option<Whole>,
}

/// Header by which a client names a pull, with 1 to 64 characters that nobody guesses; `POST messages/pull/cancel` with the
/// same header lets that pull, and each other one of that queue and name, answer at once (extension).
pub const PULL_HEADER: &str = "capstan-pull";

/// Answer of `POST messages/pull/cancel` (extension).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Whether a pull of that name was open on the queue.
    pub cancelled: bool,
}

/// Answer of `POST messages/pull`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    pub message_backlog_count: u64,
    pub messages: Vec<PulledMessage>,
    pub metadata: Metadata,
}

/// A leased message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledMessage {
    /// 32 hexadecimal digits; kept when the message moves to a dead-letter queue.
    pub id: String,
    /// Base64 for `json`, `bytes` and `v8`; the string itself for `text`.
    pub body: String,
    /// Deliveries so far, this one included: 1 at first.
    pub attempts: u32,
    /// When it was sent, milliseconds since 1970.
    pub timestamp_ms: u64,
    /// The proof that settles this delivery.
    pub lease_id: String,
    /// `CF-Content-Type`, `CF-sourceMessageSource`, and for dead letters `capstan-dead-letter-*`.
    pub metadata: BTreeMap<String, String>,
    /// Extension.
    #[serde(default, skip_serializing_if = "Attributes::is_empty")]
    pub attributes: Attributes,
}

/// Body of `POST messages/ack`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settle {
    /// Done with: the messages go.
    #[serde(default)]
    pub acks: Vec<Lease>,
    /// Failed: an attempt is spent, the messages come back after their delay.
    #[serde(default)]
    pub retries: Vec<Retry>,
    /// Never begun: the messages are ready again and no attempt is spent (extension).
    #[serde(default)]
    pub releases: Vec<Lease>,
}

/// One leased message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub lease_id: String,
}

/// One failed message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    pub lease_id: String,
    /// 0 to 86,400; the consumer's retry delay when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_seconds: Option<Number>,
    /// What went wrong, kept with the message; cut at 256 bytes (extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer of `POST messages/ack`. Camel case is Cloudflare's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    pub ack_count: u32,
    pub retry_count: u32,
    /// Extension.
    #[serde(default)]
    pub release_count: u32,
    /// By lease id: what had no effect, and why.
    pub warnings: BTreeMap<String, String>,
}

/// Body of `POST messages/extend` (extension).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extend {
    pub extends: Vec<Lease>,
    /// From now; the consumer's visibility timeout when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility_timeout_ms: Option<Whole>,
}

/// Answer of `POST messages/extend` (extension).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Extended {
    pub extend_count: u32,
    /// By lease id: what had no effect, and why.
    pub warnings: BTreeMap<String, String>,
}

/// Body of `POST messages/peek`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Peek {
    /// 1 to 100, 5 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<Whole>,
}

/// Answer of `POST messages/peek`: the oldest messages, whatever their state, with nothing leased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peeked {
    pub messages: Vec<PeekedMessage>,
}

/// A message as peek shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeekedMessage {
    pub id: String,
    /// As in [`PulledMessage::body`].
    pub body: String,
    /// Deliveries so far.
    pub attempts: u32,
    pub timestamp_ms: u64,
    /// Names the message to `messages/purge`.
    #[serde(rename = "ref")]
    pub reference: String,
    /// As in [`PulledMessage::metadata`], and `capstan-state`: `ready`, `delayed`, `leased` or `dead`.
    pub metadata: BTreeMap<String, String>,
    /// Extension.
    #[serde(default, skip_serializing_if = "Attributes::is_empty")]
    pub attributes: Attributes,
}

/// Body of `POST messages/purge`: the messages to remove, whatever their state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// At most 1,000.
    pub refs: Vec<Reference>,
}

/// Names a message that was peeked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    #[serde(rename = "ref")]
    pub reference: String,
}

/// Answer of `POST messages/purge`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Always empty: what cannot be read is refused as a whole.
    pub errors: Vec<RemoveError>,
    /// By ref: messages that were gone already.
    pub warnings: BTreeMap<String, String>,
    /// How many messages were removed (extension).
    #[serde(default, rename = "purgeCount")]
    pub purge_count: u32,
}

/// Why a message could not be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveError {
    pub message: String,
}

/// Body of `POST purge`: all messages of the queue go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purge {
    /// Must be true: a purge cannot be taken back.
    #[serde(default)]
    pub delete_messages_permanently: bool,
}

/// Answer of `GET purge`. Both fields are absent when the queue was never purged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeStatus {
    /// `"true"` when nothing is left on disk of what the last purge removed. The messages themselves are gone at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<String>,
    /// The same; what wrangler reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
    /// When the last purge was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
}
