//! What all containers of Capstan have in common. Pure.

use std::collections::BTreeMap;

use capstan_crds::resources::Resources;
use k8s_openapi::api::core::v1::{Capabilities, ResourceRequirements, SeccompProfile, SecurityContext};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The user of Capstan's containers: nobody, with a home in no image.
pub const USER: i64 = 65532;

/// What Pod Security's level `restricted` asks of a container, and a root file system that cannot be written.
#[must_use]
pub fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        seccomp_profile: Some(seccomp()),
        ..SecurityContext::default()
    }
}

/// The container runtime's own filter of system calls.
#[must_use]
pub fn seccomp() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }
}

/// Requests and limits as Kubernetes has them.
#[must_use]
pub fn requirements(resources: &Resources) -> ResourceRequirements {
    let map = |amounts: &BTreeMap<String, capstan_crds::Quantity>| {
        let entry = |(name, amount): (&String, &capstan_crds::Quantity)| {
            (name.clone(), Quantity(amount.as_str().to_owned()))
        };
        (!amounts.is_empty()).then(|| amounts.iter().map(entry).collect())
    };
    ResourceRequirements {
        requests: map(&resources.requests),
        limits: map(&resources.limits),
        ..ResourceRequirements::default()
    }
}
