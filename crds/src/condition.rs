//! Types and reasons of the conditions in every status: part of the API, never renamed.

/// Everything the object asks for is in force.
pub const READY: &str = "Ready";
/// The object is valid beside the others of its namespace.
pub const ACCEPTED: &str = "Accepted";
/// Queue: its Broker exists.
pub const BROKER_RESOLVED: &str = "BrokerResolved";
/// Queue: messages are being handed out to its Consumer.
pub const DELIVERING: &str = "Delivering";
/// Consumer: the workload of `targetRef` exists and can be injected.
pub const TARGET_RESOLVED: &str = "TargetResolved";
/// Consumer: every pod of the target has the sidecar.
pub const SIDECARS_INJECTED: &str = "SidecarsInjected";
/// Consumer: someone else writes the fields of the sidecar.
pub const INJECTION_CONTESTED: &str = "InjectionContested";
/// Consumer: the applications of its pods take batches. Unknown while no sidecar has said anything.
pub const APP_REACHABLE: &str = "AppReachable";
/// Broker: its pod serves.
pub const AVAILABLE: &str = "Available";
/// Broker: its volume has room, so that sends are taken.
pub const STORAGE_HEALTHY: &str = "StorageHealthy";
/// Broker: its volume is not as large as it is to be. Bad only when it cannot grow.
pub const RESIZING: &str = "Resizing";
/// Broker: its pod is made as the operator's version makes it.
pub const UPDATED: &str = "Updated";

/// Reasons, as CamelCase words.
pub mod reason {
    /// The condition holds.
    pub const AS_DECLARED: &str = "AsDeclared";
    /// The object is valid.
    pub const ACCEPTED: &str = "Accepted";
    /// What is referenced was found.
    pub const RESOLVED: &str = "Resolved";
    /// Nothing was decided yet.
    pub const PENDING: &str = "Pending";
    /// The name cannot be used.
    pub const INVALID_NAME: &str = "InvalidName";
    /// `queueRef` names no Queue.
    pub const QUEUE_NOT_FOUND: &str = "QueueNotFound";
    /// Another Consumer came first.
    pub const QUEUE_ALREADY_CONSUMED: &str = "QueueAlreadyConsumed";
    /// The dead-letter queue is stored by another Broker.
    pub const DEAD_LETTER_QUEUE_ELSEWHERE: &str = "DeadLetterQueueElsewhere";
    /// `brokerRef` names no Broker.
    pub const BROKER_NOT_FOUND: &str = "BrokerNotFound";
    /// The Broker does not serve yet, or no longer.
    pub const BROKER_UNAVAILABLE: &str = "BrokerUnavailable";
    /// The Broker was not told of the newest change yet.
    pub const NOT_DECLARED: &str = "NotDeclared";
    /// The Queue is not ready.
    pub const QUEUE_NOT_READY: &str = "QueueNotReady";
    /// There is no Consumer.
    pub const NO_CONSUMER: &str = "NoConsumer";
    /// Delivery is switched off, by the Queue or by its Consumer.
    pub const PAUSED: &str = "Paused";
    /// Messages are handed out.
    pub const DELIVERING: &str = "Delivering";
    /// There is no `targetRef`: clients pull.
    pub const PULL: &str = "Pull";
    /// `targetRef` names no workload.
    pub const TARGET_NOT_FOUND: &str = "TargetNotFound";
    /// The target runs in its node's network.
    pub const HOST_NETWORK: &str = "HostNetwork";
    /// The target belongs to another controller, which would take the sidecar out again.
    pub const TARGET_CONTROLLED: &str = "TargetControlled";
    /// The Consumers of a workload use queues of more than one Broker.
    pub const BROKER_MISMATCH: &str = "BrokerMismatch";
    /// Something in the pod template already has the sidecar's name or port.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// Every pod has the sidecar.
    pub const INJECTED: &str = "Injected";
    /// Some pods have no sidecar yet.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// The API server refused the sidecar.
    pub const INJECTION_REFUSED: &str = "InjectionRefused";
    /// Another field manager owns the fields.
    pub const CONFLICT: &str = "Conflict";
    /// No other field manager writes the fields.
    pub const UNCONTESTED: &str = "Uncontested";
    /// The applications take batches.
    pub const REACHABLE: &str = "Reachable";
    /// In some pods nothing listens on `endpoint.port`, or what listens answers that it never began.
    pub const UNREACHABLE: &str = "Unreachable";
    /// No sidecar has said anything about its application yet.
    pub const NOT_REPORTED: &str = "NotReported";
    /// The pod serves.
    pub const SERVING: &str = "Serving";
    /// The pod does not serve (yet).
    pub const NOT_SERVING: &str = "NotServing";
    /// The API server refused an object of the Broker.
    pub const APPLY_REFUSED: &str = "ApplyRefused";
    /// The node of the pod does not report, or is gone.
    pub const NODE_LOST: &str = "NodeLost";
    /// The volume has room.
    pub const HEALTHY: &str = "Healthy";
    /// Less of the volume is free than is kept for acks and compaction: sends are refused.
    pub const NEARLY_FULL: &str = "NearlyFull";
    /// The volume's driver was asked for a larger volume.
    pub const RESIZE_IN_PROGRESS: &str = "ResizeInProgress";
    /// The volume has grown, its file system not yet.
    pub const FILE_SYSTEM_RESIZE_PENDING: &str = "FileSystemResizePending";
    /// The volume cannot grow.
    pub const RESIZE_REFUSED: &str = "ResizeRefused";
    /// The pod was restarted for a new version, and is awaited.
    pub const UPGRADING: &str = "Upgrading";
    /// A new version waits for the pods of other Brokers to come back.
    pub const UPGRADE_WAITING: &str = "UpgradeWaiting";
    /// A new version waits, because another Broker's pod has not come back with it for long.
    pub const UPGRADE_STOPPED: &str = "UpgradeStopped";
    /// A Broker found the volume of an earlier one of its name.
    pub const VOLUME_ADOPTED: &str = "VolumeAdopted";
}

#[cfg(test)]
mod tests {
    /// What needs no remedy.
    const GOOD: [&str; 11] = [
        "AsDeclared",
        "Accepted",
        "Resolved",
        "Delivering",
        "Pull",
        "Injected",
        "Uncontested",
        "Reachable",
        "Serving",
        "Healthy",
        "VolumeAdopted",
    ];

    #[test]
    fn every_reason_has_a_remedy_in_the_documentation() {
        let document = include_str!("../../docs/install.md");
        let source = include_str!("condition.rs").split("pub mod reason").nth(1).unwrap();
        let source = source.split("cfg(test)").next().unwrap();
        let reasons: Vec<&str> =
            source.split("&str = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(reasons.len() > 20, "{reasons:?}");
        let missing: Vec<_> = reasons
            .iter()
            .filter(|reason| !GOOD.contains(reason) && !document.contains(&format!("`{reason}`")))
            .collect();
        assert!(missing.is_empty(), "docs/install.md does not say what to do about {missing:?}");
    }
}
