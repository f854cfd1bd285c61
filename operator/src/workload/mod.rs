//! A workload and the Consumers that name it; and Consumers without a workload.

mod calls;
mod inject;
mod patch;
mod pods;
mod rollouts;
mod scale;
mod status;
mod told;

use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_api::workload::Workload as Reference;
use capstan_crds::consumer::Injection as Parameters;
use capstan_crds::{Consumer, ConsumerStatus, Key, Queue};
use capstan_inject::{Action, Claimant, Plan, plan, sort};
use kube::{Client, Resource, ResourceExt};
use tracing::{info, warn};

use self::inject::{Injection, Task, bring_about};
use self::pods::{Pods, Way};
use self::status::{BAD_WHEN_TRUE, Said, Target};
use self::told::SETTLES;
use crate::api::ApiError;
use crate::context::Context;
use crate::demand::Heard;
use crate::mode::Mode;
use crate::reach::Reachable;
use crate::work::Outcome;
use crate::world::{State, Workload};

pub(crate) use self::calls::when_calls_are_news;
pub(crate) use self::patch::Injectable;
pub(crate) use self::pods::{Complete, is_alive, list as list_pods};
pub(crate) use self::rollouts::Rollouts;
pub(crate) use self::told::Told;

/// Everything is looked at this often, even when nothing seems to happen.
const RESYNC: Duration = Duration::from_secs(600);
/// When to look again at calls that are shown: their end, within half a minute after they were written, was not.
const CALLS: Duration = Duration::from_secs(40);
/// When to look again at what changed meanwhile.
const STALE: Duration = Duration::from_secs(1);
/// When to try again what the API server refused.
const REFUSED: Duration = Duration::from_secs(60);

/// Takes away from a workload what is the operator's, whoever asks for it.
pub(crate) async fn take_back(
    client: &Client,
    reference: &Reference,
    workload: &Workload,
) -> Result<(), ApiError> {
    Box::pin(patch::take_out(client, reference, workload)).await
}

/// Brings the sidecar of one workload about, and the status of its Consumers.
pub(crate) async fn reconcile(context: &Context, namespace: &str, reference: &Reference) -> Outcome {
    match bring_all_about(context, namespace, reference).await {
        Ok(outcome) => outcome,
        Err(ApiError::Stale(reason) | ApiError::NotFound(reason)) => {
            info!(namespace, workload = %reference, reason, "changed meanwhile; looking again");
            Outcome::Again(STALE)
        }
        Err(error) => {
            warn!(namespace, workload = %reference, %error, "not reconciled; trying again");
            Outcome::Failed
        }
    }
}

/// A workload and who names it.
pub(crate) struct Scene {
    pub(crate) workload: Option<Arc<Workload>>,
    /// The oldest first.
    pub(crate) claimants: Vec<Claimant>,
}

async fn bring_all_about(
    context: &Context,
    namespace: &str,
    reference: &Reference,
) -> Result<Outcome, ApiError> {
    let Scene { workload, claimants } = dereference(&context.world.read(), namespace, reference);
    let images = context.config.sidecar_images();
    let plan = plan(namespace, reference, workload.as_deref(), &claimants, &images);
    let parameters = parameters(context, &plan);
    let is_told = is_told(&claimants, parameters.as_ref());
    let (injection, pods) = match &workload {
        Some(workload) => {
            let wait = if is_told { context.told.wait(namespace, reference) } else { Some(SETTLES) };
            injected(context, reference, workload, &plan, wait).await?
        }
        None => {
            inject::forget(context, namespace, reference);
            context.complete.forget(namespace, reference);
            (None, None)
        }
    };
    let by_admission = context.mode.get() == Mode::Admission;
    let sidecar = workload.as_deref().zip(pods.as_ref());
    let sidecar = sidecar
        .map(|(workload, pods)| pods.status(Way::of(workload, plan.is_manual, by_admission), workload));
    let target = Target {
        plan: &plan,
        workload: workload.as_deref(),
        injection: injection.as_ref(),
        sidecar: sidecar.as_ref(),
        parameters: parameters.as_ref(),
    };
    let now = crate::status::now();
    let (mut shows_calls, mut calls_due) = (false, None::<Duration>);
    let target_key = (namespace.to_owned(), reference.clone());
    // What scales is looked at by itself.
    if claimants.iter().any(|claimant| crate::scaling::scales(&claimant.consumer))
        || context.scales.has(&target_key)
    {
        context.scaling.add(target_key.clone());
    }
    for claimant in &claimants {
        claimant.resolved.broker.iter().for_each(|broker| context.demands.want(broker));
        let queue = context.world.read().queues.get(&claimant.resolved.queue);
        let application = reachable(context, claimant, reference, workload.as_deref());
        let scale = context.scales.shown(&Key::of(claimant.consumer.meta()), &target_key);
        let numbers = claimant.resolved.broker.as_ref().and_then(|broker| {
            match context.demands.queue(broker, &claimant.resolved.queue) {
                Heard::Seen(numbers) => Some(numbers),
                Heard::Unknown | Heard::Unheard => None,
            }
        });
        let said = Said { application, scale, numbers };
        let new = status::push(claimant, &target, queue.as_deref(), &said, &now);
        let due = calls::due(new.calls.as_ref(), said.numbers.as_ref(), &now);
        calls_due = calls_due.into_iter().chain(due).min();
        shows_calls |=
            new.calls.as_ref().is_some_and(|calls| calls.in_flight > 0 || calls.error_ratio.is_some());
        write(context, &claimant.consumer, new).await?;
    }
    if !is_told {
        context.told.now(namespace, reference);
    }
    let outcome = outcome(context, namespace, reference, &claimants, injection.as_ref());
    let outcome = if shows_calls { sooner(outcome, CALLS) } else { outcome };
    Ok(calls_due.map_or(outcome, |due| sooner(outcome, due.max(STALE))))
}

/// What the admission policy is to be told: nothing where there is none.
fn parameters(context: &Context, plan: &Plan) -> Option<Parameters> {
    let identity = plan.identity.as_ref().filter(|_| context.mode.get() == Mode::Admission);
    identity.map(capstan_inject::Identity::injection)
}

/// Whether every Consumer of the workload says what the admission policy is to be told. Where there is no policy nobody
/// has to be told.
fn is_told(claimants: &[Claimant], parameters: Option<&Parameters>) -> bool {
    let Some(parameters) = parameters else { return true };
    let told = |claimant: &Claimant| {
        let status = claimant.consumer.status.as_ref();
        status.and_then(|status| status.injection.as_ref()) == Some(parameters)
    };
    claimants.iter().all(told)
}

/// Brings the sidecar about, and counts the pods that have it. `wait` is for how long nothing may be brought about by
/// admission.
async fn injected(
    context: &Context,
    reference: &Reference,
    workload: &Workload,
    plan: &Plan,
    wait: Option<Duration>,
) -> Result<(Option<Injection>, Option<Pods>), ApiError> {
    let by_admission = context.mode.get() == Mode::Admission;
    let is_wanted = matches!(plan.action, Action::Inject(_)) || workload.is_ours() || plan.is_manual;
    let way = Way::of(workload, plan.is_manual, by_admission);
    let pods = match is_wanted && plan.action != Action::Remove || plan.is_manual {
        true => Some(pods::count(context, reference, workload, way).await?),
        false => None,
    };
    let task = Task { context, reference, workload, pods: pods.as_ref(), wait };
    let injection = Box::pin(bring_about(&task, &plan.action)).await?;
    if plan.action == Action::Remove {
        context.complete.forget(&workload.key.namespace, reference);
    }
    Ok((Some(injection), pods))
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
        Some(Injection { again: Some(again), .. }) => Outcome::Again(*again),
        Some(injection) if !injection.template.holds => {
            Outcome::Again(context.contests.pause(namespace, reference).unwrap_or(REFUSED))
        }
        _ => Outcome::Again(RESYNC),
    }
}

fn sooner(outcome: Outcome, pause: Duration) -> Outcome {
    match outcome {
        Outcome::Again(other) => Outcome::Again(other.min(pause)),
        other => other,
    }
}

/// Finds a workload and who names it.
pub(crate) fn dereference(state: &State, namespace: &str, reference: &Reference) -> Scene {
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
        let Some(resolved) = state.resolve(&key.namespace).consumers.get(key).cloned() else {
            return Outcome::Done;
        };
        let queue: Option<Arc<Queue>> = state.queues.get(&resolved.queue);
        (consumer, resolved, queue)
    };
    let new = status::pull(&consumer, &resolved, queue.as_deref(), &crate::status::now());
    match write(context, &consumer, new).await {
        Ok(()) => Outcome::Again(RESYNC),
        Err(ApiError::Stale(reason)) => {
            info!(consumer = %key, reason, "changed meanwhile; looking again");
            Outcome::Again(STALE)
        }
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
    match crate::status::write(context, consumer, &new).await {
        Ok(()) => {}
        // One that is gone needs no status. One that changed does, soon: the event that tells of it may have come already.
        Err(ApiError::NotFound(_)) => return Ok(()),
        Err(error) => return Err(error),
    }
    let reference = consumer.object_ref(&());
    context.events.changed(&reference, &old.conditions, &new.conditions, BAD_WHEN_TRUE);
    if old.conditions.is_empty() {
        info!(consumer = %consumer.name_any(), namespace = reference.namespace, "first seen");
    }
    Ok(())
}
