//! The control API on the broker's admin port: a declaration of all policies, and what the broker knows.
//!
//! A declaration is the whole truth and replaces the last one: a queue that is missing from it becomes *retained*
//! (it keeps its messages; peek works, sends and pulls do not) and is adopted again when it is declared again. One
//! with [`QueuePolicy::purged_by`] is purged instead, if it is that declarer who leaves it out.
//! Declaring the same twice changes nothing. All durations are milliseconds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::name::Name;
use crate::workload::{Endpoint, Workload};

/// Path of `PUT` [`Declaration`] → [`Declared`].
pub const DECLARATION_PATH: &str = "/control/v1/declaration";
/// Path of `GET` → [`BrokerState`].
pub const STATE_PATH: &str = "/control/v1/state";
/// Path of the long poll for changes of queues on the admin port.
pub const CHANGES_PATH: &str = "/control/v1/changes";
/// Longest time that a request for changes waits for some.
pub const CHANGES_WAIT_MS_MAX: u64 = 60_000;
/// How soon a delayed message counts as work to come; see [`QueueState::due_soon`].
pub const DUE_SOON: Duration = Duration::from_secs(10);
/// Most pods in [`Retiring`].
pub const RETIRING_PODS_MAX: usize = 1000;
/// Longest [`Retiring::for_ms`].
pub const RETIRING_MS_MAX: u64 = 600_000;

/// Path of `GET` → [`Pods`] of a workload, and of `PUT` [`Retiring`] → [`Pods`].
#[must_use]
pub fn pods_path(namespace: &str, workload: &Workload) -> String {
    format!("/control/v1/namespaces/{namespace}/workloads/{}/{}/pods", workload.kind.as_str(), workload.name)
}

/// Body of `PUT /control/v1/declaration`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    /// The declarer's own mark of this content, at most 128 bytes; [`BrokerState::revision`] gives it back.
    pub revision: String,
    /// Who declares, at most 128 bytes; empty when nobody says. See [`QueuePolicy::purged_by`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub declarer: String,
    /// At most 10,000, each (namespace, name) once.
    pub queues: Vec<QueuePolicy>,
}

/// A queue and how it is consumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuePolicy {
    pub namespace: Name,
    pub name: Name,
    /// Nothing is delivered; sends go on.
    #[serde(default)]
    pub delivery_paused: bool,
    /// Delay of a send that names none; at most 24 h.
    #[serde(default)]
    pub delivery_delay_ms: u64,
    /// Messages older than this are dropped; 60 s to 14 days.
    pub retention_ms: u64,
    /// Largest message body.
    #[serde(default = "default_message_bytes")]
    pub max_message_bytes: u32,
    /// Sends are refused beyond so many bytes of bodies and attributes.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    /// Sends are refused beyond so many messages.
    #[serde(default)]
    pub max_messages: Option<u64>,
    /// The one active consumer.
    #[serde(default)]
    pub consumer: Option<ConsumerPolicy>,
    /// Tells the resource that the queue comes from from a later one of its name; at most 128 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// The messages go with the resource: when this declarer's next declaration does not have the queue, or has it from
    /// another resource. Anybody else's word retains them, such as that of a new declarer who was not told of
    /// everything yet. At most 128 bytes; absent, they are retained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purged_by: Option<String>,
}

const fn default_message_bytes() -> u32 {
    limits::MESSAGE_BYTES_DEFAULT
}

/// How a queue is consumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerPolicy {
    pub name: Name,
    /// What consumes by push; a pull consumer when absent.
    #[serde(default)]
    pub push: Option<PushPolicy>,
    /// A message is delivered at most `max_retries + 1` times; at most 100.
    pub max_retries: u32,
    /// Delay of a retry that names none; at most 24 h.
    #[serde(default)]
    pub retry_delay_ms: u64,
    /// Lets the retry delay grow with the attempts.
    #[serde(default)]
    pub retry_backoff: Option<Backoff>,
    /// Where messages go whose retries are used up, a queue of the same namespace and broker; they are dropped when absent.
    #[serde(default)]
    pub dead_letter_queue: Option<Name>,
    /// Most batches that are leased at once, 1 to 250; no limit when absent.
    #[serde(default)]
    pub max_concurrency: Option<u16>,
    /// How long a lease lasts; 1 s to 12 h.
    pub visibility_timeout_ms: u64,
    /// Nothing is delivered to this consumer.
    #[serde(default)]
    pub paused: bool,
}

/// `retry_delay * factor^(attempt - 1)`, at most `max_delay_ms`, with full jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// 1 to 10.
    pub factor: u32,
    pub max_delay_ms: u64,
}

/// How a sidecar hands a queue's messages to its application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushPolicy {
    /// Whose pods consume.
    pub workload: Workload,
    pub endpoint: Endpoint,
    /// 1 to 100.
    pub max_batch_size: u16,
    /// Most body bytes of a batch, but always one message.
    pub max_batch_bytes: u32,
    /// How long a batch gathers after its first message; at most 60 s.
    pub max_wait_ms: u64,
    /// Calls at once in a pod; 1 to 250.
    pub concurrency_per_pod: u16,
}

/// Answer of `PUT /control/v1/declaration`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// Which store took it; see [`BrokerState::incarnation`].
    pub incarnation: String,
    /// What was declared.
    pub revision: String,
}

/// Answer of `GET /control/v1/state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerState {
    /// Made with the store: another value means an empty store, to which everything must be declared again.
    pub incarnation: String,
    /// The revision of the last declaration, kept over restarts; empty when nothing was declared yet.
    pub revision: String,
    /// The broker's version.
    pub version: String,
    /// Bytes of the volume, where they are known.
    #[serde(default)]
    pub storage: Option<StorageState>,
    /// All queues, declared and retained, ordered by namespace and name.
    pub queues: Vec<QueueState>,
}

/// Answer of `GET /control/v1/changes?since=VERSION&wait_ms=N`: what changed after that version. With an old version, or one
/// of another start of the broker, everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// To ask with the next time. Opaque.
    pub version: String,
    /// `queues` are all there are: one that is missing is gone.
    pub whole: bool,
    /// Ordered by namespace and name when they are all, in no order otherwise.
    pub queues: Vec<QueueState>,
}

/// The volume's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageState {
    pub capacity_bytes: u64,
    pub available_bytes: u64,
    /// Sends are refused while fewer are available; 0 from a broker that does not say.
    #[serde(default)]
    pub reserve_bytes: u64,
    /// What the store takes, its ballast not counted; 0 from a broker that does not say.
    #[serde(default)]
    pub used_bytes: u64,
    /// Sends are refused since less than the reserve was available, until somewhat more than it is.
    #[serde(default)]
    pub sends_refused: bool,
}

/// What a broker knows about a queue. Counts are exact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    pub namespace: Name,
    pub name: Name,
    /// Not in the last declaration: the messages are kept, sends and pulls refused.
    pub retained: bool,
    pub ready: u64,
    pub delayed: u64,
    /// Those of `delayed` that are due within [`DUE_SOON`]; about a second old at most. A lower bound when more than 5,000 of
    /// all queues are; 0 while nobody asks for [`Changes`].
    #[serde(default)]
    pub due_soon: u64,
    pub leased: u64,
    /// Batches that these were delivered in: calls that are under way.
    #[serde(default)]
    pub batches: u64,
    /// Waiting for a dead-letter queue that cannot take them.
    pub dead: u64,
    /// Why they wait; absent while there are none, or they are on their way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_blocked: Option<DeadBlocked>,
    pub bytes: u64,
    /// Age of the oldest message.
    #[serde(default)]
    pub oldest_age_ms: Option<u64>,
    /// How long the oldest message has waited for a consumer, milliseconds since it became ready. Of one that came back before
    /// the broker's start, since that start. [`Changes`] has it, [`BrokerState`] does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_ready_age_ms: Option<u64>,
    /// When the retention has removed everything, milliseconds since 1970; of retained queues that have messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_by_ms: Option<u64>,
    /// Events since the broker's start.
    #[serde(default)]
    pub totals: QueueTotals,
    /// What sidecars say of the application; absent while none has said anything. No change of its own: [`Changes`] has it
    /// of queues that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<ApplicationState>,
}

/// Body of `PUT …/pods`: pods of a workload that are about to go. They are leased nothing more; what they have they may finish.
/// Replaces what was said of the workload before. Kept in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retiring {
    /// Their names, at most [`RETIRING_PODS_MAX`]; none: all pods are leased messages again.
    pub pods: Vec<String>,
    /// How long it holds, unless it is said again; at most [`RETIRING_MS_MAX`].
    pub for_ms: u64,
}

/// The pods of a workload that ask the broker for messages, or have some.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pods {
    /// By name: those with leases, with pulls that wait, and those that retire. One that is missing has nothing.
    pub pods: Vec<PodState>,
    /// Leases of the workload's queues of which it is not known who has them, such as those made before the broker's start.
    pub leased_elsewhere: u64,
}

/// What a broker knows of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodState {
    pub name: String,
    /// Messages that it has.
    pub leased: u64,
    /// Pulls that wait.
    pub waiting: u32,
    /// It is leased nothing more.
    pub retiring: bool,
}

/// Why messages whose retries are used up do not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadBlocked {
    /// Nobody consumes the queue any more, so nobody says where they go.
    NoConsumer,
    /// The broker has no dead-letter queue of that name.
    TargetMissing,
    /// The dead-letter queue is retained.
    TargetRetained,
    /// The dead-letter queue holds as many bytes as it may.
    TargetBytesFull,
    /// The dead-letter queue holds as many messages as it may.
    TargetMessagesFull,
    /// The message alone is more than the dead-letter queue may hold.
    TargetTooSmall,
    /// What a newer broker knows.
    #[serde(other)]
    Other,
}

/// How many pods of a push consumer have an application that takes batches, by what their sidecars said in the last
/// [`REPORT_LASTS`](crate::workload::REPORT_LASTS).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationState {
    /// The Consumer's name.
    pub consumer: Name,
    /// Pods whose application takes batches.
    pub reachable: u32,
    /// Pods whose application takes none.
    pub unreachable: u32,
    /// The first of these by name, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<UnreachablePod>,
}

/// A pod whose application takes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreachablePod {
    pub pod: String,
    pub reason: String,
}

/// Counters of a queue since the broker's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueueTotals {
    pub sent: u64,
    pub delivered: u64,
    pub acknowledged: u64,
    pub retried: u64,
    pub released: u64,
    /// Leases that ended by time.
    pub lease_expired: u64,
    pub dead_lettered: u64,
    /// Dropped: retries used up and no dead-letter queue.
    pub dropped: u64,
    /// Dropped: older than the retention.
    pub expired: u64,
    /// Removed by a purge, of all messages or of some.
    #[serde(default)]
    pub purged: u64,
}
