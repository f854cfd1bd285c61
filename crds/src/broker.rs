//! The kind Broker: where queues are stored.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::queue::ReplacedStore;
use crate::resources::Resources;
use crate::rule::{between, growing_size, rule};
use crate::{ByteSize, Duration};

/// Where queues are stored: a pod with a volume, and how clients reach it. Default: the defaults of its fields.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "capstan.dev",
    version = "v1alpha1",
    kind = "Broker",
    namespaced,
    status = "BrokerStatus",
    derive = "PartialEq",
    shortname = "capb",
    category = "capstan",
    doc = "Where queues are stored: the StatefulSet capstan-NAME, its Services and its volume. Queues that name no Broker use the one called default.",
    crates(kube_core = "::kube_core"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Queues", type_ = "integer", json_path = ".status.queues.active"),
    printcolumn(name = "Used", type_ = "string", json_path = ".status.storage.used"),
    printcolumn(name = "Capacity", type_ = "string", json_path = ".status.storage.capacity"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#
    )
)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerSpec {
    /// Pods; must be 1. Default 1.
    #[schemars(extend("x-kubernetes-validations" = [rule(
        "self == 1",
        "replicas must be 1: a Broker is one pod with one volume",
    )]))]
    pub replicas: i32,
    /// The volume that keeps the messages. Default: the defaults of its fields.
    pub storage: Storage,
    /// The Service that producers and clients use. Default: the defaults of its fields.
    pub service: Service,
    /// Who may reach the pod, where the cluster's network enforces NetworkPolicy. Default: the defaults of its fields.
    pub network_policy: NetworkPolicy,
    /// The pod that runs the broker. Default: the defaults of its fields.
    pub pod: Pod,
}

impl Default for BrokerSpec {
    fn default() -> Self {
        Self {
            replicas: 1,
            storage: Storage::default(),
            service: Service::default(),
            network_policy: NetworkPolicy::default(),
            pod: Pod::default(),
        }
    }
}

/// The volume of a Broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "has(self.className) == has(oldSelf.className) && (!has(self.className) || self.className == oldSelf.className)",
    "storage.className is immutable; create a new Broker",
)]))]
pub struct Storage {
    /// Its size, a quantity of at least 1Gi. It can only grow, which needs a StorageClass with allowVolumeExpansion and
    /// restarts nothing. Default 10Gi.
    #[schemars(extend("x-kubernetes-validations" = growing_size("storage.size", "1Gi")))]
    pub size: ByteSize,
    /// The StorageClass, at most 253 characters. Immutable. Default: the cluster's default class.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub class_name: Option<String>,
    /// How the volume may be mounted: by one pod of the cluster (`ReadWriteOncePod`), or by one node (`ReadWriteOnce`),
    /// for drivers that know no other. A volume that is bound keeps its mode. Default ReadWriteOncePod.
    pub access_mode: AccessMode,
    /// Whether the volume is kept (`Retain`) or goes (`Delete`) when the Broker is deleted. Default Retain.
    pub volumes: Volumes,
    /// Percent of the volume that sends leave free, for acks and compaction, 5 to 50; at most 10 GiB are kept. Default 10.
    #[schemars(range(min = 5, max = 50))]
    pub reserve_percent: u8,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            size: ByteSize::literal("10Gi"),
            class_name: None,
            access_mode: AccessMode::ReadWriteOncePod,
            volumes: Volumes::Retain,
            reserve_percent: 10,
        }
    }
}

/// How a volume may be mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(clippy::enum_variant_names, reason = "as Kubernetes names them")]
pub enum AccessMode {
    #[default]
    ReadWriteOncePod,
    ReadWriteOnce,
}

impl AccessMode {
    /// As Kubernetes writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOncePod => "ReadWriteOncePod",
            Self::ReadWriteOnce => "ReadWriteOnce",
        }
    }
}

/// What becomes of volumes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Volumes {
    #[default]
    Retain,
    Delete,
}

/// How clients reach a Broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// `ClusterIP` or `LoadBalancer`. Default ClusterIP.
    #[serde(rename = "type")]
    pub kind: ServiceType,
    /// Annotations of the Service, at most 32. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
}

/// Types of a Broker's Service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(clippy::enum_variant_names, reason = "as Kubernetes names them")]
pub enum ServiceType {
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    LoadBalancer,
}

/// Who may reach a Broker's pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicy {
    /// Whether the operator makes the NetworkPolicy `capstan-NAME`. Default true.
    pub enabled: bool,
    /// Who may reach the data port 9796 beside the pods of this namespace, at most 16 peers. Empty: whoever may reach it
    /// by the other policies of the namespace, which is everyone where there are none. Default empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = peers("networkPolicy.from")))]
    pub from: Vec<NetworkPolicyPeer>,
    /// Who may reach the admin port 9795 beside the operator, such as a scraper of metrics, at most 16 peers. They may
    /// change what the Broker does, too. Default empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = peers("networkPolicy.adminFrom")))]
    pub admin_from: Vec<NetworkPolicyPeer>,
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self { enabled: true, from: Vec::new(), admin_from: Vec::new() }
    }
}

/// What the API server asks of each peer of a NetworkPolicy, said where the peer was written.
fn peers(field: &str) -> serde_json::Value {
    json!([rule(
        "self.all(peer, has(peer.ipBlock) != (has(peer.podSelector) || has(peer.namespaceSelector)))",
        &format!("each peer of {field} is either an ipBlock, or a podSelector, a namespaceSelector or both"),
    )])
}

/// The pod of a Broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Requests and limits. Default: requests 100m CPU and 128Mi memory, limit 512Mi memory.
    pub resources: Resources,
    /// Labels that the node must have, at most 32. Default: none, any node will do.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pod tolerates, at most 32. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// The PriorityClass, at most 253 characters. Default: the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
    /// How long the pod may take to end, 10s to 10m. Default 60s.
    #[schemars(extend("x-kubernetes-validations" = between("pod.terminationGracePeriod", "10s", "10m")))]
    pub termination_grace_period: Duration,
}

impl Default for Pod {
    fn default() -> Self {
        Self {
            resources: Resources::literal(&[("cpu", "100m"), ("memory", "128Mi")], &[("memory", "512Mi")]),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            priority_class_name: None,
            termination_grace_period: Duration::literal("60s"),
        }
    }
}

/// What is known of a Broker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Base URL for producers and clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The version of the broker that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Changes when the store is new and empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// How full the volume is, and whether it grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageStatus>,
    /// How many queues it stores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Queues>,
    /// Queues whose resource is gone and whose messages are kept; the first 50 by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 50, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = json!(["name"])))]
    pub retained_queues: Vec<RetainedQueue>,
    /// The store that the Broker had before, when messages were last seen in it and the one it has now began empty. Shown for
    /// 14 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_store: Option<ReplacedStore>,
    /// Ready: it serves, and knows its queues. Available: its pod serves. StorageHealthy: the volume has room, so that sends
    /// are taken. Resizing: the volume is not as large as it is to be. Updated: the pod is made as the operator's version
    /// makes it. Each says what to do.
    #[serde(default)]
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = json!(["type"])))]
    pub conditions: Vec<Condition>,
}

/// How full the volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageStatus {
    /// The size of the volume, a quantity of bytes such as 9.8Gi.
    pub capacity: ByteSize,
    /// What is used of it, a quantity of bytes, in steps of a hundredth of the size.
    pub used: ByteSize,
    /// What sends leave free of it, a quantity of bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<ByteSize>,
    /// Whether the volume is growing to `spec.storage.size`.
    #[serde(default)]
    pub resize: Resize,
}

/// How far the growth of a volume is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Resize {
    /// It is as large as asked for.
    #[default]
    None,
    /// The volume's driver was asked.
    InProgress,
    /// The volume has grown, its file system not yet.
    FileSystemPending,
    /// It cannot grow; the condition Resizing says why.
    Refused,
}

/// How many queues a Broker stores.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Queues {
    /// Queues with a resource.
    pub active: u32,
    /// Queues whose resource is gone and whose messages are kept.
    pub retained: u32,
}

/// A queue whose resource is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetainedQueue {
    /// Its name; creating a Queue of this name adopts the messages.
    pub name: String,
    /// Messages that are kept, in any state.
    pub messages: u64,
    /// Bytes of bodies and attributes that are kept.
    pub bytes: u64,
    /// When its messageRetention will have removed the last message. An outage of the Broker of more than an hour moves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_by: Option<Time>,
}
