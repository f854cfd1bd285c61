//! A Broker's volume: looks at its claim when there is reason to, and has it grow.

use capstan_crds::broker::Resize;
use capstan_crds::condition::RESIZING;
use capstan_crds::{Broker, ByteSize};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tracing::info;

use super::claim::{Claim, Growth, Template};
use super::dereference::Scene;
use crate::api::{ApiError, bounded};
use crate::condition::find;
use crate::context::Context;
use crate::names::names;
use crate::world::BrokerSet;

/// The volume, as far as it was looked at.
#[derive(Debug, Clone)]
pub(super) struct Volume {
    /// None when nobody looked, or there is none.
    pub(super) claim: Option<Claim>,
    /// None when nobody looked: what was said last holds.
    pub(super) growth: Option<Growth>,
    /// What the StatefulSet says of it.
    pub(super) template: Template,
    /// Whether the StatefulSet says something else, and has to be made anew.
    pub(super) is_template_old: bool,
}

/// Looks at the claim when there is reason to, and asks for more when more is wanted.
pub(super) async fn look(context: &Context, scene: &Scene, broker: &Broker) -> Result<Volume, ApiError> {
    let set = set(scene);
    if set.is_some_and(|set| !is_due(broker, set)) {
        return Ok(unchanged(scene, broker, None));
    }
    match found(context, scene, broker, set).await {
        // Without the right to look, all else goes on.
        Err(ApiError::Refused(why)) => Ok(unchanged(scene, broker, Some(Growth::Refused(why)))),
        found => found,
    }
}

/// The volume as its StatefulSet has it.
pub(super) fn unchanged(scene: &Scene, broker: &Broker, growth: Option<Growth>) -> Volume {
    let storage = &broker.spec.storage;
    Volume {
        claim: None,
        growth,
        template: set(scene).map_or_else(|| Template::new(storage), |set| Template::of_set(set, storage)),
        is_template_old: false,
    }
}

fn set(scene: &Scene) -> Option<&BrokerSet> {
    scene.stateful_set.as_ref().and_then(|set| set.broker.as_ref())
}

async fn found(
    context: &Context,
    scene: &Scene,
    broker: &Broker,
    set: Option<&BrokerSet>,
) -> Result<Volume, ApiError> {
    let storage = &broker.spec.storage;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &scene.key.namespace);
    let found = bounded(claims.get_opt(&names(&scene.key.name).claim)).await?;
    let claim = found.as_ref().map(Claim::from);
    let (growth, is_large) = match &claim {
        Some(claim) => grow(context, &claims, claim, &storage.size).await?,
        None => (Growth::Done, true),
    };
    let template = Template::wanted(storage, set, claim.as_ref(), is_large);
    let is_template_old = set.is_some_and(|set| Template::of_set(set, storage) != template);
    Ok(Volume { claim, growth: Some(growth), template, is_template_old })
}

/// Whether the claim can have something to say: it is not looked at for ever.
fn is_due(broker: &Broker, set: &BrokerSet) -> bool {
    let status = broker.status.as_ref();
    let storage = status.and_then(|status| status.storage.as_ref());
    let condition = status.and_then(|status| find(&status.conditions, RESIZING));
    let is_settled = condition.is_some_and(|condition| {
        condition.observed_generation == broker.metadata.generation && condition.status == "False"
    });
    let size = set.size.as_deref().and_then(ByteSize::of_quantity);
    let is_small = size.is_some_and(|size| size.bytes() < broker.spec.storage.size.bytes());
    is_small || !is_settled || storage.is_some_and(|storage| storage.resize != Resize::None)
}

/// How far the growth is, and whether the claim asks for all that is wanted.
async fn grow(
    context: &Context,
    claims: &Api<PersistentVolumeClaim>,
    claim: &Claim,
    wanted: &ByteSize,
) -> Result<(Growth, bool), ApiError> {
    if !claim.is_small(wanted) {
        return Ok((claim.growth(wanted), true));
    }
    if !claim.is_bound {
        return Ok((Growth::Unbound, false));
    }
    if let Err(why) = may_grow(context, claim).await? {
        return Ok((Growth::Refused(why), false));
    }
    let patch = json!({
        "metadata": {"uid": claim.uid},
        "spec": {"resources": {"requests": {"storage": wanted.whole()}}},
    });
    let params = PatchParams {
        field_manager: Some(capstan_crds::label::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match bounded(claims.patch(&claim.name, &params, &Patch::Merge(&patch))).await {
        Ok(patched) => {
            info!(claim = claim.name, size = wanted.as_str(), "the volume is to grow");
            Ok((Claim::from(&patched).growth(wanted), true))
        }
        Err(ApiError::Refused(why)) => Ok((Growth::Refused(why), false)),
        Err(error) => Err(error),
    }
}

/// Whether the class of the volume lets it grow; if not, why, and what to do.
async fn may_grow(context: &Context, claim: &Claim) -> Result<Result<(), String>, ApiError> {
    let keeps = "nothing is lost, and the volume keeps its size";
    let Some(name) = &claim.class else {
        return Ok(Err(format!(
            "claim {} has no StorageClass, so its volume cannot grow: create a new Broker of the size you need; {keeps}",
            claim.name
        )));
    };
    let classes: Api<StorageClass> = Api::all(context.client.clone());
    let class = match bounded(classes.get_opt(name)).await {
        Ok(Some(class)) => class,
        Ok(None) => {
            return Ok(Err(format!(
                "StorageClass {name} of claim {} does not exist any more: create it, with allowVolumeExpansion: true; {keeps}",
                claim.name
            )));
        }
        // Without the right to look, the API server decides.
        Err(ApiError::Refused(_)) => return Ok(Ok(())),
        Err(error) => return Err(error),
    };
    if class.allow_volume_expansion == Some(true) {
        return Ok(Ok(()));
    }
    Ok(Err(format!(
        "StorageClass {name} does not let volumes grow: if its driver can, set allowVolumeExpansion: true on it; otherwise create a new \
         Broker of the size you need; {keeps}"
    )))
}
