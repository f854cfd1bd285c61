//! Writing the number of a workload's pods, through its subresource `scale`.

use capstan_api::workload::{Workload as Reference, WorkloadKind};
use capstan_crds::label;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::api::{ApiError, bounded};
use crate::context::Context;
use crate::world::Workload;

/// The number of pods that a workload has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// Another one than was asked for, where a policy changes it.
    pub(super) replicas: u32,
    /// The version of the workload that has it.
    pub(super) version: Option<u64>,
}

/// Sets the number of pods of this very workload.
pub(super) async fn set(
    context: &Context,
    reference: &Reference,
    workload: &Workload,
    replicas: u32,
) -> Result<Written, ApiError> {
    match reference.kind {
        WorkloadKind::Deployment => patch::<Deployment>(context, workload, replicas).await,
        WorkloadKind::StatefulSet => patch::<StatefulSet>(context, workload, replicas).await,
    }
}

async fn patch<K>(context: &Context, workload: &Workload, replicas: u32) -> Result<Written, ApiError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(context.client.clone(), &workload.key.namespace);
    let params =
        PatchParams { field_manager: Some(label::SCALING_MANAGER.to_owned()), ..PatchParams::default() };
    // The UID: a workload of the same name that came later is another one.
    let patch = json!({"metadata": {"uid": workload.uid}, "spec": {"replicas": replicas}});
    let scale = bounded(api.patch_scale(&workload.key.name, &params, &Patch::Merge(&patch))).await?;
    let written = scale.spec.and_then(|spec| spec.replicas).and_then(|written| u32::try_from(written).ok());
    Ok(Written {
        replicas: written.unwrap_or(replicas),
        version: scale.metadata.resource_version.and_then(|version| version.parse().ok()),
    })
}
