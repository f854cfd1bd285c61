//! A policy that caps the number of pods by changing it.

use std::time::Duration;

use capstan_crds::{Consumer, Key};
use e2e::cluster::{SHORT, tool, until};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::consumer;
use crate::field::{Call, on_field};
use crate::fixture::{APPLICATION, Conditions, QUEUE, until_condition};

/// As a webhook does that lets nobody have more than two.
const POLICY: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: NAME}
spec:
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NAME}}
    resourceRules: [{apiGroups: [apps], apiVersions: [v1], resources: [deployments/scale], operations: [UPDATE]}]
  matchConditions: [{name: many, expression: 'object.spec.replicas > 2'}]
  failurePolicy: Fail
  reinvocationPolicy: Never
  mutations:
  - patchType: JSONPatch
    jsonPatch: {expression: '[JSONPatch{op: \"replace\", path: \"/spec/replicas\", value: 2}]'}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: NAME}
spec: {policyName: NAME}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_a_policy_changes_is_not_set_again_and_again() {
    on_field("capped", 1, async |field| {
        let _operator = field.operator(&[]).await;
        let namespace = field.namespace();
        namespace.apply(&[APPLICATION, &POLICY.replace("NAME", &namespace.name)].join("---")).await;
        let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
        until("the policy is in force", SHORT, async || {
            let many = Patch::Merge(json!({"spec": {"replicas": 9}}));
            let scale = namespace.api::<Deployment>().patch_scale("orders", &dry_run, &many).await;
            match scale.map_err(|error| error.to_string())?.spec.and_then(|spec| spec.replicas) {
                Some(2) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        namespace.apply(&[QUEUE, &consumer("{maxReplicas: 50, backlogPerReplica: 10}")].join("---")).await;
        until_condition::<Consumer>(&namespace, "orders", ("ScalingActive", "True", "FollowsDemand")).await;
        let is_scale = |call: &Call| call.verb == "patch" && call.resource == "deployments/scale";
        let before = field.proxy.count().of(is_scale);
        for at in 0..100_u64 {
            let queue = Key::new(&namespace.name, "orders");
            field.plane.script(|script| script.say(queue, json!({"ready": 45 + at % 50})));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let deployment = field.api::<Deployment>(&namespace.name).get("orders").await.unwrap();
        let one = field.api::<Consumer>(&namespace.name).get("orders").await.unwrap();
        let said =
            one.conditions().iter().find(|one| one.type_ == "ScalingActive").map(|one| one.reason.clone());
        for kind in ["mutatingadmissionpolicybinding", "mutatingadmissionpolicy"] {
            tool::run("kubectl", &["delete", kind, &namespace.name]).await;
        }
        let tries = field.proxy.count().of(is_scale) - before;
        let text = format!("{tries} tries in 10 s, {:?} replicas, {said:?}", deployment.spec.replicas);
        assert_eq!(deployment.spec.replicas, Some(2));
        assert!((1..=3).contains(&tries), "{text}");
        assert_eq!(said.as_deref(), Some("ScalingRefused"), "{text}");
    })
    .await;
}
