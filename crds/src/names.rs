//! The names and the address of a Broker's objects.

use crate::Key;

/// The names of a Broker's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The StatefulSet.
    pub stateful_set: String,
    /// What clients reach.
    pub service: String,
    /// What gives each pod a name of its own.
    pub pods_service: String,
}

/// The names of the objects of the Broker `name`.
#[must_use]
pub fn names(name: &str) -> Names {
    let base = format!("capstan-{name}");
    Names { pods_service: format!("{base}-pods"), stateful_set: base.clone(), service: base }
}

/// Base URL of a Broker for producers, clients and sidecars.
#[must_use]
pub fn endpoint(broker: &Key) -> String {
    format!("http://{}.{}.svc", names(&broker.name).service, broker.namespace)
}
