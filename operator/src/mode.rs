//! How sidecars get into pods in this cluster: by admission where the API server has the chart's policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kube::Api;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use tracing::{info, warn};

use crate::api::{ApiError, bounded};
use crate::context::Context;
use crate::world::Unit;

/// How often the policy is looked for.
const EVERY: Duration = Duration::from_secs(30);
/// When to look again where there was no answer at the start.
const AGAIN: Duration = Duration::from_secs(2);
/// So many times in a row it has to be missing: whoever replaces it is not to restart every consumer of the cluster.
const MISSING: u32 = 4;
const GROUP: &str = "admissionregistration.k8s.io";
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const KINDS: [&str; 2] = ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"];

/// How a sidecar gets into pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The API server completes pods when they are created.
    Admission,
    /// The workload's pod template has it.
    Template,
}

/// The mode of the cluster, as it was found last.
#[derive(Debug, Default)]
pub(crate) struct Modes {
    is_admission: AtomicBool,
}

impl Modes {
    pub(crate) fn get(&self) -> Mode {
        if self.is_admission.load(Ordering::Relaxed) { Mode::Admission } else { Mode::Template }
    }

    fn set(&self, mode: Mode) {
        self.is_admission.store(mode == Mode::Admission, Ordering::Relaxed);
    }
}

/// Looks until there is an answer: nothing is injected in a mode that is not known.
pub(crate) async fn look_first(context: &Context) {
    loop {
        match look(context).await {
            Ok(mode) => {
                // A policy that is just being replaced is looked for again before anybody's pods are.
                let mode = if is_in_use(context) { Mode::Admission } else { mode };
                context.mode.set(mode);
                return info!(?mode, "how sidecars get into pods");
            }
            Err(error) => warn!(%error, "cannot tell how sidecars get into pods; looking again"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Looks from time to time, and has every workload looked at when the mode is another one.
pub(crate) async fn keep_looking(context: &Context) {
    let mut missing = 0;
    loop {
        tokio::time::sleep(EVERY).await;
        let found = match look(context).await {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, "cannot tell how sidecars get into pods; it stays as it is");
                continue;
            }
        };
        if found == Mode::Admission && missing > 0 {
            // Pods that were made meanwhile may have none.
            context.complete.clear();
            all_workloads(context).into_iter().for_each(|unit| context.queue.add(unit));
        }
        missing = if found == Mode::Template { missing + 1 } else { 0 };
        let is_new = found != context.mode.get();
        if is_new && (found == Mode::Admission || missing >= MISSING) {
            info!(mode = ?found, "sidecars get into pods in another way");
            context.mode.set(found);
            all_workloads(context).into_iter().for_each(|unit| context.queue.add(unit));
        }
    }
}

/// Whether workloads have their sidecars by admission already.
fn is_in_use(context: &Context) -> bool {
    let world = context.world.read();
    let is_marked = world.deployments.all().any(|one| one.owns_mark)
        || world.stateful_sets.all().any(|one| one.owns_mark);
    context.config.admission_policy.is_some() && is_marked
}

fn all_workloads(context: &Context) -> Vec<Unit> {
    let world = context.world.read();
    let unit = |consumer: &Arc<capstan_crds::Consumer>| {
        let target = consumer.spec.target_ref.as_ref()?;
        Some(Unit::Workload(consumer.metadata.namespace.clone()?, target.workload()))
    };
    world.consumers.all().filter_map(unit).collect()
}

async fn look(context: &Context) -> Result<Mode, ApiError> {
    let Some(name) = &context.config.admission_policy else { return Ok(Mode::Template) };
    for version in VERSIONS {
        let mut found = 0;
        for kind in KINDS {
            if exists(context, version, kind, name).await? {
                found += 1;
            }
        }
        if found == KINDS.len() {
            return Ok(Mode::Admission);
        }
    }
    Ok(Mode::Template)
}

async fn exists(context: &Context, version: &str, kind: &str, name: &str) -> Result<bool, ApiError> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, version, kind));
    let api: Api<DynamicObject> = Api::all_with(context.client.clone(), &resource);
    match bounded(api.get_metadata_opt(name)).await {
        Ok(found) => Ok(found.is_some()),
        // A version that the API server does not serve is not found either; one that it does not let us see is not there for us.
        Err(ApiError::NotFound(_)) => Ok(false),
        Err(ApiError::Refused(reason)) if context.mode.get() == Mode::Template => {
            warn!(kind, name, reason, "may not be looked at: sidecars go into pod templates");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
