//! The part `scaling` of a Consumer: how many pods its target has.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Duration;
use crate::rule::{between, rule};

/// How many pods the target has: between `minReplicas` and `maxReplicas`, as many as there is work for. Demand is what is
/// ready, what pods have, and what is due within ten seconds. Leave `replicas` out of the target's manifest then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = json!([rule(
    "self.minReplicas <= self.maxReplicas",
    "scaling.minReplicas must be at most scaling.maxReplicas",
)])))]
pub struct Scaling {
    /// Fewest pods, 0 to 1000. With 0 the last ones go after `idlePeriod`, and the first message brings one back. Default 1.
    #[serde(default = "default_min")]
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: u32,
    /// Most pods, 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: u32,
    /// Messages for each pod, 1 to 1000000: so many pods as the demand divided by this, rounded up. About what one pod
    /// handles in the time that a message may wait. Default 100.
    #[serde(default = "default_backlog")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub backlog_per_replica: u32,
    /// While the oldest ready message is older than this, there is one pod more than that, and another each minute; 1s to
    /// 24h. Default: ages are not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = between("scaling.maxOldestAge", "1s", "24h")))]
    pub max_oldest_age: Option<Duration>,
    /// Pods go when they were not needed for so long, 0s to 1h. Default 300s.
    #[serde(default = "default_while")]
    #[schemars(extend("x-kubernetes-validations" = between("scaling.scaleDownStabilization", "0s", "1h")))]
    pub scale_down_stabilization: Duration,
    /// With `minReplicas: 0`, the last pods go when there was nothing to do for so long, 10s to 24h. Default 300s.
    #[serde(default = "default_while")]
    #[schemars(extend("x-kubernetes-validations" = between("scaling.idlePeriod", "10s", "24h")))]
    pub idle_period: Duration,
}

fn default_min() -> u32 {
    1
}
fn default_backlog() -> u32 {
    100
}
fn default_while() -> Duration {
    Duration::literal("300s")
}
