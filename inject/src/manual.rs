//! A sidecar that stands in the user's own manifest, written there by `capstan inject`.

use k8s_openapi::api::core::v1::Container;

use crate::container::{ADMIN_PORT, BROKER_URL, GATEWAY_PORT, WORKLOAD};
use crate::{Identity, Workload};

/// The sidecar of a workload when its own manifest has it.
pub(crate) fn rendered(
    workload: &Workload,
    reference: &capstan_api::workload::Workload,
) -> Option<Container> {
    let sidecar = workload.sidecar.as_ref()?;
    let is_sidecar = sidecar.restart_policy.as_deref() == Some("Always");
    let is_its = variable(sidecar, WORKLOAD) == Some(reference.to_string().as_str());
    let is_manual = workload.is_rendered || !workload.owns_sidecar;
    (is_sidecar && is_its && is_manual).then(|| sidecar.clone())
}

/// What a sidecar in a manifest says other than it should: the name of the variable, what it is, and what it should be.
pub(crate) fn difference(sidecar: &Container, identity: &Identity) -> Option<(&'static str, String, String)> {
    let port = |name, default: u16| variable(sidecar, name).map_or(default.to_string(), str::to_owned);
    let url = variable(sidecar, BROKER_URL).unwrap_or_default().to_owned();
    [
        (BROKER_URL, url, identity.broker_url.clone()),
        (ADMIN_PORT, port(ADMIN_PORT, capstan_api::SIDECAR_ADMIN_PORT), identity.admin_port.to_string()),
        (
            GATEWAY_PORT,
            port(GATEWAY_PORT, capstan_api::SIDECAR_GATEWAY_PORT),
            identity.gateway_port.to_string(),
        ),
    ]
    .into_iter()
    .find(|(_, is, should)| is != should)
}

pub(crate) fn variable<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    let variables = container.env.iter().flatten();
    variables.into_iter().find(|env| env.name == name).and_then(|env| env.value.as_deref())
}
