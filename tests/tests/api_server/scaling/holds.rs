//! What keeps the number of pods as it is, and says so.

use capstan_crds::Consumer;
use serde_json::{Value, json};

use super::{Scene, consumer, on_scene};
use crate::fixture::{APPLICATION, CONSUMER, QUEUE, message, until_condition};

const SCALING: &str =
    "{minReplicas: 0, maxReplicas: 5, backlogPerReplica: 10, scaleDownStabilization: 0s, idlePeriod: 10s}";

fn totals(acknowledged: u64, retried: u64) -> Value {
    json!({"sent": 0, "delivered": 0, "acknowledged": acknowledged, "retried": retried, "released": 0,
        "lease_expired": 0, "dead_lettered": 0, "dropped": 0, "expired": 0})
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fail_hold_it() {
    on_scene("failing", async |scene| {
        scene.shop(SCALING).await;
        scene.say(json!({"ready": 15, "totals": totals(0, 0)}));
        scene.until_replicas(2).await;
        scene.until_pods(2).await;
        scene.say(json!({"ready": 50, "totals": totals(9, 11)}));
        let text = message(&scene.scaling("False", "CallsFailing").await, "ScalingActive");
        assert!(text.contains("more than half"), "{text}");
        assert_eq!(scene.replicas().await, 2, "more pods would fail more");
        let ratio = |consumer: &Consumer| consumer.status.as_ref()?.calls.as_ref()?.error_ratio.clone();
        println!("shown as {:?}", ratio(&scene.namespace.api::<Consumer>().get("orders").await.unwrap()));
        scene.say(json!({"ready": 50, "totals": totals(59, 11)}));
        scene.until_replicas(5).await;
        scene.scaling("True", "FollowsDemand").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_say_who_is_at_work_holds_it() {
    on_scene("mute", async |scene| {
        scene.shop(SCALING).await;
        scene.grown(15, 2).await;
        scene.plane.script(|script| script.be_mute(true));
        scene.say(json!({"ready": 5}));
        let text = message(&scene.scaling("False", "BrokerUnavailable").await, "ScalingActive");
        assert!(text.contains("which of them are at work"), "{text}");
        assert_eq!(scene.replicas().await, 2);
        scene.plane.script(|script| script.be_mute(false));
        scene.until_replicas(1).await;
        scene.scaling("True", "FollowsDemand").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_that_take_nothing_hold_it() {
    on_scene("breaker", async |scene| {
        scene.shop(SCALING).await;
        scene.say(json!({"ready": 15}));
        scene.until_replicas(2).await;
        let application = |reachable: u32, unreachable: u32| {
            json!({"consumer": "orders", "reachable": reachable, "unreachable": unreachable})
        };
        scene.say(json!({"ready": 50, "application": application(0, 2)}));
        let text = message(&scene.scaling("False", "Unreachable").await, "ScalingActive");
        assert!(text.starts_with("in 2 of 2 pods") && text.contains("AppReachable"), "{text}");
        assert_eq!(scene.replicas().await, 2);
        scene.say(json!({"ready": 50, "application": application(1, 1)}));
        scene.until_replicas(5).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_say_says_why() {
    on_scene("silenced", async |scene: &mut Scene<'_>| {
        // A second Consumer of the Queue.
        let late =
            CONSUMER.replace("name: orders}\nspec", "name: late}\nspec") + "  scaling: {maxReplicas: 5}\n";
        scene.namespace.apply(&[QUEUE, APPLICATION, CONSUMER].join("---")).await;
        until_condition::<Consumer>(scene.namespace, "orders", ("Accepted", "True", "Accepted")).await;
        scene.namespace.apply(&late).await;
        let late: Consumer =
            until_condition(scene.namespace, "late", ("ScalingActive", "False", "Pending")).await;
        assert!(message(&late, "ScalingActive").contains("Accepted"));
        assert_eq!(scene.replicas().await, 0);
        // A target that is somebody else's.
        scene.namespace.kubectl(&["delete", "capc", "late", "orders"]).await;
        let owner =
            "ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: owner, controller: true, uid: UID}]";
        scene.namespace.kubectl(&["create", "configmap", "owner"]).await;
        let uid =
            scene.namespace.kubectl(&["get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}"]).await;
        let owner = owner.replace("UID", uid.trim());
        let owned = APPLICATION.replacen("  name: orders\n", &format!("  name: orders\n  {owner}\n"), 1);
        scene.namespace.apply(&[owned.as_str(), &consumer(SCALING)].join("---")).await;
        scene.say(json!({"ready": 50}));
        scene.scaling("False", "TargetControlled").await;
        assert_eq!(scene.replicas().await, 0);
        // One that is gone, and comes back as its own.
        scene.namespace.kubectl(&["delete", "deployment", "orders"]).await;
        scene.scaling("False", "TargetNotFound").await;
        scene.namespace.apply(APPLICATION).await;
        scene.until_replicas(5).await;
    })
    .await;
}
