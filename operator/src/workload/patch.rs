//! Applying the operator's fields to a workload, and taking out what is left of them.

use std::fmt::Debug;

use capstan_api::workload::{Workload as Reference, WorkloadKind};
use capstan_crds::label;
use capstan_inject::{Fields, Partial};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::{ApiError, Beside, apply_beside, bounded};
use crate::world::Workload;

/// The kinds whose pods can have a sidecar.
pub(crate) trait Injectable:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned
{
    /// What there is to know of it.
    fn workload(&self) -> Workload;
}

impl Injectable for Deployment {
    fn workload(&self) -> Workload {
        self.into()
    }
}

impl Injectable for StatefulSet {
    fn workload(&self) -> Workload {
        self.into()
    }
}

/// Gives a workload these fields, and takes away those that it was given before. A dry run only answers what it would be.
pub(super) async fn apply(
    client: &Client,
    reference: &Reference,
    workload: &Workload,
    fields: &Fields,
    dry_run: bool,
) -> Result<Workload, ApiError> {
    // The annotation is the operator's by its name, and what an undo brought back was the operator's before.
    let how = Beside { dry_run, force: fields.mark.is_some() || workload.is_restored };
    match reference.kind {
        WorkloadKind::Deployment => apply_to::<Deployment>(client, reference, workload, fields, how).await,
        WorkloadKind::StatefulSet => apply_to::<StatefulSet>(client, reference, workload, fields, how).await,
    }
}

async fn apply_to<K: Injectable>(
    client: &Client,
    reference: &Reference,
    workload: &Workload,
    fields: &Fields,
    how: Beside,
) -> Result<Workload, ApiError> {
    let api: Api<K> = Api::namespaced(client.clone(), &workload.key.namespace);
    let partial = Partial::new(reference.kind, workload, fields);
    apply_beside(&api, &workload.key.name, &partial, how).await.map(|object| object.workload())
}

/// Takes away all that was applied, and what somebody else owns of it beside the operator: `kubectl rollout undo` writes
/// the whole of an earlier template, as its own.
pub(super) async fn take_out(
    client: &Client,
    reference: &Reference,
    workload: &Workload,
) -> Result<(), ApiError> {
    let left = apply(client, reference, workload, &Fields::default(), false).await?;
    let Some(patch) = leftover(&left) else { return Ok(()) };
    match reference.kind {
        WorkloadKind::Deployment => merge::<Deployment>(client, &left, &patch).await,
        WorkloadKind::StatefulSet => merge::<StatefulSet>(client, &left, &patch).await,
    }
}

async fn merge<K: Injectable>(client: &Client, workload: &Workload, patch: &Value) -> Result<(), ApiError> {
    let api: Api<K> = Api::namespaced(client.clone(), &workload.key.namespace);
    bounded(api.patch(&workload.key.name, &PatchParams::default(), &Patch::Strategic(patch))).await.map(drop)
}

/// What takes out the rest; the UID makes it fail on another object of the name.
fn leftover(workload: &Workload) -> Option<Value> {
    let mut template = serde_json::Map::new();
    if workload.mark.is_some() {
        template.insert("metadata".to_owned(), json!({"annotations": {label::SIDECAR_MARK: null}}));
    }
    if workload.is_restored && !workload.is_rendered {
        let gone = json!([{"name": label::SIDECAR, "$patch": "delete"}]);
        template.insert("spec".to_owned(), json!({"initContainers": gone}));
    }
    let is_some = !template.is_empty();
    let body = json!({"metadata": {"uid": workload.uid}, "spec": {"template": template}});
    is_some.then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_undo_brought_back_is_taken_out_and_nothing_else() {
        assert_eq!(leftover(&Workload::default()), None);
        let marked = Workload { uid: "u".into(), mark: Some("m".into()), ..Workload::default() };
        let expected = json!({"metadata": {"annotations": {"capstan.dev/sidecar": null}}});
        assert_eq!(
            leftover(&marked),
            Some(json!({"metadata": {"uid": "u"}, "spec": {"template": expected}}))
        );
        let restored = Workload { is_restored: true, ..Workload::default() };
        let patch = leftover(&restored).unwrap();
        assert_eq!(patch["spec"]["template"]["spec"]["initContainers"][0]["$patch"], "delete");
        assert_eq!(leftover(&Workload { is_rendered: true, ..restored }), None, "the manifest has it too");
    }
}
