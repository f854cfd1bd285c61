//! Types and reasons of the conditions in every status: part of the API, never renamed.

/// Everything the object asks for is in force.
pub const READY: &str = "Ready";
/// The object is valid beside the others of its namespace.
pub const ACCEPTED: &str = "Accepted";
/// Queue: its Broker exists.
pub const BROKER_RESOLVED: &str = "BrokerResolved";
/// Queue: messages are being handed out to its Consumer.
pub const DELIVERING: &str = "Delivering";
/// Queue: messages whose retries are used up wait, because their dead-letter queue cannot take them.
pub const DEAD_LETTER_BLOCKED: &str = "DeadLetterBlocked";
/// Consumer: the workload of `targetRef` exists and can be injected.
pub const TARGET_RESOLVED: &str = "TargetResolved";
/// Consumer: every pod of the target has the sidecar.
pub const SIDECARS_INJECTED: &str = "SidecarsInjected";
/// Consumer: someone else writes the fields of the sidecar.
pub const INJECTION_CONTESTED: &str = "InjectionContested";
/// Consumer: the applications of its pods take batches. Unknown while no sidecar has said anything.
pub const APP_REACHABLE: &str = "AppReachable";
/// Consumer: a pod's end may cut calls that its endpoint.timeout allows.
pub const DRAIN_BOUNDED: &str = "DrainBounded";
/// Consumer: the number of the target's pods follows the demand.
pub const SCALING_ACTIVE: &str = "ScalingActive";
/// Broker: its pod serves.
pub const AVAILABLE: &str = "Available";
/// Broker: its volume has room, so that sends are taken.
pub const STORAGE_HEALTHY: &str = "StorageHealthy";
/// Broker: its volume is not as large as it is to be. Bad only when it cannot grow.
pub const RESIZING: &str = "Resizing";
/// Broker: its pod is made as the operator's version makes it.
pub const UPDATED: &str = "Updated";

/// A verdict about one aspect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the condition is True.
    pub holds: bool,
    /// One of [`reason`].
    pub reason: &'static str,
    /// For people; says what to do where something is wrong.
    pub message: String,
}

impl Verdict {
    /// It holds.
    pub fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self { holds: true, reason, message: message.into() }
    }

    /// It does not hold; the message says what to do.
    pub fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { holds: false, reason, message: message.into() }
    }
}

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
    /// The Broker's store is new and empty; there were messages in the one before.
    pub const STORE_REPLACED: &str = "StoreReplaced";
    /// The Broker's volume is nearly full: sends are refused.
    pub const STORAGE_FULL: &str = "StorageFull";
    /// The Queue holds as much as its limits allow: sends are refused.
    pub const QUEUE_FULL: &str = "QueueFull";
    /// No message waits for its dead-letter queue.
    pub const NOT_BLOCKED: &str = "NotBlocked";
    /// The dead-letter queue holds as much as its limits allow.
    pub const DEAD_LETTER_QUEUE_FULL: &str = "DeadLetterQueueFull";
    /// The dead-letter queue has no resource (any more).
    pub const DEAD_LETTER_QUEUE_RETAINED: &str = "DeadLetterQueueRetained";
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
    /// The workload's own manifest has another sidecar than the Consumers ask for.
    pub const RENDERED_DIFFERS: &str = "RenderedDiffers";
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
    /// The number of pods follows the demand.
    pub const FOLLOWS_DEMAND: &str = "FollowsDemand";
    /// There is more to do than `scaling.maxReplicas` pods are for.
    pub const AT_MAX_REPLICAS: &str = "AtMaxReplicas";
    /// More than half of the last deliveries failed: more pods would fail more, fewer would hide it.
    pub const CALLS_FAILING: &str = "CallsFailing";
    /// The operator was installed so that it sets no number of pods.
    pub const SCALING_DISABLED: &str = "ScalingDisabled";
    /// A HorizontalPodAutoscaler or a ScaledObject sets the number of the target's pods.
    pub const OTHER_AUTOSCALER: &str = "OtherAutoscaler";
    /// Somebody else sets the number of the target's pods back.
    pub const REPLICAS_CONTESTED: &str = "ReplicasContested";
    /// The API server refused another number of pods.
    pub const SCALING_REFUSED: &str = "ScalingRefused";
    /// More pods were asked for.
    pub const SCALED_UP: &str = "ScaledUp";
    /// Fewer pods were asked for.
    pub const SCALED_DOWN: &str = "ScaledDown";
    /// Pods have less time to end than a call may take.
    pub const GRACE_PERIOD_SHORT: &str = "GracePeriodShort";
    /// Pods have time to end every call.
    pub const GRACE_PERIOD_SUFFICES: &str = "GracePeriodSuffices";
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
    const GOOD: [&str; 16] = [
        "AsDeclared",
        "Accepted",
        "Resolved",
        "Delivering",
        "Pull",
        "Injected",
        "Uncontested",
        "Reachable",
        "GracePeriodSuffices",
        "Serving",
        "Healthy",
        "VolumeAdopted",
        "NotBlocked",
        "FollowsDemand",
        "ScaledUp",
        "ScaledDown",
    ];

    #[test]
    fn every_reason_has_a_remedy_in_the_documentation() {
        let document = include_str!("../../docs/troubleshooting.md");
        let source = include_str!("condition.rs").split("pub mod reason").nth(1).unwrap();
        let source = source.split("cfg(test)").next().unwrap();
        let reasons: Vec<&str> =
            source.split("&str = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(reasons.len() > 20, "{reasons:?}");
        let missing: Vec<_> = reasons
            .iter()
            .filter(|reason| !GOOD.contains(reason) && !document.contains(&format!("`{reason}`")))
            .collect();
        assert!(missing.is_empty(), "docs/troubleshooting.md does not say what to do about {missing:?}");
    }
}
