//! The pods of a workload, as far as it matters which of them go.

use capstan_api::workload::Workload as Reference;
use k8s_openapi::api::core::v1 as core;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::api::{ApiError, bounded};
use crate::context::Context;
use crate::workload;
use crate::world::Workload;

/// By this annotation a ReplicaSet chooses among ready pods: the least goes first.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Less than anybody else's.
const LEAST: &str = "-2147483648";
/// Pods that are marked at once.
const AT_ONCE: usize = 8;

/// A pod that is not ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) name: String,
    /// It has a node, and its containers run.
    pub(super) is_running: bool,
    pub(super) is_ready: bool,
    /// It was to go already, by the word of this operator or of one before.
    pub(super) is_marked: bool,
    /// The deletion cost that somebody else gave it.
    pub(super) cost: Option<i32>,
    /// Seconds since 1970.
    pub(super) created: i64,
    /// Of a StatefulSet.
    pub(super) ordinal: Option<u32>,
}

/// Lists the pods of a workload.
pub(super) async fn list(
    context: &Context,
    reference: &Reference,
    workload: &Workload,
) -> Result<Vec<Pod>, ApiError> {
    let pods = workload::list_pods(context, reference, workload).await?;
    Ok(pods.iter().filter(|pod| workload::is_alive(pod)).map(read).collect())
}

fn read(pod: &core::Pod) -> Pod {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let name = pod.metadata.name.clone().unwrap_or_default();
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
    let cost = pod.metadata.annotations.as_ref().and_then(|notes| notes.get(COST));
    let has_node = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    Pod {
        is_running: has_node && phase == Some("Running"),
        is_ready: conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True"),
        is_marked: cost.is_some_and(|cost| cost == LEAST),
        cost: cost.filter(|cost| *cost != LEAST).and_then(|cost| cost.parse().ok()),
        created: created.unwrap_or_default(),
        ordinal: name.rsplit_once('-').and_then(|(_, number)| number.parse().ok()),
        name,
    }
}

/// Lets the workload's controller take these pods first.
pub(super) async fn mark(context: &Context, namespace: &str, names: &[String]) -> Result<(), ApiError> {
    let api: Api<core::Pod> = Api::namespaced(context.client.clone(), namespace);
    for some in names.chunks(AT_ONCE) {
        futures::future::try_join_all(some.iter().map(|name| set_cost(&api, name, Some(LEAST)))).await?;
    }
    Ok(())
}

/// Takes the mark from pods that stay, and gives them back the cost they had.
pub(super) async fn unmark(
    context: &Context,
    namespace: &str,
    pods: &[(String, Option<i32>)],
) -> Result<(), ApiError> {
    let api: Api<core::Pod> = Api::namespaced(context.client.clone(), namespace);
    for some in pods.chunks(AT_ONCE) {
        let give_back = some.iter().map(async |(name, cost)| {
            let cost = cost.map(|cost| cost.to_string());
            set_cost(&api, name, cost.as_deref()).await
        });
        futures::future::try_join_all(give_back).await?;
    }
    Ok(())
}

async fn set_cost(api: &Api<core::Pod>, name: &str, cost: Option<&str>) -> Result<(), ApiError> {
    let patch = json!({"metadata": {"annotations": {COST: cost}}});
    match bounded(api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))).await {
        // One that is gone needs no mark.
        Ok(_) | Err(ApiError::NotFound(_)) => Ok(()),
        Err(ApiError::Refused(text)) => {
            Err(ApiError::Refused(format!("the annotation {COST} of pod {name}: {text}")))
        }
        Err(error) => Err(error),
    }
}
