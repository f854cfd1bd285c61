//! What is shown of scaling: conditions and counts by the status of Consumers, decisions by Events.

use capstan_crds::Key;
use capstan_crds::condition::reason;
use capstan_inject::Claimant;
use kube::Resource;
use tracing::info;

use super::judge::Judgement;
use super::scales::{Entry, Shown};
use super::{Target, unit};
use crate::context::Context;

/// Shows what was found, and has the status written when that is news. Numbers alone are none: they change all the time.
pub(super) fn show(
    context: &Context,
    target: &Target,
    entry: &mut Entry,
    (claimants, all): (&[Claimant], &[Judgement]),
    total: Option<u32>,
) {
    let keys = claimants.iter().map(|claimant| Key::of(claimant.consumer.meta())).collect();
    let before = std::mem::replace(&mut entry.shown, keys);
    before.difference(&entry.shown).for_each(|gone| drop(context.scales.show(gone.clone(), target, None)));
    let mut is_news = false;
    for (claimant, judgement) in claimants.iter().zip(all) {
        let consumer = Key::of(claimant.consumer.meta());
        let shown = judgement
            .verdict
            .clone()
            .map(|verdict| Shown { verdict, target: total.filter(|_| judgement.is_free) });
        let (old, new) = (context.scales.show(consumer, target, shown.clone()), shown);
        is_news |= essence(old.as_ref()) != essence(new.as_ref());
    }
    if is_news {
        context.queue.add(unit(target));
    }
}

/// What makes a status worth a write.
fn essence(shown: Option<&Shown>) -> Option<(&'static str, Option<u32>)> {
    shown.map(|shown| (shown.verdict.reason, shown.target))
}

/// Nothing is shown any more.
pub(super) fn forget(context: &Context, target: &Target, entry: &mut Entry) {
    let mut is_news = false;
    for consumer in std::mem::take(&mut entry.shown) {
        is_news |= context.scales.show(consumer, target, None).is_some();
    }
    if is_news {
        context.queue.add(unit(target));
    }
}

/// Tells of a decision that was carried out.
pub(super) fn decided(
    context: &Context,
    (namespace, workload): &Target,
    claimants: &[Claimant],
    all: &[Judgement],
    (from, to): (u32, u32),
) {
    let reason = if to > from { reason::SCALED_UP } else { reason::SCALED_DOWN };
    let is_decider = |one: &Judgement| one.decision.as_ref().is_some_and(|decision| decision.desired == to);
    // The number may be that of one which does not scale, or is held.
    let has_decider = all.iter().any(is_decider);
    for (claimant, judgement) in claimants.iter().zip(all) {
        let Some(decision) = judgement.decision.as_ref().filter(|_| !has_decider || is_decider(judgement))
        else {
            continue;
        };
        let why = &judgement.why;
        info!(namespace, %workload, from, to, why, "scaled");
        // Events of one action are counted as one, whatever their notes say.
        let action = format!("ScaleFrom{from}To{to}For{}", decision.demand.total());
        let note = format!("{workload}: from {from} to {to} pods: {why}");
        context.events.tell(&claimant.consumer.object_ref(&()), &action, reason, &note);
    }
}
