//! The names and the address of a Broker's objects.

use capstan_crds::Key;

/// The volume in a Broker's pods, and the template of its claim.
pub(crate) const VOLUME: &str = "data";

/// The names of a Broker's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) stateful_set: String,
    /// What clients reach.
    pub(crate) service: String,
    /// What gives each pod a name of its own.
    pub(crate) pods_service: String,
    /// The account of its pods, which has no rights.
    pub(crate) service_account: String,
    pub(crate) network_policy: String,
    /// The claim of the volume, as the StatefulSet names it.
    pub(crate) claim: String,
    pub(crate) pod: String,
}

/// The names of the objects of the Broker `name`.
pub(crate) fn names(name: &str) -> Names {
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
pub(crate) fn endpoint(broker: &Key) -> String {
    format!("http://{}.{}.svc", names(&broker.name).service, broker.namespace)
}
