//! Every object of a Broker as YAML, compared with files: what a change does to them is seen in its diff.
//!
//! `CAPSTAN_GOLDEN=write cargo test -p capstan-operator golden` writes the files anew.

use std::path::Path;

use capstan_crds::Broker;
use k8s_openapi::api::core::v1::LocalObjectReference;

use super::build::tests::{broker, findings};
use super::build::{Findings, Objects, build};
use super::claim::Template;
use super::rollout::Hold;
use crate::config::Config;
use crate::config::tests::config;

/// Any value writes the files instead of comparing them.
const WRITE: &str = "CAPSTAN_GOLDEN";

const FULL: &str = "
  replicas: 1
  storage: {size: 20Gi, className: fast, accessMode: ReadWriteOnce, volumes: Delete, reservePercent: 25}
  service: {type: LoadBalancer, annotations: {example.com/internal: 'true'}}
  networkPolicy:
    enabled: true
    from: [{ipBlock: {cidr: 10.0.0.0/8}}, {namespaceSelector: {matchLabels: {team: web}}}]
    adminFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]
  pod:
    resources: {requests: {cpu: 500m, memory: 1Gi}, limits: {cpu: 2, memory: 2Gi}}
    nodeSelector: {disk: ssd}
    tolerations: [{key: queue, operator: Exists, effect: NoSchedule}]
    priorityClassName: high
    terminationGracePeriod: 2m";

fn yaml(broker: &Broker, findings: &Findings) -> String {
    // Not of this version: the files change with the objects, not with each release.
    let config = Config {
        broker_image: "capstan/broker:VERSION".to_owned(),
        lease_namespace: Some("capstan-system".to_owned()),
        ..config()
    };
    let objects = build(broker, &config, findings);
    let Objects { service_account, network_policy, service, pods_service, stateful_set } = &objects;
    let documents = [
        serde_yaml::to_string(service_account).unwrap(),
        network_policy.as_ref().map_or_else(String::new, |policy| serde_yaml::to_string(policy).unwrap()),
        serde_yaml::to_string(service).unwrap(),
        serde_yaml::to_string(pods_service).unwrap(),
        serde_yaml::to_string(stateful_set).unwrap(),
    ];
    let documents: Vec<_> = documents.into_iter().filter(|document| !document.is_empty()).collect();
    documents.join("---\n")
}

fn compare(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os(WRITE).is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(!expected.is_empty(), "{} is missing: {WRITE}=write makes it", path.display());
    assert_eq!(found, expected, "{}: {WRITE}=write writes it anew", path.display());
}

#[test]
fn golden_objects_of_a_default_broker() {
    let broker = broker("{}");
    compare("broker-default.yaml", &yaml(&broker, &findings(&broker)));
}

#[test]
fn golden_objects_of_a_broker_with_everything() {
    let broker = broker(FULL);
    let findings =
        Findings { pull_secrets: vec![LocalObjectReference { name: "mirror".into() }], ..findings(&broker) };
    compare("broker-full.yaml", &yaml(&broker, &findings));
}

/// One that an earlier version made, in a namespace with policies of its own, while others are upgraded.
#[test]
fn golden_objects_of_a_broker_that_was_there_before() {
    let broker = broker("{}");
    let findings = Findings {
        claim: Template { size: "10Gi".into(), access_mode: "ReadWriteOnce".into() },
        hold: Hold { partition: 1, upgrading_since: None },
        is_guarded: true,
        pull_secrets: Vec::new(),
    };
    compare("broker-before.yaml", &yaml(&broker, &findings));
}
