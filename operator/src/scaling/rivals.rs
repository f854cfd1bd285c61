//! Who else sets the number of a workload's pods: a HorizontalPodAutoscaler, or a ScaledObject of KEDA.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capstan_api::workload::Workload as Reference;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use tokio::time::Instant;
use tracing::warn;

use super::Target;
use crate::api::{ApiError, bounded};
use crate::context::Context;
use crate::world::State;

/// A namespace's ScaledObjects are listed this often: they are watched by nobody here, as few clusters have them. Most of
/// them have an autoscaler, which is.
const LASTS: Duration = Duration::from_secs(60);
/// Most ScaledObjects of a namespace that are looked at.
const OBJECTS_MAX: u32 = 500;

/// The ScaledObjects of namespaces with Consumers that scale.
#[derive(Debug, Default)]
pub(crate) struct Rivals(Mutex<HashMap<String, Listed>>);

/// What each ScaledObject scales, by its name.
#[derive(Debug, Clone)]
struct Listed {
    at: Instant,
    objects: Arc<Vec<(String, Reference)>>,
}

/// Who else sets the number of pods, as `kind name`.
pub(super) async fn of(context: &Context, target: &Target) -> Option<String> {
    if let Some(autoscaler) = autoscaler(&context.world.read(), target) {
        return Some(autoscaler);
    }
    let objects = scaled_objects(context, &target.0).await;
    let object = objects.iter().find(|(_, reference)| *reference == target.1);
    object.map(|(name, _)| format!("ScaledObject {name}"))
}

fn autoscaler(state: &State, (namespace, reference): &Target) -> Option<String> {
    let all = state.autoscalers.of(namespace);
    let one = all.iter().find(|one| one.target.as_ref() == Some(reference))?;
    Some(match &one.scaled_object {
        Some(object) => format!("ScaledObject {object}"),
        None => format!("HorizontalPodAutoscaler {}", one.key.name),
    })
}

async fn scaled_objects(context: &Context, namespace: &str) -> Arc<Vec<(String, Reference)>> {
    let known = context.rivals.get(namespace);
    if let Some(listed) = known.as_ref().filter(|listed| listed.at.elapsed() < LASTS) {
        return Arc::clone(&listed.objects);
    }
    let kind = GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject");
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &resource);
    let objects = match bounded(api.list(&ListParams::default().limit(OBJECTS_MAX))).await {
        Ok(list) => list.items.iter().filter_map(read).collect(),
        // KEDA is not installed, or nothing may be known of it.
        Err(ApiError::NotFound(_) | ApiError::Refused(_)) => Vec::new(),
        // Scaling goes on with what was known: a ScaledObject mostly has an autoscaler, which is watched.
        Err(error) => {
            warn!(namespace, %error, "ScaledObjects are not known; going on");
            known.map(|listed| listed.objects.as_ref().clone()).unwrap_or_default()
        }
    };
    context.rivals.set(namespace, objects)
}

fn read(object: &DynamicObject) -> Option<(String, Reference)> {
    let target = object.data.get("spec")?.get("scaleTargetRef")?;
    let kind = target.get("kind").and_then(|kind| kind.as_str()).unwrap_or("Deployment");
    let name = target.get("name")?.as_str()?;
    let reference = format!("{kind}/{name}").parse().ok()?;
    Some((object.metadata.name.clone()?, reference))
}

impl Rivals {
    fn get(&self, namespace: &str) -> Option<Listed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(namespace).cloned()
    }

    fn set(&self, namespace: &str, objects: Vec<(String, Reference)>) -> Arc<Vec<(String, Reference)>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, listed| listed.at.elapsed() < 10 * LASTS);
        let objects = Arc::new(objects);
        all.insert(namespace.to_owned(), Listed { at: Instant::now(), objects: Arc::clone(&objects) });
        objects
    }
}
