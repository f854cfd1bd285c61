//! The names and the address of a Broker's objects.

use crate::Key;

/// The volume in a Broker's pods, and the template of its claim.
pub const VOLUME: &str = "data";

/// The names of a Broker's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The StatefulSet.
    pub stateful_set: String,
    /// What clients reach.
    pub service: String,
    /// What gives each pod a name of its own.
    pub pods_service: String,
    /// The account of its pods, which has no rights.
    pub service_account: String,
    /// The NetworkPolicy.
    pub network_policy: String,
    /// The claim of the volume, as the StatefulSet names it.
    pub claim: String,
    /// Its only pod.
    pub pod: String,
}

/// The names of the objects of the Broker `name`.
#[must_use]
pub fn names(name: &str) -> Names {
    let base = format!("capstan-{name}");
    Names {
        pods_service: format!("{base}-pods"),
        claim: format!("{VOLUME}-{base}-0"),
        pod: format!("{base}-0"),
        stateful_set: base.clone(),
        service_account: base.clone(),
        network_policy: base.clone(),
        service: base,
    }
}

/// Base URL of a Broker for producers, clients and sidecars.
#[must_use]
pub fn endpoint(broker: &Key) -> String {
    format!("http://{}.{}.svc", names(&broker.name).service, broker.namespace)
}
