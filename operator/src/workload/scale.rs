//! What a Consumer's status shows of its scaling. Pure.

use capstan_crds::Consumer;
use capstan_crds::condition::{SCALING_ACTIVE, reason};

use super::status::Said;
use crate::condition::{Conditions, Verdict, find};
use crate::scaling::Shown;

/// The number of pods that there is to be; the one shown before while nobody has looked.
pub(super) fn target_of(consumer: &Consumer, said: &Said) -> Option<u32> {
    consumer.spec.scaling.as_ref()?;
    let old = consumer.status.as_ref().and_then(|status| status.replicas.as_ref());
    said.scale.as_ref().map_or_else(|| old.and_then(|old| old.target), |scale| scale.target)
}

/// Why `scaling` is not in force, because of somebody else. What only holds it, and passes, is no part of being ready.
pub(super) fn not_scaled(scale: &Shown) -> Option<&Verdict> {
    const WHY: [&str; 4] = [
        reason::OTHER_AUTOSCALER,
        reason::REPLICAS_CONTESTED,
        reason::SCALING_DISABLED,
        reason::SCALING_REFUSED,
    ];
    Some(&scale.verdict).filter(|verdict| !verdict.holds && WHY.contains(&verdict.reason))
}

/// Adds whether the number of pods follows the demand.
pub(super) fn scaling<'a>(
    conditions: Conditions<'a>,
    consumer: &'a Consumer,
    target: &Verdict,
    scale: Option<&Shown>,
) -> Conditions<'a> {
    if consumer.spec.scaling.is_none() {
        return conditions;
    }
    if target.reason == reason::TARGET_NOT_FOUND {
        return conditions.set(SCALING_ACTIVE, target);
    }
    let old = consumer.status.as_ref().and_then(|status| find(&status.conditions, SCALING_ACTIVE));
    match scale {
        Some(scale) => conditions.set(SCALING_ACTIVE, &scale.verdict),
        None if old.is_some() => conditions.keep(old),
        None => conditions.set_unknown(SCALING_ACTIVE, reason::PENDING, "nothing was decided yet"),
    }
}
