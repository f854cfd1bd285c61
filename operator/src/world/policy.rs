//! What the operator keeps of a NetworkPolicy: whose pods it guards.

use std::collections::BTreeMap;

use capstan_crds::{Key, label};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::ResourceExt;

/// A NetworkPolicy, as far as it decides who may reach a Broker.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    pub key: Key,
    pub uid: String,
    /// Of the whole object.
    pub version: String,
    /// The Broker for which the operator made it.
    pub broker: Option<String>,
    /// Whether it says who may reach pods.
    pub is_ingress: bool,
    /// Which pods.
    pub selector: LabelSelector,
}

impl From<&NetworkPolicy> for Policy {
    fn from(object: &NetworkPolicy) -> Self {
        let labels = object.labels();
        let is_ours = labels.get(label::MANAGED_BY).is_some_and(|manager| manager == "capstan");
        let spec = object.spec.clone().unwrap_or_default();
        Self {
            key: Key::of(&object.metadata),
            uid: object.uid().unwrap_or_default(),
            version: object.resource_version().unwrap_or_default(),
            broker: labels.get(label::BROKER).filter(|_| is_ours).cloned(),
            // The API server fills in the types; all policies have this one unless they say otherwise.
            is_ingress: spec.policy_types.is_none_or(|types| types.iter().any(|type_| type_ == "Ingress")),
            selector: spec.pod_selector.unwrap_or_default(),
        }
    }
}

impl Policy {
    /// Whether it says who may reach pods with these labels.
    #[must_use]
    pub fn guards(&self, labels: &BTreeMap<String, String>) -> bool {
        let wanted = self.selector.match_labels.iter().flatten();
        let has_all = || wanted.clone().all(|(name, value)| labels.get(name) == Some(value));
        let rules = self.selector.match_expressions.iter().flatten();
        self.is_ingress && has_all() && rules.into_iter().all(|rule| holds(rule, labels))
    }
}

fn holds(rule: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&rule.key);
    let is_listed = || value.is_some_and(|value| rule.values.iter().flatten().any(|one| one == value));
    match rule.operator.as_str() {
        "In" => is_listed(),
        "NotIn" => !is_listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        // What is not understood may guard the pod.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(metadata: &str, spec: &str) -> Policy {
        let yaml = format!("{{metadata: {metadata}, spec: {spec}}}");
        Policy::from(&serde_yaml::from_str::<NetworkPolicy>(&yaml).unwrap())
    }

    #[test]
    fn pods_are_guarded_by_what_selects_them() {
        let labels: BTreeMap<String, String> =
            [("app", "broker"), ("tier", "back")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        for (spec, expected) in [
            ("{podSelector: {}}", true),
            ("{}", true),
            ("{podSelector: {}, policyTypes: [Egress]}", false),
            ("{podSelector: {}, policyTypes: [Egress, Ingress]}", true),
            ("{podSelector: {matchLabels: {app: broker}}}", true),
            ("{podSelector: {matchLabels: {app: broker, tier: front}}}", false),
            ("{podSelector: {matchExpressions: [{key: app, operator: In, values: [a, broker]}]}}", true),
            ("{podSelector: {matchExpressions: [{key: app, operator: In, values: [a]}]}}", false),
            ("{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [broker]}]}}", false),
            ("{podSelector: {matchExpressions: [{key: other, operator: NotIn, values: [broker]}]}}", true),
            ("{podSelector: {matchExpressions: [{key: other, operator: Exists}]}}", false),
            ("{podSelector: {matchExpressions: [{key: other, operator: DoesNotExist}]}}", true),
        ] {
            assert_eq!(policy("{name: a}", spec).guards(&labels), expected, "{spec}");
        }
    }

    #[test]
    fn ours_are_known_by_their_labels() {
        let ours =
            "{name: a, labels: {app.kubernetes.io/managed-by: capstan, capstan.dev/broker: main}, uid: u}";
        assert_eq!(policy(ours, "{}").broker.as_deref(), Some("main"));
        let other = "{name: a, labels: {capstan.dev/broker: main}}";
        assert_eq!(policy(other, "{}").broker, None);
    }
}
