//! Numbers that the API server refuses: it is said, and nobody is marked for nothing.

use capstan_crds::Consumer;
use e2e::cluster::{LONG, SHORT, tool, until};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use super::{COST, Scene, on_scene};
use crate::fixture::message;

const SCALING: &str = "{maxReplicas: 5, backlogPerReplica: 10, scaleDownStabilization: 0s}";

impl Scene<'_> {
    /// Lets nobody scale in the namespace.
    async fn forbid(&self) {
        let name = &self.namespace.name;
        let policy = format!(
            "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {name}}}
spec:
  matchConstraints:
    namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}
    resourceRules: [{{apiGroups: [apps], apiVersions: [v1], resources: [deployments/scale], operations: [UPDATE]}}]
  validations: [{{expression: 'false', message: 'nobody scales here'}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {name}}}
spec: {{policyName: {name}, validationActions: [Deny]}}
"
        );
        self.namespace.apply(&policy).await;
        self.until_scaling_is(false).await;
    }

    /// Policies come and go in the API server's own time.
    async fn until_scaling_is(&self, allowed: bool) {
        let name = self.namespace.name.as_str();
        let arguments = ["-n", name, "scale", "deployment", "orders", "--replicas=2", "--dry-run=server"];
        until(&format!("allowed to scale: {allowed}"), SHORT, async || {
            let answer = tool::execute("kubectl", &arguments, None).await;
            if answer.is_ok() == allowed { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }

    async fn allow(&self) {
        for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
            tool::run("kubectl", &["delete", kind, &self.namespace.name]).await;
        }
        self.until_scaling_is(true).await;
    }

    async fn until_nobody_is_marked(&self) {
        until("no pod is marked", SHORT, async || match self.marked().await {
            0 => Ok(()),
            marked => Err(format!("{marked} are")),
        })
        .await;
    }

    /// How many pods have a deletion cost.
    async fn marked(&self) -> usize {
        self.costs().await.values().flatten().count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_said() {
    on_scene("refused", async |scene| {
        scene.shop(SCALING).await;
        scene.until_replicas(1).await;
        scene.forbid().await;
        scene.say(json!({"ready": 45}));
        let consumer: Consumer = scene.scaling("False", "ScalingRefused").await;
        assert!(message(&consumer, "ScalingActive").contains("nobody scales here"));
        scene.allow().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_were_marked_for_a_refused_number_stay_and_work() {
    on_scene("marked", async |scene| {
        scene.shop(SCALING).await;
        scene.grown(25, 3).await;
        scene.forbid().await;
        scene.say(json!({}));
        scene.scaling("False", "ScalingRefused").await;
        assert!(scene.plane.script(|script| script.retired().iter().any(|pods| pods.len() == 2)));
        scene.until_nobody_is_marked().await;
        scene.until_nobody_retires().await;
        assert_eq!(scene.replicas().await, 3);
        scene.allow().await;
        // It is tried again after a minute.
        let is_taken = |deployment: &Deployment| match deployment.spec.replicas {
            Some(1) => Ok(()),
            other => Err(format!("{other:?} replicas")),
        };
        scene.namespace.wait_for::<Deployment>("orders", "has one pod", LONG, is_taken).await;
        scene.scaling("True", "FollowsDemand").await;
    })
    .await;
}

/// As when an operator is killed after it marked pods and before it set the number.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_operator_takes_marks_away_when_their_pods_are_needed() {
    on_scene("leftover", async |scene| {
        scene.shop(SCALING).await;
        let pods = scene.grown(25, 3).await;
        scene.stage.operator.kill();
        for pod in &pods[..2] {
            scene.namespace.kubectl(&["annotate", "pod", pod, &format!("{COST}=-2147483648")]).await;
        }
        assert_eq!(scene.marked().await, 2);
        scene.say(json!({"ready": 45}));
        let url = scene.plane.url();
        let next = scene.stage.another_operator(&[("CAPSTAN_BROKER_CONTROL_URL", &url)]).await;
        scene.stage.operator = next;
        scene.until_replicas(5).await;
        scene.until_nobody_is_marked().await;
    })
    .await;
}
