//! A rollout that stands still: there are more pods than the number asks for, and all of them are to work.

use std::time::Duration;

use e2e::cluster::{SHORT, until};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::on_scene;

const SCALING: &str = "{maxReplicas: 5, backlogPerReplica: 10, scaleDownStabilization: 0s}";

/// Longer than the broker keeps to a list that nobody says again.
const LASTS: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn pods_beyond_the_number_work_on_while_a_rollout_is_paused() {
    on_scene("surge", async |scene| {
        scene.shop(SCALING).await;
        scene.grown(45, 5).await;
        let surge = r#"{"spec":{"strategy":{"rollingUpdate":{"maxSurge":2,"maxUnavailable":0}}}}"#;
        scene.namespace.kubectl(&["patch", "deployment", "orders", "-p", surge]).await;
        scene.namespace.kubectl(&["set", "image", "deployment/orders", "app=example.com/app:2"]).await;
        until("there are two of the new template", SHORT, async || match scene.costs().await.len() {
            7 => Ok(()),
            other => Err(format!("{other} pods")),
        })
        .await;
        scene.namespace.kubectl(&["rollout", "pause", "deployment/orders"]).await;
        let status =
            json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        for pod in scene.costs().await.keys() {
            let (api, params) = (scene.namespace.api::<Pod>(), PatchParams::default());
            api.patch_status(pod, &params, &Patch::Strategic(&status)).await.unwrap();
        }
        scene.say(json!({"ready": 35}));
        scene.until_replicas(4).await;
        until("one pod is gone", SHORT, async || match scene.costs().await.len() {
            6 => Ok(()),
            other => Err(format!("{other} pods")),
        })
        .await;
        until("those that stayed are leased messages again, and have no mark", LASTS, async || {
            let costs = scene.costs().await;
            let last = scene.plane.script(|script| script.retired().last().cloned()).unwrap_or_default();
            let held: Vec<&String> = last.iter().filter(|pod| costs.contains_key(*pod)).collect();
            let marked = costs.values().flatten().count();
            if held.is_empty() && marked == 0 { Ok(()) } else { Err(format!("{held:?}, {marked} marked")) }
        })
        .await;
    })
    .await;
}
