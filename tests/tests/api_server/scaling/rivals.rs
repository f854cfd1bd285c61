//! Others who set the number of pods: it is said, and no fight.

use capstan_crds::Consumer;
use e2e::cluster::{LONG, SHORT, condition, tool, until};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::json;

use super::{Scene, consumer, on_scene};
use crate::fixture::{APPLICATION, QUEUE, message, until_condition};

const SCALING: &str = "{maxReplicas: 5, backlogPerReplica: 10}";

const HPA: &str = "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: by-cpu}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: orders}
  minReplicas: 2
  maxReplicas: 3
";

/// As much of KEDA's definition as is asked for.
const KEDA: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: scaledobjects.keda.sh}
spec:
  group: keda.sh
  scope: Namespaced
  names: {kind: ScaledObject, plural: scaledobjects, singular: scaledobject, listKind: ScaledObjectList}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

const SCALED_OBJECT: &str = "
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: by-keda}
spec: {scaleTargetRef: {name: orders}}
";

impl Scene<'_> {
    /// Applies an autoscaler, then what it scales, and has much to do; what is said of that.
    async fn left_to(&self, autoscaler: &str) -> String {
        self.namespace.apply(autoscaler).await;
        self.namespace.apply(&[QUEUE, APPLICATION, &consumer(SCALING)].join("---")).await;
        self.say(json!({"ready": 45}));
        let text = message(&self.scaling("False", "OtherAutoscaler").await, "ScalingActive");
        assert_eq!(self.replicas().await, 0, "it is the autoscaler's");
        let ready = ("Ready", "False", "OtherAutoscaler");
        until_condition::<Consumer>(self.namespace, "orders", ready).await;
        text
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_autoscaler_is_left_in_peace() {
    on_scene("autoscaler", async |scene| {
        let text = scene.left_to(HPA).await;
        assert!(
            text.starts_with("HorizontalPodAutoscaler by-cpu") && text.contains("remove scaling"),
            "{text}"
        );
        scene.namespace.kubectl(&["delete", "hpa", "by-cpu"]).await;
        scene.until_replicas(5).await;
        scene.scaling("True", "FollowsDemand").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scaled_object_is_one_too() {
    on_scene("keda", async |scene| {
        tool::execute("kubectl", &["apply", "-f", "-"], Some(KEDA)).await.unwrap();
        until("ScaledObjects are served", SHORT, async || {
            tool::execute("kubectl", &["get", "scaledobjects", "-A"], None).await.map(drop)
        })
        .await;
        let text = scene.left_to(SCALED_OBJECT).await;
        assert!(text.starts_with("ScaledObject by-keda"), "{text}");
        // Nobody watches it, and nothing else happens.
        scene.namespace.kubectl(&["delete", "scaledobject", "by-keda"]).await;
        let check = |consumer: &Consumer| {
            let conditions = consumer.status.as_ref().map_or(&[][..], |status| &status.conditions);
            condition(conditions, consumer.metadata.generation, "ScalingActive", "True")
        };
        scene.namespace.wait_for::<Consumer>("orders", "scales", LONG, check).await;
        scene.until_replicas(5).await;
        tool::run("kubectl", &["delete", "crd", "scaledobjects.keda.sh"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_are_set_back_once_are_set_again_and_twice_are_left() {
    on_scene("reset", async |scene: &mut Scene<'_>| {
        scene.shop(SCALING).await;
        scene.say(json!({"ready": 35}));
        scene.until_replicas(4).await;
        // The same manifest once more, with its replicas.
        scene.namespace.apply(APPLICATION).await;
        until("the manifest's number is replaced", SHORT, async || {
            let deployment: k8s_openapi::api::apps::v1::Deployment =
                scene.namespace.api().get("orders").await.map_err(|error| error.to_string())?;
            let generation = deployment.metadata.generation;
            match deployment.spec.replicas {
                Some(4) => Ok(()),
                other => Err(format!("{other:?} at {generation:?}")),
            }
        })
        .await;
        scene.namespace.kubectl(&["scale", "deployment", "orders", "--replicas=2"]).await;
        let text = message(&scene.scaling("False", "ReplicasContested").await, "ScalingActive");
        assert!(text.contains("take replicas out of the manifest"), "{text}");
        assert_eq!(scene.replicas().await, 2, "no fight");
        scene.until_event("ReplicasContested", &["twice within ten minutes"]).await;
        // The next operator knows of it.
        let url = scene.plane.url();
        scene.stage.restart_operator(&[("CAPSTAN_BROKER_CONTROL_URL", &url)]).await;
        scene.stage.operator.until_logged("active").await;
        scene.say(json!({"ready": 36}));
        until_condition::<Consumer>(scene.namespace, "orders", ("Ready", "False", "ReplicasContested")).await;
        scene.stays(2, "it is left alone for ten minutes").await;
    })
    .await;
}

/// Such as a controller of somebody's own, or a webhook: the number is back before anybody could look.
#[tokio::test(flavor = "multi_thread")]
async fn who_sets_it_back_at_once_is_said_too() {
    on_scene("quick", async |scene: &mut Scene<'_>| {
        scene.shop(SCALING).await;
        scene.until_replicas(1).await;
        let api = scene.namespace.api::<Deployment>();
        let mut events = api.watch(&WatchParams::default(), "0").await.unwrap().boxed();
        let rival = tokio::spawn(async move {
            let back = Patch::Merge(json!({"spec": {"replicas": 1}}));
            while let Some(event) = events.next().await {
                let Ok(WatchEvent::Added(one) | WatchEvent::Modified(one)) = event else { continue };
                if one.spec.replicas != Some(1) {
                    api.patch("orders", &PatchParams::default(), &back).await.unwrap();
                }
            }
        });
        scene.say(json!({"ready": 35}));
        scene.scaling("False", "ReplicasContested").await;
        rival.abort();
    })
    .await;
}
