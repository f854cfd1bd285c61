//! The labels and annotations Capstan writes, and the names it uses inside pods.

/// Recommended label: what the program is.
pub const NAME: &str = "app.kubernetes.io/name";
/// Recommended label: which part of Capstan it is.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Recommended label: who manages the object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Which Broker an object belongs to.
pub const BROKER: &str = "capstan.dev/broker";
/// On an object that the operator created on its own, without owner: why.
pub const CREATED_FOR: &str = "capstan.dev/created-for";
/// On a Broker's StatefulSet: a hash of the pod template that was applied.
pub const TEMPLATE: &str = "capstan.dev/template";
/// On a Broker's StatefulSet: a hash of what the operator's version made of that template, whatever the Broker asks for.
pub const VERSION_TEMPLATE: &str = "capstan.dev/version-template";
/// On a Broker's StatefulSet: since when its pod is being restarted for a new version, as RFC 3339; empty
/// while it is not.
pub const UPGRADING_SINCE: &str = "capstan.dev/upgrading-since";

/// On the pod template of a target: whose change makes pods that are completed by the admission policy.
pub const SIDECAR_MARK: &str = "capstan.dev/sidecar";

/// The name of the injected container.
pub const SIDECAR: &str = "capstan";
/// The field manager of everything the operator applies.
pub const FIELD_MANAGER: &str = "capstan";
/// The field manager of the number of a workload's pods: another one, which must not take the sidecar's fields along.
pub const SCALING_MANAGER: &str = "capstan-scaling";
