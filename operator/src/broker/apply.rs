//! Applying a Broker's objects, each only when it is not as it was applied last.

use std::fmt::Debug;

use capstan_crds::{API_VERSION, Broker, Key, label};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::info;

use super::build::{Objects, build};
use super::dereference::Scene;
use crate::api::{ApiError, apply_own, bounded};
use crate::applied::{Mark, content};
use crate::context::{Context, Object};

/// What is known of an object that exists.
struct Known {
    uid: String,
    version: String,
    is_ours: bool,
}

/// Applies all objects. Services first: a pod's name is known when the pod starts.
pub(super) async fn apply(context: &Context, scene: &Scene, broker: &Broker) -> Result<(), ApiError> {
    let Objects { stateful_set, service, pods_service } = build(broker, &context.config);
    let known = |service: &Service| Known {
        uid: service.uid().unwrap_or_default(),
        version: service.resource_version().unwrap_or_default(),
        is_ours: is_ours(service),
    };
    let pods = scene.pods_service.as_deref().map(known);
    one(context, Object::Service, &pods_service, pods, Service::resource_version).await?;
    let client = scene.service.as_deref().map(known);
    one(context, Object::Service, &service, client, Service::resource_version).await?;
    let owner = format!("Broker/{}", scene.key.name);
    let known = scene.stateful_set.as_deref().map(|set| Known {
        uid: set.uid.clone(),
        version: set.generation.to_string(),
        is_ours: set.controller.as_deref() == Some(&owner),
    });
    let generation = |set: &StatefulSet| set.metadata.generation.map(|generation| generation.to_string());
    one(context, Object::StatefulSet, &stateful_set, known, generation).await
}

async fn one<K>(
    context: &Context,
    kind: fn(Key) -> Object,
    desired: &K,
    known: Option<Known>,
    version: impl Fn(&K) -> Option<String>,
) -> Result<(), ApiError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let key = Key::of(desired.meta());
    let content = content(desired);
    if let Some(known) = &known {
        let mark = Mark { content, uid: known.uid.clone(), version: known.version.clone() };
        if context.applied.get(&kind(key.clone())) == Some(mark) {
            return Ok(());
        }
    }
    let api: Api<K> = Api::namespaced(context.client.clone(), &key.namespace);
    let is_ours = match &known {
        Some(known) => known.is_ours,
        // What is not watched may exist all the same.
        None => bounded(api.get_opt(&key.name)).await?.is_none_or(|found| is_ours(&found)),
    };
    if !is_ours {
        let kind = K::kind(&());
        return Err(ApiError::Refused(format!(
            "{kind} {} exists and is not Capstan's: delete or rename it, or give the Broker another name",
            key.name
        )));
    }
    let applied = apply_own(&api, &key.name, desired).await?;
    if known.is_none() {
        info!(kind = %K::kind(&()), object = %key, "applied");
    }
    let mark = Mark {
        content,
        uid: applied.uid().unwrap_or_default(),
        version: version(&applied).unwrap_or_default(),
    };
    context.applied.set(kind(key), mark);
    Ok(())
}

/// Whether an object is a Broker's: by its labels, or by its owner when somebody took the labels off.
fn is_ours<K: ResourceExt>(object: &K) -> bool {
    let labels = object.labels();
    let is_labelled = labels.get(label::MANAGED_BY).is_some_and(|manager| manager == "capstan");
    let is_owner = |owner: &OwnerReference| owner.api_version == API_VERSION && owner.kind == "Broker";
    is_labelled && labels.contains_key(label::BROKER) || object.owner_references().iter().any(is_owner)
}
