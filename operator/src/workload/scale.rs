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
/// Before anybody has looked, as the status shows.
pub(super) fn not_scaled(consumer: &Consumer, scale: Option<&Shown>) -> Option<Verdict> {
    const WHY: [&str; 4] = [
        reason::OTHER_AUTOSCALER,
        reason::REPLICAS_CONTESTED,
        reason::SCALING_DISABLED,
        reason::SCALING_REFUSED,
    ];
    consumer.spec.scaling.as_ref()?;
    if let Some(scale) = scale {
        return Some(&scale.verdict).filter(|one| !one.holds && WHY.contains(&one.reason)).cloned();
    }
    let old = find(&consumer.status.as_ref()?.conditions, SCALING_ACTIVE)?;
    let why = WHY.into_iter().find(|why| old.status == "False" && old.reason == *why)?;
    Some(Verdict::no(why, old.message.clone()))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(scaling: &str, reason: &str) -> Consumer {
        serde_yaml::from_str(&format!(
            "{{apiVersion: capstan.dev/v1alpha1, kind: Consumer, metadata: {{name: a}}, spec: {{queueRef: {{name: a}}{scaling}}}, status: {{conditions: \
             [{{type: ScalingActive, status: 'False', reason: {reason}, message: because, lastTransitionTime: '2026-01-01T00:00:00Z'}}]}}}}"
        ))
        .unwrap()
    }

    #[test]
    fn who_else_scales_keeps_it_from_being_ready_and_what_passes_does_not() {
        const SCALING: &str = ", scaling: {maxReplicas: 2}";
        let contested = consumer(SCALING, reason::REPLICAS_CONTESTED);
        let before = not_scaled(&contested, None).unwrap();
        assert_eq!(
            (before.holds, before.reason),
            (false, reason::REPLICAS_CONTESTED),
            "until somebody looks"
        );
        let shown = |verdict| Shown { verdict, target: None };
        let follows = shown(Verdict::yes(reason::FOLLOWS_DEMAND, ""));
        assert_eq!(not_scaled(&contested, Some(&follows)), None);
        let held = shown(Verdict::no(reason::BROKER_UNAVAILABLE, ""));
        assert_eq!(not_scaled(&contested, Some(&held)), None);
        let other = shown(Verdict::no(reason::OTHER_AUTOSCALER, ""));
        assert_eq!(not_scaled(&contested, Some(&other)).unwrap().reason, reason::OTHER_AUTOSCALER);
        assert_eq!(not_scaled(&consumer(SCALING, reason::CALLS_FAILING), None), None);
        assert_eq!(not_scaled(&consumer("", reason::REPLICAS_CONTESTED), None), None);
    }
}
