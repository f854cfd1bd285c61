//! What the operator keeps of a StatefulSet: of each what it keeps of workloads, of a Broker's own a little more.

use std::ops::Deref;
use std::sync::Arc;

use capstan_crds::label;
use capstan_inject::Workload;
use k8s_openapi::api::apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSet};

/// How a Broker's StatefulSet was made, as far as it decides what becomes of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrokerSet {
    /// Hash of the pod template that was applied last.
    pub template: Option<String>,
    /// Hash of what the operator's version had made of it, whatever the Broker asks for.
    pub version_template: Option<String>,
    /// Since when the pod is being restarted for a new version, as RFC 3339.
    pub upgrading_since: Option<String>,
    /// 0 lets a changed template restart the pod, 1 holds it.
    pub partition: i32,
    /// What each claim asks for.
    pub size: Option<String>,
    /// How each claim may be mounted.
    pub access_mode: Option<String>,
    /// Whether its pod was made, or is to be made, from another template than the newest.
    pub is_outdated: bool,
    /// Whether it is being deleted.
    pub is_ending: bool,
}

/// A StatefulSet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Set {
    pub workload: Arc<Workload>,
    /// Of a Broker's alone.
    pub broker: Option<BrokerSet>,
}

impl Set {
    /// Whether nothing follows from the change of one to the other.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.broker == other.broker && self.workload.is_same(&other.workload)
    }
}

impl Deref for Set {
    type Target = Workload;

    fn deref(&self) -> &Workload {
        &self.workload
    }
}

impl From<&StatefulSet> for Set {
    fn from(object: &StatefulSet) -> Self {
        let workload = Workload::from(object);
        let is_of_broker = workload.controller.as_deref().is_some_and(|owner| owner.starts_with("Broker/"));
        let broker = is_of_broker.then(|| BrokerSet::from(object));
        Self { workload: Arc::new(workload), broker }
    }
}

impl From<&StatefulSet> for BrokerSet {
    fn from(object: &StatefulSet) -> Self {
        let annotation = |name: &str| object.metadata.annotations.as_ref()?.get(name).cloned();
        let strategy = object.spec.update_strategy.as_ref();
        let rolling: Option<&RollingUpdateStatefulSetStrategy> =
            strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let claim = object.spec.volume_claim_templates.iter().flatten().next();
        let claim = claim.and_then(|claim| claim.spec.as_ref());
        let requests = claim.and_then(|claim| claim.resources.as_ref()?.requests.as_ref());
        let status = object.status.as_ref();
        Self {
            template: annotation(label::TEMPLATE),
            version_template: annotation(label::VERSION_TEMPLATE),
            upgrading_since: annotation(label::UPGRADING_SINCE).filter(|since| !since.is_empty()),
            partition: rolling.and_then(|rolling| rolling.partition).unwrap_or_default(),
            size: requests.and_then(|requests| requests.get("storage")).map(|size| size.0.clone()),
            access_mode: claim.and_then(|claim| claim.access_modes.as_ref()?.first().cloned()),
            is_outdated: status.is_some_and(|status| status.current_revision != status.update_revision),
            is_ending: object.metadata.deletion_timestamp.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> BrokerSet {
        BrokerSet::from(&serde_yaml::from_str::<StatefulSet>(yaml).unwrap())
    }

    #[test]
    fn what_decides_is_read() {
        let set = read(
            "
metadata:
  deletionTimestamp: '2026-01-01T00:00:00Z'
  annotations: {capstan.dev/template: a, capstan.dev/version-template: b, capstan.dev/upgrading-since: c}
spec:
  serviceName: s
  selector: {}
  template: {}
  updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 1}}
  volumeClaimTemplates:
  - spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Gi}}}
status: {replicas: 1, currentRevision: a, updateRevision: b}",
        );
        let text = |text: &str| Some(text.to_owned());
        let expected = BrokerSet {
            template: text("a"),
            version_template: text("b"),
            upgrading_since: text("c"),
            partition: 1,
            size: text("10Gi"),
            access_mode: text("ReadWriteOnce"),
            is_outdated: true,
            is_ending: true,
        };
        assert_eq!(set, expected);
    }

    #[test]
    fn what_an_older_version_made_has_no_marks() {
        let set = read("{metadata: {}, spec: {serviceName: s, selector: {}, template: {}}}");
        assert_eq!(set, BrokerSet::default());
    }
}
