//! The names and the address of a Broker's objects.

use capstan_crds::Key;

/// The names of a Broker's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) stateful_set: String,
    /// What clients reach.
    pub(crate) service: String,
    /// What gives each pod a name of its own.
    pub(crate) pods_service: String,
}

/// The names of the objects of the Broker `name`.
pub(crate) fn names(name: &str) -> Names {
    let base = format!("capstan-{name}");
    Names { pods_service: format!("{base}-pods"), stateful_set: base.clone(), service: base }
}

/// Base URL of a Broker for producers, clients and sidecars.
pub(crate) fn endpoint(broker: &Key) -> String {
    format!("http://{}.{}.svc", names(&broker.name).service, broker.namespace)
}
