//! The kind Consumer: who processes a Queue and how.

use capstan_api::workload::{Workload, WorkloadKind};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Duration;
use crate::resources::Resources;
use crate::rule::{between, immutable, rule};
use crate::scaling::Scaling;

/// Who processes a Queue: the pods of a workload (push) or clients (pull), and by which rules.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "capstan.dev",
    version = "v1alpha1",
    kind = "Consumer",
    namespaced,
    status = "ConsumerStatus",
    derive = "PartialEq",
    shortname = "capc",
    category = "capstan",
    doc = "Who processes a Queue. With a targetRef every pod of that workload gets a sidecar that POSTs batches to the application on localhost; without one, clients pull.",
    crates(kube_core = "::kube_core"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Queue", type_ = "string", json_path = ".spec.queueRef.name"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.targetRef.name"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.replicas.desired"),
    printcolumn(name = "Pods-Ready", type_ = "integer", json_path = ".status.replicas.ready"),
    printcolumn(name = "In-Flight", type_ = "integer", json_path = ".status.calls.inFlight"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules()))]
pub struct ConsumerSpec {
    /// The Queue to consume, of the same namespace. Immutable. A Queue has one active Consumer.
    #[schemars(extend("x-kubernetes-validations" = immutable("queueRef", "create a new Consumer")))]
    pub queue_ref: QueueRef,
    /// The workload whose pods consume, of the same namespace. Without it this is a pull consumer; that cannot change later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Where the application listens in its pods. Push consumers only. Default: the defaults of its fields.
    #[serde(default)]
    pub endpoint: Endpoint,
    /// Most messages in a batch, 1 to 100. Default 10. Cloudflare: max_batch_size.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 100))]
    pub max_batch_size: u16,
    /// Most bytes of bodies in a batch, 1 to 2097152; a larger message comes alone. Default 256000.
    #[serde(default = "default_batch_bytes")]
    #[schemars(range(min = 1, max = 2_097_152))]
    pub max_batch_bytes: u32,
    /// How long a batch gathers after its first message, 0s to 60s. Default 5s. Cloudflare: max_wait_time_ms, max_batch_timeout.
    #[serde(default = "default_wait_time")]
    #[schemars(extend("x-kubernetes-validations" = between("maxWaitTime", "0s", "60s")))]
    pub max_wait_time: Duration,
    /// Calls at once in one pod, 1 to 250. Each holds a batch in the sidecar's memory, which needs at most 40Mi and twice
    /// concurrencyPerPod times maxBatchBytes: when that is more than 64Mi, raise sidecar.resources. Default 1.
    #[serde(default = "default_concurrency")]
    #[schemars(range(min = 1, max = 250))]
    pub concurrency_per_pod: u16,
    /// Batches at once over all pods, or over all clients of a pull consumer, 1 to 250; the broker sees to it. With 1, batches
    /// are strictly one after the other. Default: no limit. Cloudflare: max_concurrency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 250))]
    pub max_concurrency: Option<u16>,
    /// Deliveries after the first, 0 to 100. Default 3, so that a message is delivered at most 4 times. Cloudflare: max_retries.
    #[serde(default = "default_retries")]
    #[schemars(range(min = 0, max = 100))]
    pub max_retries: u32,
    /// Delay of a retry that names none, 0s to 24h. Default 0s. Cloudflare: retry_delay.
    #[serde(default = "default_retry_delay")]
    #[schemars(extend("x-kubernetes-validations" = between("retryDelay", "0s", "24h")))]
    pub retry_delay: Duration,
    /// Lets the retry delay grow with the attempts. Default: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_backoff: Option<RetryBackoff>,
    /// Where messages go whose retries are used up; created if missing. Default: they are dropped. Cloudflare: dead_letter_queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter_queue_ref: Option<QueueRef>,
    /// How long a message stays leased, 1s to 12h; sidecars extend it while a call is open. Default 30s. Cloudflare: visibility_timeout_ms.
    #[serde(default = "default_visibility_timeout")]
    #[schemars(extend("x-kubernetes-validations" = between("visibilityTimeout", "1s", "12h")))]
    pub visibility_timeout: Duration,
    /// While true, nothing is delivered to this Consumer. Default false.
    #[serde(default)]
    pub paused: bool,
    /// How many pods the target has. Push consumers only. Several Consumers of a workload: the most that one of them wants,
    /// and none only when all agree. Default: the number of pods is never touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
    /// The sidecar's container. Push consumers only. The oldest Consumer of a workload decides. Default: the defaults of its
    /// fields.
    #[serde(default)]
    pub sidecar: Sidecar,
}

fn rules() -> serde_json::Value {
    json!([
        rule(
            "!has(self.deadLetterQueueRef) || self.deadLetterQueueRef.name != self.queueRef.name",
            "deadLetterQueueRef.name must be another queue than queueRef.name",
        ),
        rule(
            "has(self.targetRef) == has(oldSelf.targetRef)",
            "targetRef cannot be added or removed; create a new Consumer",
        ),
        rule(
            "!has(self.scaling) || has(self.targetRef)",
            "scaling needs a targetRef: pull consumers have no pods to scale",
        ),
        rule(
            "!has(self.retryBackoff) || duration(self.retryBackoff.maxDelay) >= duration(self.retryDelay)",
            "retryBackoff.maxDelay must be at least retryDelay",
        ),
        rule(
            "self.endpoint.port != self.sidecar.adminPort",
            "endpoint.port is taken by the sidecar; set sidecar.adminPort to another port",
        ),
        rule(
            "self.endpoint.port != self.sidecar.gatewayPort",
            "endpoint.port is taken by the sidecar's gateway; set sidecar.gatewayPort to another port",
        ),
        rule(
            "self.sidecar.gatewayPort != self.sidecar.adminPort",
            "sidecar.gatewayPort and sidecar.adminPort must be two ports",
        ),
    ])
}

fn default_batch_size() -> u16 {
    10
}
fn default_batch_bytes() -> u32 {
    256_000
}
fn default_wait_time() -> Duration {
    Duration::literal("5s")
}
fn default_concurrency() -> u16 {
    1
}
fn default_retries() -> u32 {
    3
}
fn default_retry_delay() -> Duration {
    Duration::literal("0s")
}
fn default_visibility_timeout() -> Duration {
    Duration::literal("30s")
}

/// A Queue of the Consumer's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueRef {
    /// Its name, at most 63 characters.
    #[schemars(length(max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

/// A workload of the Consumer's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// Its API version. Default apps/v1, and nothing else.
    #[serde(default)]
    pub api_version: TargetVersion,
    /// Deployment or StatefulSet.
    pub kind: TargetKind,
    /// Its name, at most 253 characters.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

impl TargetRef {
    /// The workload as the wire names it.
    #[must_use]
    pub fn workload(&self) -> Workload {
        let kind = match self.kind {
            TargetKind::Deployment => WorkloadKind::Deployment,
            TargetKind::StatefulSet => WorkloadKind::StatefulSet,
        };
        Workload { kind, name: self.name.clone() }
    }
}

/// The API versions a target can have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TargetVersion {
    #[default]
    #[serde(rename = "apps/v1")]
    AppsV1,
}

/// The kinds a target can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TargetKind {
    Deployment,
    StatefulSet,
}

/// Where an application takes batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// The port on localhost, 1 to 65535. Default 8080.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// The path, beginning with `/`, at most 1024 characters. Default `/`.
    #[schemars(length(max = 1024), regex(pattern = "^/"))]
    pub path: String,
    /// How long a call may take, 1s to 12h; the batch stays leased that long. Default 60s.
    #[schemars(extend("x-kubernetes-validations" = between("endpoint.timeout", "1s", "12h")))]
    pub timeout: Duration,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self { port: 8080, path: "/".to_owned(), timeout: Duration::literal("60s") }
    }
}

/// Growth of the retry delay: `retryDelay * factor^(attempt - 1)`, at most `maxDelay`, with full jitter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBackoff {
    /// By how much the delay grows with each attempt, 1 to 10. Default 2.
    #[schemars(range(min = 1, max = 10))]
    pub factor: u32,
    /// The longest delay, 0s to 24h. Default 1h.
    #[schemars(extend("x-kubernetes-validations" = between("retryBackoff.maxDelay", "0s", "24h")))]
    pub max_delay: Duration,
}

impl Default for RetryBackoff {
    fn default() -> Self {
        Self { factor: 2, max_delay: Duration::literal("1h") }
    }
}

/// The container that Capstan adds to the target's pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sidecar {
    /// The port on localhost where it takes the application's sends, 1024 to 65535. Default 9797.
    #[schemars(range(min = 1024, max = 65535))]
    pub gateway_port: u16,
    /// The port of its probes and metrics on the pod's address, 1024 to 65535. Default 9798.
    #[schemars(range(min = 1024, max = 65535))]
    pub admin_port: u16,
    /// Its requests and limits. Default: requests 10m CPU and 32Mi memory, limit 64Mi memory.
    pub resources: Resources,
    /// `Inject` gives the application's containers a preStop hook that returns when the sidecar's calls have ended, so that
    /// they get SIGTERM only then; `None` does not. Containers with a hook of their own keep it. Where sidecars get into pods
    /// by admission, the hook always comes with them, and this is not looked at. Where they stand in the pod template, a
    /// deploy that adds a hook to such a container is refused until this is `None`, and so is one by server-side apply that
    /// renames or removes it. Default None.
    pub app_pre_stop: AppPreStop,
    /// When pods get the sidecar of a newer Capstan: `OnRestart`, when they are made for another reason (where sidecars stand
    /// in the pod template: when the sidecar changes for another reason); `Rolling`, soon, two workloads of the cluster at a
    /// time. Default OnRestart.
    pub update_policy: UpdatePolicy,
}

/// Whether the application's containers get a preStop hook.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum AppPreStop {
    #[default]
    None,
    Inject,
}

/// When pods get the sidecar of a newer version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum UpdatePolicy {
    #[default]
    OnRestart,
    Rolling,
}

impl Default for Sidecar {
    fn default() -> Self {
        Self {
            gateway_port: capstan_api::SIDECAR_GATEWAY_PORT,
            admin_port: capstan_api::SIDECAR_ADMIN_PORT,
            resources: Resources::literal(&[("cpu", "10m"), ("memory", "32Mi")], &[("memory", "64Mi")]),
            app_pre_stop: AppPreStop::None,
            update_policy: UpdatePolicy::OnRestart,
        }
    }
}

/// What is known of a Consumer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many pods the target has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
    /// The calls to the application, as the broker counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<Calls>,
    /// The sidecars in the target's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<SidecarStatus>,
    /// What the admission policy puts into the target's pods; the same in all Consumers of a workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injection: Option<Injection>,
    /// Ready: the next three hold, and the Queue is Ready, or full. Accepted: this Consumer has the Queue. TargetResolved: the
    /// workload exists and can have a sidecar. SidecarsInjected: every pod has it. InjectionContested: somebody else writes
    /// its fields. AppReachable: the applications take batches. DrainBounded: a pod's end may cut calls. ScalingActive: the number of pods follows the demand. Each says what to do.
    #[serde(default)]
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = json!(["type"])))]
    pub conditions: Vec<Condition>,
}

/// How many pods the target has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replicas {
    /// Pods the workload asks for.
    pub desired: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// With `scaling`: pods that there are to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<u32>,
}

/// The calls to the application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Calls {
    /// Batches that pods have.
    pub in_flight: u64,
    /// The share of deliveries that failed in the last minute, such as 0.02; absent when there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_ratio: Option<String>,
    /// When this was so. What begins, ends, doubles or halves is shown within seconds, smaller changes after half a minute.
    pub observed_at: Time,
}

/// The sidecar that the admission policy gives to pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Injection {
    /// Base URL of its broker.
    pub broker_url: String,
    /// The port of its probes, hooks and metrics, at most 65535.
    pub admin_port: u16,
    /// The port on localhost of the application's sends, at most 65535.
    pub gateway_port: u16,
    /// Its requests and limits.
    pub resources: Resources,
}

/// How many pods have which sidecar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarStatus {
    /// How sidecars get into pods: Admission, Template, or Manual where the workload's own manifest has it.
    pub mode: String,
    /// The version that new pods get: the tag or digest of the image.
    pub version: String,
    /// Pods with this sidecar.
    pub updated: u32,
    /// Pods with an older one, which they keep until they are replaced.
    pub outdated: u32,
    /// Pods without one, which consume nothing.
    pub missing: u32,
}
