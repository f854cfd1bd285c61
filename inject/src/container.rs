//! The sidecar's container. Pure.

use capstan_api::SIDECAR_GATEWAY_PORT;
use capstan_crds::label;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler,
    ObjectFieldSelector, Probe,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::Identity;
use crate::pod::{requirements, restricted};

/// The program in the sidecar's image.
const PROGRAM: &str = "capstan-sidecar";
/// Where its gateway listens, when that is not [`SIDECAR_GATEWAY_PORT`].
pub(crate) const GATEWAY_PORT: &str = "CAPSTAN_GATEWAY_PORT";
/// Where its broker is.
pub(crate) const BROKER_URL: &str = "CAPSTAN_BROKER_URL";
/// Whose sidecar it is.
pub(crate) const WORKLOAD: &str = "CAPSTAN_WORKLOAD";
/// Where its probes and hooks are.
pub(crate) const ADMIN_PORT: &str = "CAPSTAN_ADMIN_PORT";
pub(crate) const NAMESPACE: &str = "CAPSTAN_NAMESPACE";
pub(crate) const DRAIN_SECONDS: &str = "CAPSTAN_DRAIN_SECONDS";
/// What an application's preStop hook calls: it returns when the calls have ended.
pub const QUIESCE_PATH: &str = "/quiesce";
/// What a pod's grace period has beyond the drain: to end the application, and then the sidecar.
pub const MARGIN_SECONDS: u64 = 5;
/// The longest drain that the sidecar takes.
pub(crate) const DRAIN_SECONDS_MAX: u64 = 43_200;

/// The image of sidecars, and when a node pulls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    pub sidecar: String,
    pub pull_policy: String,
}

/// The sidecar's container in pods that may take `grace_seconds` to end.
#[must_use]
pub fn sidecar(identity: &Identity, grace_seconds: u64, images: &Images) -> Container {
    let admin = identity.admin_port;
    let mut variables = vec![
        env(BROKER_URL, identity.broker_url.clone()),
        env(NAMESPACE, identity.namespace.clone()),
        env(WORKLOAD, identity.workload.to_string()),
        pod_name("CAPSTAN_POD"),
        env(ADMIN_PORT, admin.to_string()),
    ];
    // What the program takes by itself is not said: a sidecar of a version that said less would differ in more than its
    // image, and every workload would roll when the operator is upgraded.
    if identity.gateway_port != SIDECAR_GATEWAY_PORT {
        variables.push(env(GATEWAY_PORT, identity.gateway_port.to_string()));
    }
    variables.push(env(DRAIN_SECONDS, drain_seconds(grace_seconds).to_string()));
    Container {
        name: label::SIDECAR.to_owned(),
        image: Some(images.sidecar.clone()),
        image_pull_policy: Some(images.pull_policy.clone()),
        // An init container that never ends: it starts before the application and ends after it.
        restart_policy: Some("Always".to_owned()),
        env: Some(variables),
        // Not the gateway's: it is on localhost, and for this pod alone.
        ports: Some(vec![ContainerPort {
            name: Some("capstan-admin".to_owned()),
            container_port: admin.into(),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        // The application starts when this has passed. No readiness probe: it would count for the whole pod.
        startup_probe: Some(Probe {
            period_seconds: Some(1),
            failure_threshold: Some(60),
            ..probe("/startupz", admin)
        }),
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            failure_threshold: Some(6),
            ..probe("/livez", admin)
        }),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                exec: Some(ExecAction { command: Some(vec![PROGRAM.to_owned(), "drain".to_owned()]) }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        resources: Some(requirements(&identity.resources)),
        security_context: Some(restricted()),
        ..Container::default()
    }
}

/// How long calls may go on, in seconds, when a pod of this grace period ends: 1 second to 12 hours.
#[must_use]
pub fn drain_seconds(grace_seconds: u64) -> u64 {
    grace_seconds.saturating_sub(MARGIN_SECONDS).clamp(1, DRAIN_SECONDS_MAX)
}

fn env(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), value_from: None }
}

fn pod_name(name: &str) -> EnvVar {
    let field = ObjectFieldSelector { field_path: "metadata.name".to_owned(), api_version: None };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

fn probe(path: &str, port: u16) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(port.into()),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::identity;
    use crate::testing::images;

    /// What the version before injects by default. It is replaced at a release, by what that release injects.
    const PREVIOUS: &str = include_str!("../tests/fixtures/sidecar-previous.json");

    fn built(grace_seconds: u64) -> Container {
        sidecar(&identity(), grace_seconds, &images())
    }

    fn variable(container: &Container, name: &str) -> String {
        let variables = container.env.as_ref().unwrap();
        variables.iter().find(|v| v.name == name).unwrap().value.clone().unwrap()
    }

    #[test]
    fn the_pod_spec_holds_identity_only() {
        let container = built(30);
        let names: Vec<&str> = container.env.iter().flatten().map(|v| v.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "CAPSTAN_BROKER_URL",
                "CAPSTAN_NAMESPACE",
                "CAPSTAN_WORKLOAD",
                "CAPSTAN_POD",
                "CAPSTAN_ADMIN_PORT",
                "CAPSTAN_DRAIN_SECONDS"
            ]
        );
        assert_eq!(variable(&container, "CAPSTAN_BROKER_URL"), "http://capstan-main.shop.svc");
        assert_eq!(variable(&container, "CAPSTAN_NAMESPACE"), "shop");
        assert_eq!(variable(&container, "CAPSTAN_WORKLOAD"), "Deployment/web");
        assert_eq!(variable(&container, "CAPSTAN_ADMIN_PORT"), "9798");
        let ports: Vec<i32> = container.ports.iter().flatten().map(|port| port.container_port).collect();
        assert_eq!(ports, [9798], "the gateway is not for others");
        let pod = container.env.as_ref().unwrap()[3].value_from.clone().unwrap();
        assert_eq!(pod.field_ref.unwrap().field_path, "metadata.name");
    }

    /// Anything else that differs restarts every consumer when the operator is upgraded.
    #[test]
    fn it_differs_from_that_of_the_version_before_in_its_image_alone() {
        let previous: Container = serde_json::from_str(PREVIOUS).unwrap();
        assert_ne!(previous.image, None);
        let (image, image_pull_policy) = (previous.image.clone(), previous.image_pull_policy.clone());
        assert_eq!(Container { image, image_pull_policy, ..built(30) }, previous);
    }

    #[test]
    fn another_port_of_the_gateway_is_said() {
        let identity = Identity { gateway_port: 9999, ..identity() };
        assert_eq!(variable(&sidecar(&identity, 30, &images()), GATEWAY_PORT), "9999");
    }

    #[test]
    fn the_drain_fits_into_the_grace_period() {
        for (grace, drain) in [(0, "1"), (5, "1"), (6, "1"), (30, "25"), (3600, "3595"), (1 << 40, "43200")] {
            assert_eq!(variable(&built(grace), "CAPSTAN_DRAIN_SECONDS"), drain, "{grace} s");
        }
    }

    #[test]
    fn it_is_a_native_sidecar_that_drains_before_it_ends() {
        let container = built(30);
        assert_eq!(
            (container.name.as_str(), container.restart_policy.as_deref()),
            ("capstan", Some("Always"))
        );
        let hook = container.lifecycle.unwrap().pre_stop.unwrap();
        assert_eq!(hook.exec.unwrap().command.unwrap(), ["capstan-sidecar", "drain"]);
        assert!(container.startup_probe.is_some() && container.liveness_probe.is_some());
        assert_eq!(container.readiness_probe, None);
        let resources = container.resources.unwrap();
        assert_eq!(resources.requests.unwrap()["memory"].0, "32Mi");
        assert_eq!(resources.limits.unwrap()["memory"].0, "64Mi");
    }

    #[test]
    fn it_may_run_where_pod_security_is_restricted() {
        let context = built(30).security_context.unwrap();
        assert_eq!((context.run_as_non_root, context.allow_privilege_escalation), (Some(true), Some(false)));
        assert_eq!(context.read_only_root_filesystem, Some(true));
        assert_eq!(context.capabilities.unwrap().drop.unwrap(), ["ALL"]);
        assert_eq!(context.seccomp_profile.unwrap().type_, "RuntimeDefault");
    }
}
