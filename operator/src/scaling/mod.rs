//! How many pods the target of Consumers with `scaling` has: looked at when there is news of a Queue, and now and then.
//!
//! Its units are worked on by workers of their own, and no broker is waited for when more pods are needed.

mod choose;
mod judge;
mod pods;
mod replicas;
mod rivals;
mod scales;
mod shrink;
mod tell;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use capstan_api::workload::Workload as Reference;
use capstan_crds::condition::{SCALING_ACTIVE, reason};
use capstan_crds::queue::Delivery;
use capstan_crds::{Consumer, ConsumerFinding, Key};
use capstan_inject::Claimant;
use capstan_scaling::{Vote, combine};
use kube::ResourceExt;
use tracing::{info, warn};

pub(crate) use self::rivals::Rivals;
pub(crate) use self::scales::{Scales, Shown};

use self::judge::{Judgement, Look, judge};
use self::scales::Entry;
use crate::api::ApiError;
use crate::condition::find;
use crate::context::Context;
use crate::work::Outcome;
use crate::workload::{self, Scene};
use crate::world::{Unit, Workload};

/// A workload and its namespace.
pub(crate) type Target = (String, Reference);

/// Everything is looked at this often, even when nothing seems to happen.
const RESYNC: Duration = Duration::from_secs(600);
/// How often is looked whether what holds it has passed.
const HELD: Duration = Duration::from_secs(5);
/// When to try again what the API server refused.
const REFUSED: Duration = Duration::from_secs(60);
/// When to try again what failed.
const FAILED: Duration = Duration::from_secs(3);
/// When to look again at what changed meanwhile.
const STALE: Duration = Duration::from_secs(1);

/// Brings the number of one workload's pods about.
pub(crate) async fn reconcile(context: &Context, target: &Target) -> Outcome {
    match Box::pin(bring_about(context, target)).await {
        Ok(outcome) => outcome,
        Err(ApiError::Stale(reason) | ApiError::NotFound(reason)) => {
            info!(namespace = target.0, workload = %target.1, reason, "changed meanwhile; looking again");
            Outcome::Again(STALE)
        }
        Err(error) => {
            warn!(namespace = target.0, workload = %target.1, %error, "not scaled; trying again");
            Outcome::Failed
        }
    }
}

/// Whether a Consumer's target is scaled, as far as its spec goes.
pub(crate) fn scales(consumer: &Consumer) -> bool {
    consumer.spec.scaling.is_some()
}

async fn bring_about(context: &Context, target: &Target) -> Result<Outcome, ApiError> {
    let scene = workload::dereference(&context.world.read(), &target.0, &target.1);
    let is_scaled = scene.claimants.iter().any(|claimant| scales(&claimant.consumer));
    let entry = context.scales.entry(target);
    let mut entry = entry.lock().await;
    let Some(workload) = scene.workload.as_deref().filter(|_| is_scaled) else {
        shrink::leave(context, target, scene.workload.as_deref(), &mut entry).await?;
        context.scales.forget(target);
        tell::forget(context, target, &mut entry);
        return Ok(Outcome::Done);
    };
    if entry.begin(workload) {
        adopt(context, target, &scene.claimants);
    }
    let workload = &*entry.known(workload);
    let uids: BTreeSet<&str> =
        scene.claimants.iter().filter_map(|one| one.consumer.metadata.uid.as_deref()).collect();
    entry.retain(|uid| uids.contains(uid));
    let broker = capstan_inject::broker(&scene.claimants);
    let rival = if context.config.scaling { rivals::of(context, target).await } else { None };
    let all: Vec<Judgement> = scene
        .claimants
        .iter()
        .map(|claimant| {
            let look = look(context, (claimant, broker), workload, rival.as_deref());
            judge(&look, &mut entry, context.scales.now())
        })
        .collect();
    follow(context, target, workload, &scene, &mut entry, all).await
}

/// What an operator before this one found lasts on: somebody sets the number of pods back.
fn adopt(context: &Context, target: &Target, claimants: &[Claimant]) {
    let since = claimants.iter().filter_map(|claimant| {
        let status = claimant.consumer.status.as_ref()?;
        let found = find(&status.conditions, SCALING_ACTIVE)?;
        // Of this target, and not of the one that it had before.
        let is_of_this = found.observed_generation == claimant.consumer.metadata.generation;
        (is_of_this && found.reason == reason::REPLICAS_CONTESTED).then_some(found.last_transition_time.0)
    });
    if let Some(since) = since.max() {
        let ago = Duration::try_from(crate::status::now().0.duration_since(since)).unwrap_or_default();
        context.resets.adopt(&target.0, &target.1, ago);
    }
}

/// What is to be known of a Consumer.
fn look<'a>(
    context: &Context,
    (claimant, broker): (&'a Claimant, Option<&'a Key>),
    workload: &'a Workload,
    rival: Option<&'a str>,
) -> Look<'a> {
    let queue = &claimant.resolved.queue;
    let heard = claimant.resolved.broker.as_ref().map(|broker| {
        context.demands.want(broker);
        context.demands.queue(broker, queue)
    });
    let is_paused = {
        let state = context.world.read();
        let is_stopped = |queue: Arc<capstan_crds::Queue>| queue.spec.delivery == Delivery::Paused;
        claimant.consumer.spec.paused || state.queues.get(queue).is_some_and(is_stopped)
    };
    Look { claimant, broker, workload, is_enabled: context.config.scaling, rival, heard, is_paused }
}

/// Does what follows from what all Consumers of the workload say.
async fn follow(
    context: &Context,
    target: &Target,
    workload: &Workload,
    scene: &Scene,
    entry: &mut Entry,
    mut all: Vec<Judgement>,
) -> Result<Outcome, ApiError> {
    let votes: Vec<Vote> = all.iter().filter_map(|one| one.vote).collect();
    let Some(total) = combine(&votes, workload.replicas).filter(|_| all.iter().any(|one| one.is_free)) else {
        // It is somebody else's now, or nobody's.
        entry.refusal = None;
        entry.unset();
        let left = shrink::leave(context, target, Some(workload), entry).await;
        tell::show(context, target, entry, (&scene.claimants, &all), None);
        return left.map(|()| again(&all));
    };
    let names: Vec<String> = scene.claimants.iter().map(|one| one.consumer.name_any()).collect();
    judge::compare(&mut all, &names, (workload.replicas, total));
    let pause = if entry.was_reset(workload, total) {
        context.resets.add_and_pause(&target.0, &target.1)
    } else {
        context.resets.pause(&target.0, &target.1)
    };
    let outcome = if pause.is_some() {
        entry.refusal = None;
        let left = shrink::leave(context, target, Some(workload), entry).await;
        judge::contest(&mut all);
        left.map(|()| Outcome::Again(HELD))
    } else if let Some(pause) = entry.rests(total, workload.replicas) {
        // News comes many times a second; what is waited for does not.
        Ok(Outcome::Again(pause))
    } else {
        let step = shrink::Step { context, target, workload, claimants: &scene.claimants, all: &all };
        let done = Box::pin(step.take(entry, total)).await;
        rested(entry, total, done)
    };
    if let Some(text) = entry.unsaid() {
        judge::unsaid(&mut all, text);
    } else if let Some(text) = &entry.refusal {
        judge::refuse(&mut all, text);
    }
    tell::show(context, target, entry, (&scene.claimants, &all), Some(total));
    Ok(sooner(outcome?, again(&all)))
}

/// Remembers for how long there is nothing more to do.
fn rested(entry: &mut Entry, total: u32, done: Result<Outcome, ApiError>) -> Result<Outcome, ApiError> {
    let pause = match &done {
        Ok(Outcome::Again(pause)) => *pause,
        Ok(_) => {
            entry.refusal = None;
            return done;
        }
        Err(ApiError::Refused(_)) => REFUSED,
        Err(_) => FAILED,
    };
    entry.rest(total, pause);
    match done {
        Err(ApiError::Refused(text)) => {
            entry.refusal = Some(text);
            Ok(Outcome::Again(REFUSED))
        }
        done => done,
    }
}

fn again(all: &[Judgement]) -> Outcome {
    let again = all.iter().filter_map(|one| one.again).min().unwrap_or(RESYNC);
    // Jitter makes it up to a fifth earlier, or later.
    Outcome::Again(again.mul_f64(1.25).clamp(Duration::from_millis(100), RESYNC))
}

fn sooner(one: Outcome, other: Outcome) -> Outcome {
    match (one, other) {
        (Outcome::Again(one), Outcome::Again(other)) => Outcome::Again(one.min(other)),
        (Outcome::Done, other) => other,
        (one, _) => one,
    }
}

/// Whether a Consumer consumes its Queue.
fn is_accepted(claimant: &Claimant) -> bool {
    claimant.resolved.finding == ConsumerFinding::Accepted
}

/// A Broker says something new of Queues: whoever scales by them is looked at, and whose status shows their calls.
pub(crate) fn news(context: &Context, broker: &Key, queues: &[Key]) {
    let queues: BTreeSet<&Key> = queues.iter().collect();
    let namespaces: BTreeSet<&str> = queues.iter().map(|queue| queue.namespace.as_str()).collect();
    for namespace in namespaces {
        let consumers = context.world.read().consumers.of(namespace);
        for consumer in consumers {
            let Some(target) = &consumer.spec.target_ref else { continue };
            let queue = Key::new(namespace, &consumer.spec.queue_ref.name);
            if !queues.contains(&queue) {
                continue;
            }
            let target = (namespace.to_owned(), target.workload());
            if let Some(pause) = workload::when_calls_are_news(context, &consumer, broker, &queue)
                && !context.queue.comes_within(&unit(&target), pause)
                && context.count_writes.try_take()
            {
                context.queue.add_after(unit(&target), pause);
            }
            if scales(&consumer) {
                context.scaling.add(target);
            }
        }
    }
}

/// The unit that writes what is shown of a workload's Consumers.
fn unit((namespace, reference): &Target) -> Unit {
    Unit::Workload(namespace.clone(), reference.clone())
}
