//! Bringing a number of pods about. When there are to be fewer: first the broker leases nothing more to those that are chosen to
//! go, then, when they are idle or have had time for it, they are marked and the number falls.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use capstan_api::ClientError;
use capstan_api::control::{Pods, RETIRING_PODS_MAX, Retiring};
use capstan_api::workload::WorkloadKind;
use capstan_crds::Key;
use capstan_inject::Claimant;
use capstan_scaling::patience;
use tokio::time::Instant;
use tokio::time::error::Elapsed;
use tracing::{debug, info, warn};

use super::choose::choose;
use super::judge::Judgement;
use super::pods::{self, Pod};
use super::scales::Entry;
use super::{Target, replicas, tell};
use crate::api::ApiError;
use crate::context::Context;
use crate::work::Outcome;
use crate::world::Workload;

/// How often is looked whether they are idle: at first, and when that takes long.
const LOOK: Duration = Duration::from_millis(500);
const LOOK_LATER: Duration = Duration::from_secs(5);
/// How long the broker keeps to it when nobody says it again.
const RETIRES: Duration = Duration::from_secs(20);
/// Pods that go at once.
const AT_ONCE: u32 = RETIRING_PODS_MAX as u32;
/// How long a Deployment's controller may take to remove pods.
const REMOVES: Duration = Duration::from_secs(15);
/// How long the broker may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a rollout may take before pods are chosen in the middle of it.
const ROLLOUT: Duration = Duration::from_secs(600);
/// How often is looked whether a rollout is over.
const ROLLOUT_LOOK: Duration = Duration::from_secs(5);

/// Pods that are on their way out.
#[derive(Debug)]
pub(super) struct Retirement {
    broker: Key,
    pods: BTreeSet<String>,
    /// Since when these pods are.
    since: Instant,
    /// Since when some are.
    begun: Instant,
    /// When the broker was told last.
    told: Instant,
    /// Some have a deletion cost.
    is_marked: bool,
    /// The costs that pods had before, of somebody's own.
    costs: BTreeMap<String, i32>,
    /// Since when the number of pods has fallen.
    fell: Option<Instant>,
}

impl Retirement {
    /// Whether pods that are still there may be on their way out.
    fn is_going(&self, kind: WorkloadKind) -> bool {
        self.fell.is_some_and(|fell| match kind {
            // Those that end are no part of its count: what stays belongs to a rollout, and is to work.
            WorkloadKind::Deployment => fell.elapsed() < REMOVES,
            WorkloadKind::StatefulSet => true,
        })
    }
}

/// What is done in one look.
pub(super) struct Step<'a> {
    pub(super) context: &'a Context,
    pub(super) target: &'a Target,
    pub(super) workload: &'a Workload,
    pub(super) claimants: &'a [Claimant],
    pub(super) all: &'a [Judgement],
}

/// What a broker says of the pods that are chosen to go.
enum Said {
    Pods(Pods),
    /// It is of an older version, and leases to whoever asks.
    Nothing,
}

impl Step<'_> {
    /// Goes towards `total` pods.
    pub(super) async fn take(&self, entry: &mut Entry, total: u32) -> Result<Outcome, ApiError> {
        let Self { context, target, workload, .. } = self;
        if total >= workload.replicas {
            entry.rolls_since = None;
            let is_going = entry.retirement.as_ref().is_some_and(|one| one.is_going(target.1.kind));
            let is_going = is_going && workload.current > workload.replicas;
            if is_going && total == workload.replicas {
                return tell_again(context, target, entry).await;
            }
            // A broker that hangs must not hold up those that are needed.
            let done = if total > workload.replicas { self.set(entry, total).await } else { Ok(()) };
            match done {
                Ok(()) => self.settle(entry).await?,
                // They may go on working, unless they are on their way out.
                Err(ApiError::Refused(_)) if !is_going => self.settle_anyway(entry).await,
                Err(_) => {}
            }
            return done.map(|()| Outcome::Done);
        }
        self.shrink(entry, total).await
    }

    async fn shrink(&self, entry: &mut Entry, total: u32) -> Result<Outcome, ApiError> {
        let Self { context, target, workload, .. } = self;
        // Where pods are replaced only when somebody asks for it, old ones may stay for ever.
        let is_rolling =
            workload.replaces_pods && (!workload.is_observed || workload.updated < workload.current);
        if !is_rolling {
            entry.rolls_since = None;
        } else if total > 0 && entry.rolls_since.get_or_insert_with(Instant::now).elapsed() < ROLLOUT {
            debug!(namespace = target.0, workload = %target.1, "fewer pods when the rollout is over");
            return Ok(Outcome::Again(ROLLOUT_LOOK));
        }
        let there = pods::list(context, &target.1, workload).await?;
        // The broker takes no more at once: the rest goes when these are gone.
        let there_are = u32::try_from(there.len()).unwrap_or(u32::MAX).max(workload.replicas);
        let total = total.max(there_are.saturating_sub(AT_ONCE));
        if total >= workload.replicas {
            return tell_again(context, target, entry).await;
        }
        let count = match target.1.kind {
            WorkloadKind::Deployment => {
                there.len().saturating_sub(usize::try_from(total).unwrap_or(usize::MAX))
            }
            // By their numbers, also where one is missing.
            WorkloadKind::StatefulSet => {
                let end = workload.first_ordinal.saturating_add(total);
                there.iter().filter(|pod| pod.ordinal.is_some_and(|ordinal| ordinal >= end)).count()
            }
        };
        let count = count.min(RETIRING_PODS_MAX);
        if count > 0 && !self.retire(entry, &there, count).await? {
            let since = entry.retirement.as_ref().map_or(Duration::ZERO, |one| one.begun.elapsed());
            return Ok(Outcome::Again(if since < patience::LEAST { LOOK } else { LOOK_LATER }));
        }
        // All that there are need no order.
        let is_ordered = target.1.kind == WorkloadKind::Deployment && total > 0 && count > 0;
        let done = match if is_ordered { self.mark(entry, &there).await } else { Ok(()) } {
            Ok(()) => self.set(entry, total).await,
            refused => refused,
        };
        // A policy may have let a part of them go.
        let has_fallen = entry.number().is_some_and(|number| number < workload.replicas);
        match done {
            Err(ApiError::Refused(_)) if !has_fallen => self.settle_anyway(entry).await,
            Ok(()) | Err(ApiError::Refused(_)) => {
                if let Some(retirement) = &mut entry.retirement {
                    retirement.fell = Some(Instant::now());
                }
            }
            Err(_) => {}
        }
        done.map(|()| Outcome::Again(ROLLOUT_LOOK))
    }

    /// Marks those that are chosen, for a ReplicaSet to take them first.
    async fn mark(&self, entry: &mut Entry, there: &[Pod]) -> Result<(), ApiError> {
        let Some(retirement) = &mut entry.retirement else { return Ok(()) };
        retirement.is_marked = true;
        retirement.costs.extend(there.iter().filter_map(|pod| Some((pod.name.clone(), pod.cost?))));
        pods::mark(self.context, &self.target.0, &unmarked(there, &retirement.pods)).await
    }

    /// Nobody is to go any more.
    async fn settle(&self, entry: &mut Entry) -> Result<(), ApiError> {
        let Self { context, target, workload, .. } = self;
        // Marks that an operator before this one has left are looked for once.
        if target.1.kind == WorkloadKind::Deployment && workload.replicas > 0 && !entry.is_looked_through {
            unmark(context, target, workload, entry).await?;
            entry.is_looked_through = true;
        }
        leave(context, target, Some(workload), entry).await
    }

    /// The same after a refusal, which is what is to be told.
    async fn settle_anyway(&self, entry: &mut Entry) {
        if let Err(error) = self.settle(entry).await {
            warn!(namespace = self.target.0, workload = %self.target.1, %error, "marks of pods that stay were not taken back");
        }
    }

    async fn set(&self, entry: &mut Entry, total: u32) -> Result<(), ApiError> {
        let Self { context, target, workload, claimants, all } = self;
        entry.set(total, None);
        match replicas::set(context, &target.1, workload, total).await {
            Ok(written) => {
                entry.set(written.replicas, written.version);
                if written.replicas != workload.replicas {
                    tell::decided(context, target, claimants, all, (workload.replicas, written.replicas));
                }
                if written.replicas != total {
                    let text = format!("a policy or webhook makes {} pods of {total}", written.replicas);
                    return Err(ApiError::Refused(text));
                }
                entry.refusal = None;
            }
            // Whether it was taken is not known.
            Err(error @ ApiError::Unavailable(_)) => return Err(error),
            Err(error) => {
                entry.unset();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Has the broker lease nothing more to `count` pods; whether these may go now.
    async fn retire(&self, entry: &mut Entry, there: &[Pod], count: usize) -> Result<bool, ApiError> {
        let Self { context, target, .. } = self;
        let Some(broker) = capstan_inject::broker(self.claimants).cloned() else { return Ok(true) };
        let before = entry.retirement.as_ref();
        let idle_first = before.is_some_and(|one| one.since.elapsed() >= patience::CHOSEN_FIRMLY);
        let chosen = before.map(|one| one.pods.clone()).unwrap_or_default();
        let asked = ask(context, &broker, target).await;
        if let Err(error) = &asked {
            entry.said(Some(error.to_string()));
        }
        let known = match asked? {
            Said::Pods(pods) => pods,
            Said::Nothing => return Ok(true),
        };
        let pods = choose(target.1.kind, there, &leased(&known), &chosen, (count, idle_first));
        let now = Instant::now();
        let retirement = entry.retirement.get_or_insert_with(|| Retirement {
            broker: broker.clone(),
            pods: BTreeSet::new(),
            since: now,
            begun: now,
            told: now,
            is_marked: false,
            costs: BTreeMap::new(),
            fell: None,
        });
        // What is over, or was given up by the broker meanwhile, begins anew.
        if retirement.fell.take().is_some() || retirement.told.elapsed() > RETIRES {
            (retirement.since, retirement.begun) = (now, now);
        }
        if retirement.pods != pods {
            info!(namespace = target.0, workload = %target.1, pods = ?pods, "chosen to go: they are leased nothing more");
            retirement.since = now;
            retirement.pods.clone_from(&pods);
        }
        retirement.told = Instant::now();
        let told = tell_broker(context, &broker, target, pods.iter().cloned().collect()).await;
        let (since, begun) = (retirement.since, retirement.begun);
        entry.said(told.as_ref().err().map(ToString::to_string));
        let said = match told? {
            Said::Pods(pods) => pods,
            Said::Nothing => return Ok(true),
        };
        let leased = leased(&said);
        let busy = pods.iter().filter(|pod| leased.get(*pod).is_some_and(|messages| *messages > 0)).count();
        // Whose those are is not known: perhaps theirs.
        let is_idle = busy == 0 && said.leased_elsewhere == 0;
        let has_waited = patience::is_over(longest_call(self.claimants), since.elapsed(), begun.elapsed());
        Ok(is_idle || has_waited)
    }
}

/// How long the calls of the workload's Consumers may take.
fn longest_call(claimants: &[Claimant]) -> Duration {
    let timeout = |claimant: &Claimant| claimant.consumer.spec.endpoint.timeout.get();
    claimants.iter().map(timeout).max().unwrap_or_default()
}

fn unmarked(there: &[Pod], chosen: &BTreeSet<String>) -> Vec<String> {
    let unmarked = there.iter().filter(|pod| !pod.is_marked && chosen.contains(&pod.name));
    unmarked.map(|pod| pod.name.clone()).collect()
}

fn leased(pods: &Pods) -> BTreeMap<String, u64> {
    pods.pods.iter().map(|pod| (pod.name.clone(), pod.leased)).collect()
}

async fn ask(context: &Context, broker: &Key, (namespace, workload): &Target) -> Result<Said, ApiError> {
    let client = context.control(broker).map_err(unheard)?;
    said(tokio::time::timeout(ANSWER, client.pods(namespace, workload)).await)
}

async fn tell_broker(
    context: &Context,
    broker: &Key,
    (namespace, workload): &Target,
    pods: Vec<String>,
) -> Result<Said, ApiError> {
    let client = context.control(broker).map_err(unheard)?;
    let for_ms = u64::try_from(RETIRES.as_millis()).unwrap_or(u64::MAX);
    said(tokio::time::timeout(ANSWER, client.retire(namespace, workload, &Retiring { pods, for_ms })).await)
}

fn said(answer: Result<Result<Pods, ClientError>, Elapsed>) -> Result<Said, ApiError> {
    match answer {
        Ok(Ok(pods)) => Ok(Said::Pods(pods)),
        Ok(Err(error)) if error.is_no_route() => Ok(Said::Nothing),
        Ok(Err(error)) => Err(unheard(error)),
        Err(_) => Err(unheard(format!("no answer within {} s", ANSWER.as_secs()))),
    }
}

fn unheard(error: impl std::fmt::Display) -> ApiError {
    ApiError::Unavailable(format!("the broker: {error}"))
}

/// Nobody is to go any more: pods have the deletion cost that they had before, and the broker leases to all of them again.
///
/// # Errors
/// The API server does not take the costs back.
pub(super) async fn leave(
    context: &Context,
    target: &Target,
    workload: Option<&Workload>,
    entry: &mut Entry,
) -> Result<(), ApiError> {
    let has_marked = entry.retirement.as_ref().is_some_and(|one| one.is_marked);
    if let Some(workload) = workload.filter(|_| has_marked) {
        match unmark(context, target, workload, entry).await {
            // To ask again would help nobody.
            Err(ApiError::Refused(text)) => {
                warn!(namespace = target.0, workload = %target.1, text, "marks of pods that stay were not taken back");
            }
            other => other?,
        }
    }
    entry.said(None);
    give_up(context, target, entry);
    Ok(())
}

/// Whoever was marked and stayed, as Kubernetes took another one, is not to go first the next time.
async fn unmark(
    context: &Context,
    target: &Target,
    workload: &Workload,
    entry: &Entry,
) -> Result<(), ApiError> {
    let there = pods::list(context, &target.1, workload).await?;
    let costs = entry.retirement.as_ref().map(|one| &one.costs);
    let before = |pod: Pod| {
        let cost = costs.and_then(|costs| costs.get(&pod.name)).copied();
        (pod.name, cost)
    };
    let marked: Vec<_> = there.into_iter().filter(|pod| pod.is_marked).map(before).collect();
    pods::unmark(context, &target.0, &marked).await
}

/// Those that are on their way out go on retiring: of a StatefulSet the next ones have their names.
async fn tell_again(context: &Context, target: &Target, entry: &mut Entry) -> Result<Outcome, ApiError> {
    if let Some(retirement) = &mut entry.retirement {
        retirement.told = Instant::now();
        let pods = retirement.pods.iter().cloned().collect();
        tell_broker(context, &retirement.broker, target, pods).await?;
    }
    Ok(Outcome::Again(ROLLOUT_LOOK))
}

/// The broker leases to all pods again. It is not waited for; if it does not hear it, it forgets soon.
fn give_up(context: &Context, (namespace, workload): &Target, entry: &mut Entry) {
    let Some(retirement) = entry.retirement.take() else { return };
    let Ok(client) = context.control(&retirement.broker) else { return };
    let (namespace, workload) = (namespace.clone(), workload.clone());
    tokio::spawn(async move {
        let nobody = Retiring::default();
        match tokio::time::timeout(ANSWER, client.retire(&namespace, &workload, &nobody)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => info!(namespace, %workload, %error, "the broker was not told that no pod goes"),
            Err(_) => {
                info!(namespace, %workload, "the broker was not told that no pod goes: it does not answer");
            }
        }
    });
}
