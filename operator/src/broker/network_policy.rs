//! The NetworkPolicy of a Broker: who may reach its pod. Pure.
//!
//! Policies add up: a pod that any policy selects is reached by whom any of them admits. So this one opens the data port
//! only where it was open before, and leaves it to the others where there are others.

use capstan_api::{BROKER_ADMIN_PORT, BROKER_PORT};
use capstan_crds::{Broker, Key};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::build::{metadata, selector};
use crate::config::Config;
use crate::names::names;

/// The label that each namespace has with its own name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Builds it. `is_guarded`: another policy says who may reach the pod.
pub(super) fn build(broker: &Broker, config: &Config, is_guarded: bool) -> Option<NetworkPolicy> {
    let wanted = &broker.spec.network_policy;
    if !wanted.enabled {
        return None;
    }
    let key = Key::of(&broker.metadata);
    let rules = [data_rule(&wanted.from, is_guarded), Some(admin_rule(&wanted.admin_from, config))];
    let spec = NetworkPolicySpec {
        pod_selector: Some(LabelSelector {
            match_labels: Some(selector(&key.name)),
            ..LabelSelector::default()
        }),
        policy_types: Some(vec!["Ingress".to_owned()]),
        ingress: Some(rules.into_iter().flatten().collect()),
        egress: None,
    };
    Some(NetworkPolicy { metadata: metadata(broker, names(&key.name).network_policy), spec: Some(spec) })
}

/// Producers, consumers and sidecars.
fn data_rule(from: &[NetworkPolicyPeer], is_guarded: bool) -> Option<NetworkPolicyIngressRule> {
    if !from.is_empty() {
        let own = NetworkPolicyPeer {
            pod_selector: Some(LabelSelector::default()),
            ..NetworkPolicyPeer::default()
        };
        return Some(rule(BROKER_PORT, [own].into_iter().chain(from.iter().cloned()).collect()));
    }
    // No peers are all: ingress controllers in their node's network and load balancers, too.
    (!is_guarded).then(|| NetworkPolicyIngressRule { from: None, ..rule(BROKER_PORT, Vec::new()) })
}

/// The operator, and scrapers. The kubelet's probes come from the pod's own node, which networks admit by themselves.
fn admin_rule(from: &[NetworkPolicyPeer], config: &Config) -> NetworkPolicyIngressRule {
    let Some(namespace) = &config.lease_namespace else {
        // An operator outside of the cluster comes from anywhere.
        return NetworkPolicyIngressRule { from: None, ..rule(BROKER_ADMIN_PORT, Vec::new()) };
    };
    let operator = NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_labels: Some([(NAMESPACE_NAME.to_owned(), namespace.clone())].into()),
            ..LabelSelector::default()
        }),
        ..NetworkPolicyPeer::default()
    };
    rule(BROKER_ADMIN_PORT, [operator].into_iter().chain(from.iter().cloned()).collect())
}

fn rule(port: u16, from: Vec<NetworkPolicyPeer>) -> NetworkPolicyIngressRule {
    let port = NetworkPolicyPort {
        port: Some(IntOrString::Int(port.into())),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    };
    NetworkPolicyIngressRule { from: Some(from), ports: Some(vec![port]) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::build::tests::broker;
    use super::*;
    use crate::config::tests::config;

    fn rules(spec: &str, is_guarded: bool, namespace: Option<&str>) -> Value {
        let config = Config { lease_namespace: namespace.map(str::to_owned), ..config() };
        let policy = build(&broker(spec), &config, is_guarded).unwrap();
        json!(policy.spec.unwrap().ingress)
    }

    fn data(from: &Value) -> Value {
        json!({"ports": [{"port": 9796, "protocol": "TCP"}], "from": from})
    }

    fn admin(from: &Value) -> Value {
        json!({"ports": [{"port": 9795, "protocol": "TCP"}], "from": from})
    }

    fn operator() -> Value {
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "system"}}})
    }

    #[test]
    fn the_data_port_stays_as_open_as_it_was_and_the_admin_port_is_the_operators() {
        let open = json!({"ports": [{"port": 9796, "protocol": "TCP"}]});
        assert_eq!(rules("{}", false, Some("system")), json!([open, admin(&json!([operator()]))]));
        assert_eq!(rules("{}", true, Some("system")), json!([admin(&json!([operator()]))]));
    }

    #[test]
    fn peers_are_admitted_beside_the_namespace_and_the_operator() {
        let spec =
            "{networkPolicy: {from: [{ipBlock: {cidr: 10.0.0.0/8}}], adminFrom: [{namespaceSelector: {}}]}}";
        for is_guarded in [false, true] {
            let expected = json!([
                data(&json!([{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}])),
                admin(&json!([operator(), {"namespaceSelector": {}}])),
            ]);
            assert_eq!(rules(spec, is_guarded, Some("system")), expected);
        }
    }

    #[test]
    fn an_operator_of_no_namespace_is_not_shut_out() {
        assert_eq!(rules("{}", true, None), json!([{"ports": [{"port": 9795, "protocol": "TCP"}]}]));
    }

    #[test]
    fn there_is_none_when_nobody_wants_it() {
        assert_eq!(build(&broker("{networkPolicy: {enabled: false}}"), &config(), false), None);
    }
}
