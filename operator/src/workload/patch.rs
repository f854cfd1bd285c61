//! Applying the operator's fields to a workload.

use capstan_api::workload::{Workload as Reference, WorkloadKind};
use capstan_inject::{Fields, Partial};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::{Api, Client};

use crate::api::{ApiError, apply_beside};
use crate::world::Workload;

/// Gives a workload these fields, and takes away those that it was given before. A dry run only answers what it would be.
pub(super) async fn apply(
    client: &Client,
    reference: &Reference,
    workload: &Workload,
    fields: &Fields,
    dry_run: bool,
) -> Result<Workload, ApiError> {
    let (name, namespace) = (&workload.key.name, &workload.key.namespace);
    let partial = Partial::new(reference.kind, workload, fields);
    match reference.kind {
        WorkloadKind::Deployment => {
            let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
            apply_beside(&api, name, &partial, dry_run).await.map(|object| Workload::from(&object))
        }
        WorkloadKind::StatefulSet => {
            let api: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
            apply_beside(&api, name, &partial, dry_run).await.map(|object| Workload::from(&object))
        }
    }
}
