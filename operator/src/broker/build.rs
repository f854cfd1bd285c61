//! The objects of a Broker, as they are to be. Pure.

use std::collections::BTreeMap;

use capstan_api::{BROKER_ADMIN_PORT, BROKER_PORT};
use capstan_crds::broker::ServiceType;
use capstan_crds::{Broker, Key, label};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{LocalObjectReference, Service, ServiceAccount, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;

use super::claim::Template;
use super::rollout::Hold;
use super::{network_policy, stateful_set};
use crate::config::Config;
use crate::names::names;

/// The name of the program, in the recommended labels.
pub(super) const PROGRAM: &str = "capstan-broker";
/// Port of the Service that clients use.
const CLIENT_PORT: i32 = 80;

/// Everything that a Broker owns.
///
/// There is no PodDisruptionBudget: with one pod it either allows what happens anyway, or holds up the drain of a node
/// for ever. A broker that is evicted is back within seconds, and its clients wait for it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Objects {
    pub(super) service_account: ServiceAccount,
    pub(super) network_policy: Option<NetworkPolicy>,
    pub(super) service: Service,
    pub(super) pods_service: Service,
    pub(super) stateful_set: StatefulSet,
}

/// What was found out for them.
#[derive(Debug, Clone)]
pub(super) struct Findings {
    /// What the StatefulSet says of its claim.
    pub(super) claim: Template,
    /// How its template reaches the pod.
    pub(super) hold: Hold,
    /// Whether a NetworkPolicy that is not the operator's says who may reach the pod.
    pub(super) is_guarded: bool,
    /// With what the namespace's pods pull their images.
    pub(super) pull_secrets: Vec<LocalObjectReference>,
}

/// Builds them.
pub(super) fn build(broker: &Broker, config: &Config, findings: &Findings) -> Objects {
    let key = Key::of(&broker.metadata);
    Objects {
        service_account: service_account(broker, &key, &findings.pull_secrets),
        network_policy: network_policy::build(broker, config, findings.is_guarded),
        service: client_service(broker, &key),
        pods_service: pods_service(broker, &key),
        stateful_set: stateful_set::build(broker, config, &findings.claim, &findings.hold),
    }
}

/// An account without rights and token: a broker asks the API server nothing.
fn service_account(broker: &Broker, key: &Key, pull_secrets: &[LocalObjectReference]) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(broker, names(&key.name).service_account),
        automount_service_account_token: Some(false),
        // Those of the namespace's own account, with which pods without an account of their own are pulled.
        image_pull_secrets: (!pull_secrets.is_empty()).then(|| pull_secrets.to_vec()),
        secrets: None,
    }
}

/// Labels that find a Broker's pods; a StatefulSet can never change them.
pub(super) fn selector(broker: &str) -> BTreeMap<String, String> {
    labels_of(&[(label::NAME, PROGRAM), (label::BROKER, broker)])
}

/// Labels of everything a Broker owns.
pub(super) fn labels(broker: &str) -> BTreeMap<String, String> {
    let mut labels = selector(broker);
    labels.extend(labels_of(&[(label::COMPONENT, "broker"), (label::MANAGED_BY, "capstan")]));
    labels
}

fn labels_of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The metadata of an object that goes with its Broker.
pub(super) fn metadata(broker: &Broker, name: String) -> ObjectMeta {
    let key = Key::of(&broker.metadata);
    ObjectMeta {
        name: Some(name),
        namespace: Some(key.namespace),
        labels: Some(labels(&key.name)),
        owner_references: broker.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn client_service(broker: &Broker, key: &Key) -> Service {
    let service = &broker.spec.service;
    let mut metadata = metadata(broker, names(&key.name).service);
    metadata.annotations = (!service.annotations.is_empty()).then(|| service.annotations.clone());
    let type_ = match service.kind {
        ServiceType::ClusterIp => "ClusterIP",
        ServiceType::LoadBalancer => "LoadBalancer",
    };
    let spec = ServiceSpec {
        type_: Some(type_.to_owned()),
        selector: Some(selector(&key.name)),
        ports: Some(vec![port("http", CLIENT_PORT, BROKER_PORT)]),
        ..ServiceSpec::default()
    };
    Service { metadata, spec: Some(spec), status: None }
}

fn pods_service(broker: &Broker, key: &Key) -> Service {
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        selector: Some(selector(&key.name)),
        ports: Some(vec![
            port("http", BROKER_PORT.into(), BROKER_PORT),
            port("admin", BROKER_ADMIN_PORT.into(), BROKER_ADMIN_PORT),
        ]),
        // The operator tells a broker of its queues before it is ready, too.
        publish_not_ready_addresses: Some(true),
        ..ServiceSpec::default()
    };
    Service { metadata: metadata(broker, names(&key.name).pods_service), spec: Some(spec), status: None }
}

fn port(name: &str, port: i32, target: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(target.into())),
        ..ServicePort::default()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::tests::config;

    pub(crate) fn broker(spec: &str) -> Broker {
        let yaml = format!(
            "apiVersion: capstan.dev/v1alpha1\nkind: Broker\nmetadata: {{name: main, namespace: shop, uid: u1}}\nspec: {spec}"
        );
        let objects = capstan_crds::parse(&yaml).unwrap();
        let [capstan_crds::Object::Broker(broker)] = objects.as_slice() else { panic!("{objects:?}") };
        broker.as_ref().clone()
    }

    /// Of a Broker that comes into being.
    pub(crate) fn findings(broker: &Broker) -> Findings {
        Findings {
            claim: Template::new(&broker.spec.storage),
            hold: Hold::default(),
            is_guarded: false,
            pull_secrets: Vec::new(),
        }
    }

    fn built(spec: &str) -> Objects {
        let broker = broker(spec);
        build(&broker, &config(), &findings(&broker))
    }

    #[test]
    fn clients_reach_port_80_and_the_operator_reaches_pods_that_are_not_ready() {
        let objects = built("{}");
        let service = objects.service.spec.unwrap();
        let ports = service.ports.unwrap();
        assert_eq!(objects.service.metadata.name.as_deref(), Some("capstan-main"));
        assert_eq!((ports[0].port, ports[0].target_port.clone()), (80, Some(IntOrString::Int(9796))));
        assert_eq!(service.type_.as_deref(), Some("ClusterIP"));
        let pods = objects.pods_service.spec.unwrap();
        assert_eq!(objects.pods_service.metadata.name.as_deref(), Some("capstan-main-pods"));
        assert_eq!(
            (pods.cluster_ip.as_deref(), pods.publish_not_ready_addresses),
            (Some("None"), Some(true))
        );
        assert_eq!(pods.ports.unwrap().iter().map(|p| p.port).collect::<Vec<_>>(), [9796, 9795]);
        assert_eq!(service.selector, pods.selector);
    }

    #[test]
    fn the_service_is_as_the_broker_asks() {
        let objects = built("{service: {type: LoadBalancer, annotations: {a: b}}}");
        assert_eq!(objects.service.spec.unwrap().type_.as_deref(), Some("LoadBalancer"));
        assert_eq!(objects.service.metadata.annotations.unwrap()["a"], "b");
        assert_eq!(objects.pods_service.metadata.annotations, None);
    }

    #[test]
    fn everything_belongs_to_the_broker() {
        let objects = built("{}");
        let policy = objects.network_policy.unwrap();
        for meta in [
            &objects.stateful_set.metadata,
            &objects.service.metadata,
            &objects.pods_service.metadata,
            &objects.service_account.metadata,
            &policy.metadata,
        ] {
            let owner = &meta.owner_references.as_ref().unwrap()[0];
            assert_eq!(
                (owner.kind.as_str(), owner.uid.as_str(), owner.controller),
                ("Broker", "u1", Some(true))
            );
            assert_eq!(meta.labels.as_ref().unwrap()["capstan.dev/broker"], "main");
            assert_eq!(meta.labels.as_ref().unwrap()["app.kubernetes.io/managed-by"], "capstan");
            assert!(
                !meta.labels.as_ref().unwrap().contains_key("app.kubernetes.io/instance"),
                "Argo CD would prune it"
            );
        }
    }

    #[test]
    fn the_account_has_no_token_and_pulls_as_the_namespace_does() {
        let broker = broker("{}");
        let account = build(&broker, &config(), &findings(&broker)).service_account;
        assert_eq!(account.automount_service_account_token, Some(false));
        assert_eq!(account.image_pull_secrets, None, "others may add some");
        let pull_secrets = vec![LocalObjectReference { name: "mirror".into() }];
        let account =
            build(&broker, &config(), &Findings { pull_secrets, ..findings(&broker) }).service_account;
        assert_eq!(account.image_pull_secrets.unwrap()[0].name, "mirror");
    }
}
