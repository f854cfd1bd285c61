//! The number of pods follows the demand, within its bounds.

use serde_json::json;

use super::{Scene, consumer, on_scene};
use crate::fixture::{APPLICATION, CONSUMER, QUEUE, message};

const FROM_ZERO: &str =
    "{minReplicas: 0, maxReplicas: 5, backlogPerReplica: 10, scaleDownStabilization: 0s, idlePeriod: 10s}";

#[tokio::test(flavor = "multi_thread")]
async fn from_zero_to_the_most_and_back() {
    on_scene("demand", async |scene| {
        scene.shop(FROM_ZERO).await;
        assert_eq!(scene.replicas().await, 0, "there is nothing to do");
        scene.say(json!({"ready": 1}));
        scene.until_replicas(1).await;
        scene
            .until_event("ScaledUp", &["from 0 to 1 pods", "1 messages (1 ready, 0 leased, 0 due soon)"])
            .await;
        scene.say(json!({"ready": 20, "leased": 8, "delayed": 900, "due_soon": 3}));
        scene.until_replicas(4).await;
        scene
            .until_event("ScaledUp", &["from 1 to 4 pods", "31 messages (20 ready, 8 leased, 3 due soon)"])
            .await;
        scene.say(json!({"ready": 1000}));
        scene.until_replicas(5).await;
        let text = message(&scene.scaling("True", "AtMaxReplicas").await, "ScalingActive");
        assert!(text.contains("100 wanted; maxReplicas is 5: raise it"), "{text}");
        scene.until_pods(5).await;
        scene.say(json!({"delayed": 900}));
        scene.until_replicas(1).await;
        // Nothing due soon: idle from now on.
        scene.until_replicas(0).await;
        scene.until_event("ScaledDown", &["from 1 to 0 pods", "0 messages"]).await;
        scene.say(json!({"delayed": 900, "due_soon": 1}));
        scene.until_replicas(1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_waits_for_too_long_asks_for_another_pod() {
    on_scene("late", async |scene| {
        scene.shop("{maxReplicas: 3, maxOldestAge: 30s, backlogPerReplica: 1000}").await;
        scene.until_replicas(1).await;
        scene.say(json!({"ready": 5, "oldest_ready_age_ms": 31_000}));
        scene.until_replicas(2).await;
        scene.until_event("ScaledUp", &["maxOldestAge"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_consumers_of_a_workload_get_the_most_and_sleep_together() {
    on_scene("several", async |scene| {
        let other = |text: &str| {
            let renamed = text.replace("name: orders}\nspec", "name: more}\nspec");
            renamed.replace("queueRef: {name: orders}", "queueRef: {name: more}")
        };
        let queue = QUEUE.replace("orders", "more");
        let objects =
            [QUEUE, &queue, APPLICATION, &consumer(FROM_ZERO), &other(&consumer(FROM_ZERO))].join("---");
        scene.namespace.apply(&objects).await;
        scene.scaling("True", "FollowsDemand").await;
        scene.say(json!({"ready": 11}));
        scene.until_replicas(2).await;
        scene.say_of("more", json!({"ready": 31}));
        scene.until_replicas(4).await;
        scene.say_of("more", json!({}));
        scene.until_replicas(2).await;
        // A Consumer that does not scale needs some pod.
        scene.namespace.apply(&other(CONSUMER)).await;
        scene.say(json!({}));
        scene.until_replicas(1).await;
        scene.namespace.kubectl(&["delete", "capc", "more"]).await;
        scene.until_replicas(0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_needs_no_pods_and_without_scaling_nothing_is_touched() {
    on_scene("paused", async |scene: &mut Scene<'_>| {
        scene.shop(FROM_ZERO).await;
        let paused = QUEUE.to_owned() + "spec: {delivery: Paused}\n";
        scene.namespace.apply(&paused).await;
        scene.say(json!({"ready": 50}));
        let text = async |part: &str| {
            let check = |consumer: &capstan_crds::Consumer| {
                let conditions = consumer.status.as_ref().map_or(&[][..], |status| &status.conditions);
                let one = conditions.iter().find(|one| one.type_ == "ScalingActive");
                let text = one.map_or("", |one| one.message.as_str());
                if text.contains(part) { Ok(()) } else { Err(text.to_owned()) }
            };
            let kind = "says that it is paused";
            scene
                .namespace
                .wait_for::<capstan_crds::Consumer>("orders", kind, e2e::cluster::SHORT, check)
                .await;
        };
        scene.namespace.apply(QUEUE).await;
        scene.until_replicas(5).await;
        scene.namespace.apply(&paused).await;
        scene.until_replicas(1).await;
        text("paused").await;
        scene.namespace.apply(CONSUMER).await;
        scene
            .namespace
            .wait_for::<capstan_crds::Consumer>(
                "orders",
                "says nothing of scaling",
                e2e::cluster::SHORT,
                |one| {
                    let conditions = one.status.as_ref().map_or(&[][..], |status| &status.conditions);
                    let says = conditions.iter().any(|one| one.type_ == "ScalingActive");
                    if says { Err("it does".to_owned()) } else { Ok(()) }
                },
            )
            .await;
        assert_eq!(scene.replicas().await, 1);
    })
    .await;
}
