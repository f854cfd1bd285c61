//! Writing a status: only when it differs, and only to the object it was made for.

use std::fmt::Debug;

use capstan_crds::{API_VERSION, Key};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::api::{ApiError, bounded};
use crate::context::Context;
use crate::world::Learned;

/// Writes the whole status of an object, and takes the answer into the world. Waits while many others are written.
pub(crate) async fn write<K, S>(context: &Context, object: &K, status: &S) -> Result<(), ApiError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Learned
        + Clone
        + Debug
        + DeserializeOwned,
    S: Serialize,
{
    let key = Key::of(object.meta());
    let patch = json!({
        "apiVersion": API_VERSION,
        "kind": K::kind(&()),
        // The UID: an object of the same name that came later is another one.
        "metadata": {"name": key.name, "uid": object.uid()},
        "status": status,
    });
    let api: Api<K> = Api::namespaced(context.client.clone(), &key.namespace);
    let params = PatchParams::apply(capstan_crds::label::FIELD_MANAGER).force();
    // It is never closed, so that no permit is no limit.
    let _permit = context.status_writes.acquire().await;
    let mut written = bounded(api.patch_status(&key.name, &params, &Patch::Apply(&patch))).await?;
    written.managed_fields_mut().clear();
    context.world.learn(written);
    Ok(())
}

/// The time, in the whole seconds that a status has.
pub(crate) fn now() -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
    let seconds = jiff::Timestamp::now().as_second();
    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        jiff::Timestamp::from_second(seconds).unwrap_or_default(),
    )
}
