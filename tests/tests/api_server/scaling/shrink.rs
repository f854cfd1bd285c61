//! When fewer pods are needed, those go that have nothing to do.

use std::collections::BTreeSet;

use e2e::cluster::{SHORT, until};
use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::json;

use super::{Scene, on_scene};
use crate::fixture::QUEUE;

const SCALING: &str = "{maxReplicas: 5, backlogPerReplica: 10, scaleDownStabilization: 0s}";

impl Scene<'_> {
    /// The pods that were chosen to go last, once some were.
    async fn until_retired(&self, count: usize) -> BTreeSet<String> {
        until(&format!("{count} pods are to be leased nothing more"), SHORT, async || {
            // They may have gone by now.
            let chosen = |all: &[Vec<String>]| all.iter().rev().find(|pods| !pods.is_empty()).cloned();
            let last = self.plane.script(|script| chosen(script.retired())).unwrap_or_default();
            if last.len() == count { Ok(last.into_iter().collect()) } else { Err(format!("{last:?}")) }
        })
        .await
    }

    /// Waits until the broker was told that nobody is to go any more.
    pub(super) async fn until_nobody_retires(&self) {
        until("all pods are leased messages again", SHORT, async || {
            let last = self.plane.script(|script| script.retired().last().cloned());
            if last.as_ref().is_some_and(Vec::is_empty) { Ok(()) } else { Err(format!("{last:?}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_busy_pod_stays() {
    on_scene("idle", async |scene| {
        scene.shop(SCALING).await;
        let pods = scene.grown(45, 5).await;
        // The one that Kubernetes would take first: it chooses among pods of the same age by nothing that is promised.
        let busy = pods[2].clone();
        scene.plane.script(|script| script.lease(&[(&busy, 3)]));
        scene.say(json!({"leased": 3}));
        let retired = scene.until_retired(4).await;
        assert!(!retired.contains(&busy), "{retired:?}");
        scene.until_replicas(1).await;
        let left = scene.until_pods(1).await;
        assert_eq!(left, std::slice::from_ref(&busy));
        assert_eq!(scene.costs().await[&busy], None, "the cost is written to those that go");
        scene.until_nobody_retires().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_go_may_end_their_calls_and_a_new_message_lets_them_stay() {
    on_scene("patience", async |scene| {
        scene.shop(SCALING).await;
        let pods = scene.grown(25, 3).await;
        let all: Vec<(&str, u64)> = pods.iter().map(|pod| (pod.as_str(), 2)).collect();
        scene.plane.script(|script| script.lease(&all));
        scene.say(json!({"leased": 6}));
        let retired = scene.until_retired(2).await;
        assert_eq!(scene.replicas().await, 3, "they have calls");
        assert!(scene.costs().await.values().all(Option::is_none));
        scene.say(json!({"leased": 6, "ready": 20}));
        scene.until_nobody_retires().await;
        assert_eq!(scene.replicas().await, 3);
        scene.say(json!({"leased": 6}));
        let again = scene.until_retired(2).await;
        println!("first {retired:?}, then {again:?}");
        let kept = pods.iter().find(|pod| !again.contains(*pod)).unwrap().clone();
        scene.plane.script(|script| script.lease(&[(&kept, 2)]));
        scene.until_replicas(1).await;
        assert_eq!(scene.until_pods(1).await, [kept]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_works_on_makes_way_for_one_that_is_idle_by_then() {
    on_scene("makes-way", async |scene| {
        scene.shop(SCALING).await;
        let pods = scene.grown(15, 2).await;
        scene.plane.script(|script| script.lease(&[(&pods[0], 1), (&pods[1], 1)]));
        scene.say(json!({"leased": 2}));
        let works_on = scene.until_retired(1).await.into_iter().next().unwrap();
        // The other one ends its call.
        scene.plane.script(|script| script.lease(&[(&works_on, 1)]));
        scene.say(json!({"leased": 1}));
        scene.until_replicas(1).await;
        assert_eq!(scene.until_pods(1).await, [works_on], "who works stays");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_ends_in_the_middle_leaves_it_to_the_next() {
    on_scene("handover", async |scene| {
        scene.shop(SCALING).await;
        let pods = scene.grown(35, 4).await;
        let all: Vec<(&str, u64)> = pods.iter().map(|pod| (pod.as_str(), 1)).collect();
        scene.plane.script(|script| script.lease(&all));
        scene.say(json!({"leased": 4}));
        scene.until_retired(3).await;
        let url = scene.plane.url();
        scene.stage.restart_operator(&[("CAPSTAN_BROKER_CONTROL_URL", &url)]).await;
        assert_eq!(scene.replicas().await, 4);
        // Whoever it chooses.
        scene.plane.script(|script| script.lease(&[]));
        scene.until_replicas(1).await;
        scene.until_pods(1).await;
        scene.scaling("True", "FollowsDemand").await;
        scene.until_nobody_retires().await;
    })
    .await;
}

const STATEFUL: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: orders}
spec:
  replicas: 0
  serviceName: orders
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: orders}}
  template:
    metadata: {labels: {app: orders}}
    spec: {containers: [{name: app, image: 'example.com/app:1'}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn of_a_stateful_set_the_highest_ordinals_go() {
    on_scene("ordinals", async |scene| {
        let consumer = super::consumer(SCALING).replace("kind: Deployment", "kind: StatefulSet");
        scene.namespace.apply(&[QUEUE, STATEFUL, &consumer].join("---")).await;
        scene.say(json!({"ready": 25}));
        let until_pods = async |count: i32| {
            let check = |set: &StatefulSet| {
                let status = set.status.clone().unwrap_or_default();
                let is_seen = status.observed_generation >= set.metadata.generation;
                if is_seen && status.replicas == count && status.updated_replicas.unwrap_or(count) == count {
                    Ok(())
                } else {
                    Err(format!("{} pods", status.replicas))
                }
            };
            scene.namespace.wait_for::<StatefulSet>("orders", "has its pods", SHORT, check).await;
        };
        until_pods(3).await;
        scene.plane.script(|script| script.lease(&[("orders-2", 1)]));
        scene.say(json!({"leased": 1}));
        let retired = scene.until_retired(2).await;
        assert_eq!(retired.into_iter().collect::<Vec<_>>(), ["orders-1", "orders-2"]);
        scene.plane.script(|script| script.lease(&[]));
        until_pods(1).await;
        assert!(scene.costs().await.values().all(Option::is_none), "of ordinals no cost is asked");
    })
    .await;
}
