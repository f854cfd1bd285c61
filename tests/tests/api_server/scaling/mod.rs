//! Scaling by a data plane that says what a test wants: numbers of pods, conditions, Events.

mod brokers;
mod capped;
mod demand;
mod holds;
mod late;
mod refused;
mod rivals;
mod shrink;
mod surge;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use capstan_crds::{Consumer, Key};
use e2e::cluster::{Namespace, SHORT, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::field::Plane;
use crate::fixture::{APPLICATION, CONSUMER, QUEUE, until_condition};
use crate::stage::{Stage, on_stage};

/// The annotation by which a ReplicaSet chooses.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// How long a number that is not to change is watched, and how often.
const WATCHED: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);

/// What a test of scaling has.
struct Scene<'a> {
    stage: &'a mut Stage,
    namespace: &'a Namespace,
    plane: Plane,
}

/// Runs a test with an operator whose brokers are faked.
async fn on_scene(prefix: &str, test: impl AsyncFnOnce(&mut Scene<'_>)) {
    on_stage(prefix, async |stage, namespace| {
        let plane = Plane::start().await;
        stage.restart_operator(&[("CAPSTAN_BROKER_CONTROL_URL", &plane.url())]).await;
        test(&mut Scene { stage, namespace, plane }).await;
    })
    .await;
}

/// The Consumer with `scaling`.
pub(crate) fn consumer(scaling: &str) -> String {
    format!("{CONSUMER}  scaling: {scaling}\n")
}

impl Scene<'_> {
    /// Applies the Queue, a Deployment without pods, and its Consumer.
    async fn shop(&self, scaling: &str) {
        self.namespace.apply(&[QUEUE, APPLICATION, &consumer(scaling)].join("---")).await;
        self.scaling("True", "FollowsDemand").await;
    }

    /// The broker says something of the Queue.
    fn say(&self, what: Value) {
        self.say_of("orders", what);
    }

    fn say_of(&self, queue: &str, what: Value) {
        let key = Key::new(&self.namespace.name, queue);
        self.plane.script(|script| script.say(key, what));
    }

    async fn scaling(&self, status: &str, reason: &str) -> Consumer {
        until_condition::<Consumer>(self.namespace, "orders", ("ScalingActive", status, reason)).await
    }

    async fn replicas(&self) -> i32 {
        let deployment = self.namespace.api::<Deployment>().get("orders").await.unwrap();
        deployment.spec.replicas.unwrap()
    }

    /// Watches the number of pods for a while, in which it is not to change.
    async fn stays(&self, replicas: i32, why: &str) {
        let start = Instant::now();
        while start.elapsed() < WATCHED {
            assert_eq!(self.replicas().await, replicas, "{why}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn until_replicas(&self, wanted: i32) {
        let start = Instant::now();
        let check = |deployment: &Deployment| {
            let found = deployment.spec.replicas;
            if found == Some(wanted) { Ok(()) } else { Err(format!("{found:?} replicas")) }
        };
        self.namespace
            .wait_for::<Deployment>("orders", &format!("has {wanted} replicas"), SHORT, check)
            .await;
        println!("{wanted} replicas after {:.2} s", start.elapsed().as_secs_f64());
    }

    /// Has so many messages ready, which ask for so many pods, and waits until these are ready; their names.
    async fn grown(&self, ready: u64, pods: u16) -> Vec<String> {
        self.say(json!({"ready": ready}));
        self.until_replicas(i32::from(pods)).await;
        self.until_pods(usize::from(pods)).await
    }

    /// Waits until there are so many pods that are made from the newest template, and lets all be ready; their names.
    async fn until_pods(&self, count: usize) -> Vec<String> {
        let pods = self.namespace.api::<Pod>();
        let ready = json!({"type": "Ready", "status": "True"});
        let status = json!({"status": {"phase": "Running", "conditions": [ready]}});
        until(&format!("{count} pods are ready"), SHORT, async || {
            let all = pods
                .list(&ListParams::default().labels("app=orders"))
                .await
                .map_err(|error| error.to_string())?;
            for pod in &all {
                // It may be gone by now.
                let _ = pods
                    .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&status))
                    .await;
            }
            let deployment =
                self.namespace.api::<Deployment>().get("orders").await.map_err(|error| error.to_string())?;
            let counts = deployment.status.clone().unwrap_or_default();
            let all_of = [counts.replicas, counts.updated_replicas, counts.ready_replicas];
            let wanted = i32::try_from(count).ok();
            let is_seen = counts.observed_generation >= deployment.metadata.generation;
            if is_seen && all_of.iter().all(|count| *count == wanted) && all.items.len() == count {
                return Ok(all.iter().map(ResourceExt::name_any).collect());
            }
            Err(format!("{} pods, {all_of:?}", all.items.len()))
        })
        .await
    }

    /// The pods there are, and their deletion costs.
    async fn costs(&self) -> BTreeMap<String, Option<String>> {
        let pods =
            self.namespace.api::<Pod>().list(&ListParams::default().labels("app=orders")).await.unwrap();
        let cost = |pod: &Pod| pod.annotations().get(COST).cloned();
        pods.iter().map(|pod| (pod.name_any(), cost(pod))).collect()
    }

    /// Waits until an Event of the Consumer has a note.
    async fn until_event(&self, reason: &str, parts: &[&str]) {
        let selector = format!("reason={reason},involvedObject.name=orders");
        until(&format!("an Event {reason} says {parts:?}"), SHORT, async || {
            let arguments =
                ["get", "events", "--field-selector", &selector, "-o", "jsonpath={.items[*].message}"];
            let notes = self.namespace.kubectl(&arguments).await;
            if parts.iter().all(|part| notes.contains(part)) { Ok(()) } else { Err(notes) }
        })
        .await;
    }
}
