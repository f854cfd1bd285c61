//! What a sidecar asks of the broker, and tells it: the Consumers of its workload, and whether its application takes batches.
//!
//! `GET /capstan/v1/namespaces/{namespace}/workloads/{kind}/{name}/consumers?revision=R&wait_ms=W` answers at once when
//! the revision differs from `R`, otherwise after a change or `W` milliseconds. An unknown workload has no consumers.
//!
//! `PUT …/workloads/{kind}/{name}/pods/{pod}` with a [`PodReport`] replaces what this pod said last. It is forgotten after
//! [`REPORT_LASTS`], and when the broker ends.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// Header by which a sidecar names its workload in pulls, as `Kind/name`; a push consumer's queue is pulled by no one else.
pub const WORKLOAD_HEADER: &str = "capstan-workload";
/// Header by which a sidecar names its pod.
pub const POD_HEADER: &str = "capstan-pod";
/// Longest name that Kubernetes gives a workload or a pod, in characters.
pub const OBJECT_NAME_MAX: usize = 253;
/// Longest `wait_ms` of the long poll.
pub const CONFIGURATION_WAIT_MS_MAX: u64 = 60_000;
/// How often a pod says again what it said, at least.
pub const REPORT_EVERY: Duration = Duration::from_secs(30);
/// How long a report counts: three that were lost, and a little.
pub const REPORT_LASTS: Duration = Duration::from_secs(100);
/// Most Consumers in a report, as in a pod.
pub const REPORT_CONSUMERS_MAX: usize = 64;
/// Longest reason in a report, in bytes; what is longer is cut.
pub const REPORT_REASON_BYTES_MAX: usize = 512;

/// A workload of the queue's namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Workload {
    pub kind: WorkloadKind,
    /// Its metadata.name (a DNS subdomain).
    pub name: String,
}

/// The kinds that a Consumer's `targetRef` can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WorkloadKind {
    Deployment,
    StatefulSet,
}

impl WorkloadKind {
    /// The kind as Kubernetes spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
        }
    }
}

/// Why a text names no workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no workload: write Deployment/NAME or StatefulSet/NAME")]
pub struct InvalidWorkload(pub String);

impl std::str::FromStr for Workload {
    type Err = InvalidWorkload;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidWorkload(text.chars().take(300).collect());
        let (kind, name) = text.split_once('/').ok_or_else(invalid)?;
        let kind = match kind {
            "Deployment" => WorkloadKind::Deployment,
            "StatefulSet" => WorkloadKind::StatefulSet,
            _ => return Err(invalid()),
        };
        if name.is_empty() || name.len() > OBJECT_NAME_MAX || name.contains('/') {
            return Err(invalid());
        }
        Ok(Self { kind, name: name.to_owned() })
    }
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)
    }
}

/// Answer of the long poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadConsumers {
    /// Changes whenever `consumers` does.
    pub revision: String,
    /// Ordered by queue.
    pub consumers: Vec<WorkloadConsumer>,
}

/// One queue that a pod consumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadConsumer {
    pub namespace: Name,
    pub queue: Name,
    /// The Consumer's name.
    pub name: Name,
    pub endpoint: Endpoint,
    pub max_batch_size: u16,
    pub max_batch_bytes: u32,
    pub max_wait_ms: u64,
    pub concurrency_per_pod: u16,
    pub visibility_timeout_ms: u64,
    /// Do not pull.
    pub paused: bool,
}

/// Where the application listens, on localhost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub port: u16,
    /// Begins with `/`.
    pub path: String,
    /// Longest call; 1 s to 12 h.
    pub timeout_ms: u64,
}

/// What a pod's sidecar knows of its application.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodReport {
    /// Those of which something is known, at most [`REPORT_CONSUMERS_MAX`]; none when the pod ends.
    pub consumers: Vec<ConsumerReport>,
}

/// Whether the application of one pod takes the batches of one Consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerReport {
    pub queue: Name,
    /// The Consumer's name.
    pub consumer: Name,
    /// Why it takes none: nothing listens, or it answers that it never began. Absent while it takes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_read_as_they_are_written() {
        for text in ["Deployment/shop", "StatefulSet/shop.v2"] {
            assert_eq!(text.parse::<Workload>().unwrap().to_string(), text);
        }
        for bad in ["", "shop", "Deployment/", "Pod/shop", "Deployment/a/b"] {
            assert!(bad.parse::<Workload>().is_err(), "{bad:?}");
        }
    }
}
