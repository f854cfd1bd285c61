//! A workload and the Consumers that name it; and Consumers without a workload.

mod container;
mod inject;
mod patch;
mod plan;
mod pods;
mod status;

use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_api::workload::Workload as Reference;
use capstan_crds::{Consumer, ConsumerStatus, Key, Queue};
use kube::{Client, Resource, ResourceExt};
use tracing::{info, warn};

use self::inject::{Injection, bring_about};
use self::plan::{Action, Claimant, plan, sort};
use self::status::{BAD_WHEN_TRUE, Target};
use crate::api::ApiError;
use crate::context::Context;
use crate::reach::Reachable;
use crate::work::Outcome;
use crate::world::{State, Workload};

/// Everything is looked at this often, even when nothing seems to happen.
const RESYNC: Duration = Duration::from_secs(600);
/// When to try again what the API server refused.
const REFUSED: Duration = Duration::from_secs(60);

/// Takes away from a workload what is the operator's, whoever asks for it.
pub(crate) async fn take_back(
    client: &Client,
    reference: &Reference,
    workload: &Workload,
) -> Result<(), ApiError> {
    patch::apply(client, reference, workload, None, false).await.map(|_| ())
}

/// Brings the sidecar of one workload about, and the status of its Consumers.
pub(crate) async fn reconcile(context: &Context, namespace: &str, reference: &Reference) -> Outcome {
    match bring_all_about(context, namespace, reference).await {
        Ok(outcome) => outcome,
        Err(ApiError::Stale(reason) | ApiError::NotFound(reason)) => {
            info!(namespace, workload = %reference, reason, "changed meanwhile; looking again");
            Outcome::Again(Duration::from_secs(1))
        }
        Err(error) => {
            warn!(namespace, workload = %reference, %error, "not reconciled; trying again");
            Outcome::Failed
        }
    }
}

/// A workload and who names it.
struct Scene {
    workload: Option<Arc<Workload>>,
    claimants: Vec<Claimant>,
}

async fn bring_all_about(
    context: &Context,
    namespace: &str,
    reference: &Reference,
) -> Result<Outcome, ApiError> {
    let Scene { workload, claimants } = dereference(&context.world.read(), namespace, reference);
    let plan = plan(namespace, reference, workload.as_deref(), &claimants, &context.config);
    let injection = match &workload {
        Some(workload) => Some(bring_about(context, reference, workload, &plan.action).await?),
        None => {
            inject::forget(context, namespace, reference);
            None
        }
    };
    let is_wanted = matches!(plan.action, Action::Inject(_)) || workload.as_ref().is_some_and(|w| w.is_ours);
    let sidecar = match &workload {
        Some(workload) if is_wanted && !claimants.is_empty() => {
            Some(pods::count(&context.client, workload, &context.config.sidecar_image).await?)
        }
        _ => None,
    };
    let target = Target {
        plan: &plan,
        workload: workload.as_deref(),
        injection: injection.as_ref(),
        sidecar: sidecar.as_ref(),
    };
    let now = crate::status::now();
    for claimant in &claimants {
        let queue = context.world.read().queues.get(&claimant.resolved.queue);
        let application = reachable(context, claimant, reference, workload.as_deref());
        let new = status::push(claimant, &target, queue.as_deref(), &application, &now);
        write(context, &claimant.consumer, new).await?;
    }
    Ok(outcome(context, namespace, reference, &claimants, injection.as_ref()))
}

/// What is to be shown of the applications in a workload's pods.
fn reachable(
    context: &Context,
    claimant: &Claimant,
    reference: &Reference,
    workload: Option<&Workload>,
) -> Reachable {
    let Some(broker) = &claimant.resolved.broker else {
        return Reachable::Kept;
    };
    let queue = &claimant.resolved.queue;
    if workload.is_none_or(|workload| workload.replicas == 0) {
        // What its pods said is not true of the next ones.
        context.reaches.clear(broker, queue);
        return Reachable::Unknown;
    }
    context.reaches.of(broker, queue, reference, Instant::now())
}

fn outcome(
    context: &Context,
    namespace: &str,
    reference: &Reference,
    claimants: &[Claimant],
    injection: Option<&Injection>,
) -> Outcome {
    if claimants.is_empty() {
        return Outcome::Done;
    }
    match injection {
        Some(injection) if !injection.template.holds => {
            Outcome::Again(context.contests.pause(namespace, reference).unwrap_or(REFUSED))
        }
        _ => Outcome::Again(RESYNC),
    }
}

fn dereference(state: &State, namespace: &str, reference: &Reference) -> Scene {
    let resolution = state.resolve(namespace);
    let claim = |consumer: Arc<Consumer>| {
        let target = consumer.spec.target_ref.as_ref()?;
        let resolved = resolution.consumers.get(&Key::of(consumer.meta()))?.clone();
        (target.workload() == *reference).then_some(Claimant { consumer, resolved })
    };
    let mut claimants: Vec<Claimant> = state.consumers.of(namespace).into_iter().filter_map(claim).collect();
    sort(&mut claimants);
    Scene { workload: state.workload(reference.kind, &Key::new(namespace, &reference.name)), claimants }
}

/// Writes the status of a pull consumer.
pub(crate) async fn reconcile_pull(context: &Context, key: &Key) -> Outcome {
    let (consumer, resolved, queue) = {
        let state = context.world.read();
        let Some(consumer) = state.consumers.get(key).filter(|c| c.spec.target_ref.is_none()) else {
            return Outcome::Done;
        };
        let Some(resolved) = state.resolve(&key.namespace).consumers.remove(key) else {
            return Outcome::Done;
        };
        let queue: Option<Arc<Queue>> = state.queues.get(&resolved.queue);
        (consumer, resolved, queue)
    };
    let new = status::pull(&consumer, &resolved, queue.as_deref(), &crate::status::now());
    match write(context, &consumer, new).await {
        Ok(()) => Outcome::Again(RESYNC),
        Err(error) => {
            warn!(consumer = %key, %error, "not reconciled; trying again");
            Outcome::Failed
        }
    }
}

/// Writes the status of a Consumer when it differs.
async fn write(context: &Context, consumer: &Consumer, new: ConsumerStatus) -> Result<(), ApiError> {
    let old = consumer.status.clone().unwrap_or_default();
    if old == new {
        return Ok(());
    }
    match crate::status::write(context, |state| &mut state.consumers, consumer, &new).await {
        Ok(()) => {}
        // One that is gone needs no status.
        Err(ApiError::NotFound(_) | ApiError::Stale(_)) => return Ok(()),
        Err(error) => return Err(error),
    }
    let reference = consumer.object_ref(&());
    context.events.changed(&reference, &old.conditions, &new.conditions, BAD_WHEN_TRUE);
    if old.conditions.is_empty() {
        info!(consumer = %consumer.name_any(), namespace = reference.namespace, "first seen");
    }
    Ok(())
}
