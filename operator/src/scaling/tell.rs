//! What is shown of scaling: conditions and counts by the status of Consumers, decisions by Events.

use capstan_crds::Key;
use capstan_crds::condition::reason;
use capstan_inject::Claimant;
use kube::Resource;
use tracing::info;

use super::judge::{Judgement, reckoning};
use super::scales::Shown;
use super::{Target, unit};
use crate::context::Context;

/// Shows what was found, and has the status written when that is news. Numbers alone are none: they change all the time.
pub(super) fn show(
    context: &Context,
    target: &Target,
    claimants: &[Claimant],
    all: &[Judgement],
    total: Option<u32>,
) {
    let mut is_news = false;
    for (claimant, judgement) in claimants.iter().zip(all) {
        let consumer = Key::of(claimant.consumer.meta());
        let shown = judgement.verdict.clone().map(|verdict| Shown {
            verdict: Some(verdict),
            target: total.filter(|_| judgement.is_free),
            numbers: judgement.numbers.clone(),
        });
        let (old, new) = (context.scales.show(consumer, shown.clone()), shown);
        is_news |= essence(old.as_ref()) != essence(new.as_ref());
    }
    if is_news {
        context.queue.add(unit(target));
    }
}

/// What makes a status worth a write.
fn essence(shown: Option<&Shown>) -> Option<(&'static str, Option<u32>)> {
    shown.map(|shown| (shown.verdict.as_ref().map_or("", |verdict| verdict.reason), shown.target))
}

/// Nothing is shown any more.
pub(super) fn forget(context: &Context, target: &Target, claimants: &[Claimant]) {
    let shows = |claimant: &Claimant| context.scales.show(Key::of(claimant.consumer.meta()), None).is_some();
    // Each of them.
    if claimants.iter().filter(|claimant| shows(claimant)).count() > 0 {
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
    for (claimant, judgement) in claimants.iter().zip(all) {
        let Some(decision) = &judgement.decision else { continue };
        let why = reckoning(decision, judgement.backlog_per_replica);
        info!(namespace, %workload, from, to, why, "scaled");
        // Events of one action are counted as one, whatever their notes say.
        let action = format!("ScaleFrom{from}To{to}For{}", decision.demand.total());
        let note = format!("{workload}: from {from} to {to} pods: {why}");
        context.events.tell(&claimant.consumer.object_ref(&()), &action, reason, &note);
    }
}
