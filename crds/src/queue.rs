//! The kind Queue: a named, durable set of messages and its policy.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::rule::{between, immutable, rule};
use crate::{BROKER_DEFAULT, ByteSize, Duration};

/// What a Queue is: where it is stored, what it keeps and for how long. Default: the defaults of its fields.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "capstan.dev",
    version = "v1alpha1",
    kind = "Queue",
    namespaced,
    status = "QueueStatus",
    derive = "PartialEq",
    shortname = "capq",
    category = "capstan",
    doc = "A named, durable set of messages. Producers send to it over HTTP by its name; a Consumer says who handles them.",
    crates(kube_core = "::kube_core"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Ready-Msgs", type_ = "integer", json_path = ".status.messages.ready"),
    printcolumn(name = "Leased", type_ = "integer", json_path = ".status.messages.leased"),
    printcolumn(name = "Delayed", type_ = "integer", json_path = ".status.messages.delayed"),
    printcolumn(name = "Oldest", type_ = "string", json_path = ".status.messages.oldestAge"),
    printcolumn(name = "DLQ", type_ = "integer", json_path = ".status.deadLetter.ready"),
    printcolumn(name = "Consumer", type_ = "string", json_path = ".status.consumer.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#
    )
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "duration(self.deliveryDelay) < duration(self.messageRetention)",
    "deliveryDelay must be shorter than messageRetention, or delayed messages are dropped before they are due",
)]))]
pub struct QueueSpec {
    /// The Broker of this namespace that stores the messages. Immutable. Default: the Broker `default`, created on first use.
    #[schemars(extend("x-kubernetes-validations" = immutable("brokerRef", "create a new Queue and move the messages")))]
    pub broker_ref: BrokerRef,
    /// `Active` or `Paused`; while paused nothing is delivered and sends go on. Default Active. Cloudflare: delivery_paused.
    pub delivery: Delivery,
    /// How long a message that is sent without a delay of its own waits before it is delivered, 0s to 24h; shorter than
    /// messageRetention. Default 0s. Cloudflare: delivery_delay.
    #[schemars(extend("x-kubernetes-validations" = between("deliveryDelay", "0s", "24h")))]
    pub delivery_delay: Duration,
    /// Messages that are older are dropped, whatever their state, 60s to 336h (14 days). It counts from the send, and anew in a
    /// dead-letter queue. Default 96h. Cloudflare: message_retention_period.
    #[schemars(extend("x-kubernetes-validations" = between("messageRetention", "60s", "336h")))]
    pub message_retention: Duration,
    /// How much the queue holds. Beyond it sends are refused with status 429, and nothing that is there goes. Default: the
    /// defaults of its fields.
    pub limits: Limits,
    /// `Retain` or `Delete`: what becomes of the messages when this resource is deleted. Retained ones stay in the Broker
    /// until messageRetention ends, and a Queue of the same name has them again; with Delete they are purged, and a Queue
    /// of the same name begins empty. Default Retain.
    pub deletion_policy: DeletionPolicy,
}

impl Default for QueueSpec {
    fn default() -> Self {
        Self {
            broker_ref: BrokerRef::default(),
            delivery: Delivery::Active,
            delivery_delay: Duration::literal("0s"),
            message_retention: Duration::literal("96h"),
            limits: Limits::default(),
            deletion_policy: DeletionPolicy::Retain,
        }
    }
}

/// A Broker of the Queue's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerRef {
    /// Its name, at most 40 characters. Default `default`.
    #[schemars(length(max = 40), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

impl Default for BrokerRef {
    fn default() -> Self {
        Self { name: BROKER_DEFAULT.to_owned() }
    }
}

/// Whether messages are delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Delivery {
    #[default]
    Active,
    Paused,
}

/// What becomes of the messages of a Queue that is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum DeletionPolicy {
    #[default]
    Retain,
    Delete,
}

/// How much a queue holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Largest body of a message in bytes, 1 to 1048576. Default 128000.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max_message_bytes: u32,
    /// Most bytes of bodies and attributes of all messages, so that one queue cannot fill the volume; a quantity such as 500M
    /// or 2Gi, at least 0. Default 1Gi.
    pub max_bytes: ByteSize,
    /// Most messages in any state, 0 to 9007199254740991; with 0 every send is refused. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub max_messages: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: capstan_api::limits::MESSAGE_BYTES_DEFAULT,
            max_bytes: ByteSize::literal("1Gi"),
            max_messages: None,
        }
    }
}

/// What is known of a Queue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the messages are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<QueueBroker>,
    /// The active Consumer: the first that came, until it is gone. Others wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<QueueConsumer>,
    /// How many messages there are in each state: written at once when a count comes from or to 0, doubles or halves, and
    /// smaller changes after 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Messages>,
    /// The dead-letter queue of the active Consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetter>,
    /// The store that the Broker had before, when messages of this queue were last seen in it and the one it has now began
    /// empty. Shown for as long as messageRetention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_store: Option<ReplacedStore>,
    /// Ready: producers can send. Accepted: the name can be used. BrokerResolved: the Broker exists. Delivering: messages go
    /// to a Consumer. DeadLetterBlocked: messages whose retries are used up wait for their dead-letter queue. Each says what to do.
    #[serde(default)]
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = json!(["type"])))]
    pub conditions: Vec<Condition>,
}

/// Where a Queue's messages are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueBroker {
    /// The name of the Broker.
    pub name: String,
    /// The namespace of the Broker.
    pub namespace: String,
    /// Names the Broker's store: another value means another store, which began empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// Base URL for producers and clients.
    pub endpoint: String,
}

/// A store that had messages, and in whose place there is another, empty one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplacedStore {
    /// Its incarnation, as in the logs of operator and broker.
    pub incarnation: String,
    /// Messages that were last seen in it.
    pub messages: u64,
    /// When the other store was noticed.
    pub noticed_at: Time,
}

/// The Consumer that has a Queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueConsumer {
    /// The Consumer's name.
    pub name: String,
    /// Its UID: a new Consumer of the same name is another one.
    pub uid: String,
}

/// Counts of a Queue's messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Messages {
    /// Messages that can be delivered now.
    pub ready: u64,
    /// Messages that a consumer has and has not settled.
    pub leased: u64,
    /// Messages that are due later: sent or retried with a delay.
    pub delayed: u64,
    /// Messages whose retries are used up and whose dead-letter queue cannot take them; see DeadLetterBlocked.
    pub dead: u64,
    /// Bytes of bodies and attributes of all messages.
    pub bytes: u64,
    /// Age of the oldest message, whatever its state, such as 1h2m3s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_age: Option<Duration>,
    /// When the counts were taken.
    pub observed_at: Time,
}

/// Messages that used up their retries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// The name of the dead-letter queue.
    pub queue: String,
    /// Messages that wait in it.
    pub ready: u64,
    /// Age of the oldest of them, such as 1h2m3s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_age: Option<Duration>,
}
