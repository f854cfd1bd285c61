//! Consumers of one workload whose Queues are on two Brokers: its sidecars talk to one of them.

use std::time::Duration;

use capstan_crds::{Consumer, Key};
use e2e::cluster::SHORT;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use super::{consumer, on_scene};
use crate::fixture::{APPLICATION, CONSUMER, QUEUE, until_condition};

const SCALING: &str =
    "{minReplicas: 0, maxReplicas: 5, backlogPerReplica: 10, scaleDownStabilization: 0s, idlePeriod: 10s}";

/// Another Broker, and a Queue of it.
const OTHER: &str = "
apiVersion: capstan.dev/v1alpha1
kind: Broker
metadata: {name: second}
spec: {storage: {size: 10Gi}}
---
apiVersion: capstan.dev/v1alpha1
kind: Queue
metadata: {name: other}
spec: {brokerRef: {name: second}}
";

/// Which of two Consumers is the older one is told by their times of creation, in seconds.
const OLDER: Duration = Duration::from_millis(1200);

/// A Consumer of the other Queue.
fn of_other(text: &str, name: &str) -> String {
    text.replace("metadata: {name: orders}", &format!("metadata: {{name: {name}}}"))
        .replace("queueRef: {name: orders}", "queueRef: {name: other}")
        .replace("  deadLetterQueueRef: {name: orders-dlq}\n", "")
}

/// An older Consumer of the workload that does not have its Queue: the sidecars do not talk to that Queue's Broker.
#[tokio::test(flavor = "multi_thread")]
async fn the_broker_that_the_sidecars_talk_to_is_asked_who_is_at_work() {
    on_scene("stranger", async |scene| {
        let holder = "
apiVersion: capstan.dev/v1alpha1
kind: Consumer
metadata: {name: holder}
spec: {queueRef: {name: other}}
";
        scene.namespace.apply(&[QUEUE, OTHER, holder, APPLICATION].join("---")).await;
        until_condition::<Consumer>(scene.namespace, "holder", ("Accepted", "True", "Accepted")).await;
        scene.namespace.apply(&of_other(CONSUMER, "late")).await;
        let taken = ("Accepted", "False", "QueueAlreadyConsumed");
        until_condition::<Consumer>(scene.namespace, "late", taken).await;
        tokio::time::sleep(OLDER).await;
        scene.namespace.apply(&consumer(SCALING)).await;
        scene.scaling("True", "FollowsDemand").await;
        let pods = scene.grown(45, 5).await;
        let all: Vec<(&str, u64)> = pods.iter().map(|pod| (pod.as_str(), 2)).collect();
        scene.plane.script(|script| {
            script.lease(&all);
            script.leased_by(Key::new(&scene.namespace.name, "default"));
        });
        scene.say(json!({"leased": 10}));
        scene.stays(5, "all of them have calls").await;
    })
    .await;
}

/// No pod of this workload will ever take what that Consumer waits for.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_on_a_broker_that_the_sidecars_do_not_talk_to_asks_for_no_pods() {
    on_scene("mismatch", async |scene| {
        scene.namespace.apply(&[QUEUE, OTHER, APPLICATION, &consumer(SCALING)].join("---")).await;
        scene.scaling("True", "FollowsDemand").await;
        tokio::time::sleep(OLDER).await;
        scene.namespace.apply(&of_other(&consumer(SCALING), "other")).await;
        let mismatch = ("TargetResolved", "False", "BrokerMismatch");
        until_condition::<Consumer>(scene.namespace, "other", mismatch).await;
        let silenced = ("ScalingActive", "False", "BrokerMismatch");
        until_condition::<Consumer>(scene.namespace, "other", silenced).await;
        let check = |deployment: &Deployment| match deployment.spec.replicas {
            Some(0) => Ok(()),
            other => Err(format!("{other:?} replicas")),
        };
        scene.namespace.wait_for::<Deployment>("orders", "sleeps", SHORT, check).await;
        scene.say_of("other", json!({"ready": 45}));
        scene.stays(0, "they would take nothing of it").await;
    })
    .await;
}
