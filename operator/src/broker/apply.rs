//! Applying a Broker's objects, each only when it is not as it was applied last.

use std::fmt::Debug;

use capstan_crds::{API_VERSION, Broker, Key, label};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{LocalObjectReference, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::info;

use super::build::{Findings, Objects, build};
use super::dereference::Scene;
use super::is_available;
use super::rollout::Decision;
use super::volume::Volume;
use crate::api::{ApiError, apply_own, bounded};
use crate::applied::{Mark, content};
use crate::context::{Context, Object};
use crate::names::names;

/// The account of pods that name none.
const ACCOUNT_DEFAULT: &str = "default";

/// What is known of an object that exists.
struct Known {
    uid: String,
    version: String,
    is_ours: bool,
}

/// Applies all objects: the StatefulSet last, because its pods need the others.
pub(super) async fn apply(
    context: &Context,
    scene: &Scene,
    broker: &Broker,
    volume: &Volume,
    decision: &Decision,
) -> Result<(), ApiError> {
    match all(context, scene, broker, volume, decision).await {
        Ok(policy) => policy,
        Err(error) => {
            // A turn that came to nothing is the next one's.
            context.upgrades.forget(&scene.key);
            Err(error)
        }
    }
}

/// Applies all objects; within, what became of the one that no broker needs to run.
async fn all(
    context: &Context,
    scene: &Scene,
    broker: &Broker,
    volume: &Volume,
    decision: &Decision,
) -> Result<Result<(), ApiError>, ApiError> {
    let pull_secrets = pull_secrets(context, scene, broker).await?;
    let findings = Findings {
        claim: volume.template.clone(),
        hold: decision.hold.clone(),
        is_guarded: scene.is_guarded,
        pull_secrets: pull_secrets.clone().unwrap_or_default(),
    };
    let objects = build(broker, &context.config, &findings);
    // A policy that is refused keeps no broker from running.
    let policy = network_policy(context, scene, objects.network_policy.as_ref()).await;
    needed(context, scene, volume, &objects, pull_secrets.is_some()).await?;
    Ok(policy)
}

/// Applies what a broker cannot run without.
async fn needed(
    context: &Context,
    scene: &Scene,
    volume: &Volume,
    objects: &Objects,
    with_account: bool,
) -> Result<(), ApiError> {
    if with_account {
        let known = scene.service_account.as_deref().map(known);
        one(context, Object::ServiceAccount, &objects.service_account, known, version).await?;
    }
    let pods = scene.pods_service.as_deref().map(known);
    one(context, Object::Service, &objects.pods_service, pods, version).await?;
    let client = scene.service.as_deref().map(known);
    one(context, Object::Service, &objects.service, client, version).await?;
    stateful_set(context, scene, volume, &objects.stateful_set).await
}

fn known<K: ResourceExt>(object: &K) -> Known {
    Known {
        uid: object.uid().unwrap_or_default(),
        version: object.resource_version().unwrap_or_default(),
        is_ours: is_ours(object),
    }
}

fn version<K: ResourceExt>(object: &K) -> Option<String> {
    object.resource_version()
}

/// With what pods without an account of their own are pulled in the namespace. Nobody asks while the account is as it
/// was applied and the broker serves.
async fn pull_secrets(
    context: &Context,
    scene: &Scene,
    broker: &Broker,
) -> Result<Option<Vec<LocalObjectReference>>, ApiError> {
    let key = scene.key.sibling(&names(&scene.key.name).service_account);
    let mark = context.applied.get(&Object::ServiceAccount(key));
    let known = scene.service_account.as_deref().and_then(ResourceExt::resource_version);
    let is_known = mark.is_some_and(|mark| Some(mark.version) == known);
    if is_known && is_available(broker) {
        return Ok(None);
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(context.client.clone(), &scene.key.namespace);
    let account = bounded(accounts.get_opt(ACCOUNT_DEFAULT)).await?;
    Ok(Some(account.and_then(|account| account.image_pull_secrets).unwrap_or_default()))
}

async fn network_policy(
    context: &Context,
    scene: &Scene,
    desired: Option<&NetworkPolicy>,
) -> Result<(), ApiError> {
    let found = scene.network_policy.as_deref();
    if let Some(desired) = desired {
        let known = found.map(|policy| Known {
            uid: policy.uid.clone(),
            version: policy.version.clone(),
            is_ours: policy.broker.is_some(),
        });
        return one(context, Object::NetworkPolicy, desired, known, version).await;
    }
    let Some(policy) = found.filter(|policy| policy.broker.as_ref() == Some(&scene.key.name)) else {
        return Ok(());
    };
    let policies: Api<NetworkPolicy> = Api::namespaced(context.client.clone(), &policy.key.namespace);
    info!(object = %policy.key, "deleting the NetworkPolicy that nobody wants any more");
    delete(&policies, &policy.key.name, &policy.uid, DeleteParams::background()).await
}

/// Its claim template can never change: for another one it goes, without its pod, and comes again.
async fn stateful_set(
    context: &Context,
    scene: &Scene,
    volume: &Volume,
    desired: &StatefulSet,
) -> Result<(), ApiError> {
    let owner = format!("Broker/{}", scene.key.name);
    let found = scene.stateful_set.as_deref();
    let set = found.and_then(|found| found.broker.as_ref());
    if set.is_some_and(|set| set.is_ending) {
        // When it is gone, that is an event.
        return Ok(());
    }
    if let Some(found) = found.filter(|_| volume.is_template_old) {
        let sets: Api<StatefulSet> = Api::namespaced(context.client.clone(), &scene.key.namespace);
        info!(object = %found.key, "making the StatefulSet anew: its claim template changed");
        return delete(&sets, &found.key.name, &found.uid, DeleteParams::orphan()).await;
    }
    let known = found.map(|set| Known {
        uid: set.uid.clone(),
        version: set.generation.to_string(),
        is_ours: set.controller.as_deref() == Some(&owner),
    });
    let generation = |set: &StatefulSet| set.metadata.generation.map(|generation| generation.to_string());
    one(context, Object::StatefulSet, desired, known, generation).await
}

/// Deletes the object that has this UID, if it is still there.
async fn delete<K>(api: &Api<K>, name: &str, uid: &str, params: DeleteParams) -> Result<(), ApiError>
where
    K: Clone + DeserializeOwned + Debug,
{
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..params };
    match bounded(api.delete(name, &params)).await {
        Ok(_) | Err(ApiError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
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
