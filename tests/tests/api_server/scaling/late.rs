//! An API server that is late: answers that are lost, and a watch that shows nothing.

use std::time::{Duration, Instant};

use capstan_crds::{Consumer, Key};
use e2e::cluster::{SHORT, until};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use super::consumer;
use crate::field::{Call, Fault, Field, on_field};
use crate::fixture::{APPLICATION, Conditions, QUEUE, until_condition};
use crate::stage::Operator;

/// An operator behind the proxy, and a Consumer that scales.
async fn shop(field: &Field, scaling: &str) -> Operator {
    let operator = field.operator(&[]).await;
    field.namespace().apply(&[QUEUE, APPLICATION, &consumer(scaling)].join("---")).await;
    until_condition::<Consumer>(&field.namespace(), "orders", ("ScalingActive", "True", "FollowsDemand"))
        .await;
    operator
}

fn say(field: &Field, ready: u64) {
    let queue = Key::new(&field.namespaces[0], "orders");
    field.plane.script(|script| script.say(queue, json!({"ready": ready})));
}

async fn replicas(field: &Field) -> i32 {
    let deployment = field.api::<Deployment>(&field.namespaces[0]).get("orders").await.unwrap();
    deployment.spec.replicas.unwrap()
}

async fn until_replicas(field: &Field, wanted: i32, within: Duration) {
    let what = format!("there are {wanted} replicas");
    until(&what, within, async || match replicas(field).await {
        found if found == wanted => Ok(()),
        other => Err(format!("{other}")),
    })
    .await;
}

/// Waits until the operator's watch has shown it.
async fn until_shown(field: &Field, wanted: i32) {
    let check = |consumer: &Consumer| {
        let shown = consumer.status.as_ref().and_then(|status| status.replicas.as_ref());
        match shown.map(|replicas| replicas.desired) {
            Some(found) if i32::try_from(found) == Ok(wanted) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    field.namespace().wait_for::<Consumer>("orders", "shows its number", SHORT, check).await;
}

fn is_scale(call: &Call) -> bool {
    call.verb == "patch" && call.resource == "deployments/scale"
}

/// The operator's own numbers, of which it does not know that they were taken, are nobody else's.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_whose_answers_are_lost_are_no_contest() {
    on_field("lost", 1, async |field| {
        let _operator = shop(field, "{maxReplicas: 500, backlogPerReplica: 10}").await;
        let mut ready = 15;
        for _ in 0..2 {
            say(field, ready);
            until_replicas(field, i32::try_from(ready.div_ceil(10)).unwrap(), SHORT).await;
            until_shown(field, i32::try_from(ready.div_ceil(10)).unwrap()).await;
            let met = field.proxy.fail(Fault::LostLate(Duration::from_secs(3)), 1, is_scale);
            let start = Instant::now();
            // A burst: by the time that the answer is lost, still more pods are needed.
            while start.elapsed() < Duration::from_secs(6) {
                ready += 10;
                say(field, ready);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(met.count(), 1);
        }
        until_replicas(field, i32::try_from(ready.div_ceil(10)).unwrap(), Duration::from_secs(15)).await;
        let consumer = field.api::<Consumer>(&field.namespaces[0]).get("orders").await.unwrap();
        let one = consumer.conditions().iter().find(|one| one.type_ == "ScalingActive").unwrap();
        assert_eq!(one.reason, "FollowsDemand");
    })
    .await;
}

/// A message wakes an application that was put to sleep a moment ago, though the watch has not shown that yet.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_counts_before_the_watch_shows_it() {
    let scaling = "{minReplicas: 0, maxReplicas: 9, backlogPerReplica: 10, scaleDownStabilization: 0s, idlePeriod: 10s}";
    on_field("blind", 1, async |field| {
        let _operator = shop(field, scaling).await;
        say(field, 5);
        until_replicas(field, 1, SHORT).await;
        until_shown(field, 1).await;
        let is_watch = |call: &Call| call.verb == "watch" && call.resource == "deployments";
        field.proxy.fail(Fault::Hang, usize::MAX, is_watch);
        field.proxy.cut_watches();
        say(field, 0);
        until_replicas(field, 0, SHORT).await;
        say(field, 5);
        until_replicas(field, 1, Duration::from_secs(5)).await;
        field.proxy.heal();
    })
    .await;
}
