//! What one Consumer says of the number of its target's pods, and why. Pure.

use std::time::Duration;

use capstan_api::control::ApplicationState;
use capstan_crds::condition::{Verdict, reason};
use capstan_crds::{ConsumerFinding, Key};
use capstan_inject::Claimant;
use capstan_scaling::{Decision, Demand, Limit, Rule, Vote};

use super::scales::Entry;
use super::{HELD, is_accepted};
use crate::demand::{Heard, Numbers};
use crate::world::Workload;

/// How often is looked whether somebody else still sets the number of pods: not all of that is watched.
const SILENCED: Duration = Duration::from_secs(60);

/// What is known of a Consumer.
pub(super) struct Look<'a> {
    pub(super) claimant: &'a Claimant,
    /// The Broker that the workload's sidecars talk to.
    pub(super) broker: Option<&'a Key>,
    pub(super) workload: &'a Workload,
    /// The operator may set numbers of pods at all.
    pub(super) is_enabled: bool,
    /// Who else sets the number of pods.
    pub(super) rival: Option<&'a str>,
    /// Absent while it is not known which broker to ask.
    pub(super) heard: Option<Heard>,
    pub(super) is_paused: bool,
}

/// What is said of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judgement {
    /// None: it has no say.
    pub(super) vote: Option<Vote>,
    /// Whether it may be followed: a workload is left alone while none of its Consumers is free.
    pub(super) is_free: bool,
    /// None for a Consumer that does not scale.
    pub(super) verdict: Option<Verdict>,
    pub(super) decision: Option<Decision>,
    /// The same in numbers.
    pub(super) why: String,
    /// When to look again.
    pub(super) again: Option<Duration>,
}

/// Judges one Consumer at time `now`.
pub(super) fn judge(look: &Look<'_>, entry: &mut Entry, now: Duration) -> Judgement {
    let consumer = &look.claimant.consumer;
    let base = Judgement {
        vote: None,
        is_free: false,
        verdict: None,
        decision: None,
        why: String::new(),
        again: None,
    };
    let Some(scaling) = &consumer.spec.scaling else {
        let is_served = is_accepted(look.claimant) && !is_elsewhere(look);
        return Judgement { vote: is_served.then_some(Vote::Some), ..base };
    };
    let key = consumer.metadata.uid.clone().unwrap_or_default();
    let gone = entry.gone(&key, claimant_waits(look), now);
    if let Some(verdict) = silenced(look) {
        entry.forget(&key);
        // What is not known yet may need its pods: a Queue that is made anew, above all. One that stays away does not.
        let is_away = claimant_waits(look) && gone < scaling.idle_period.get();
        let again =
            is_away.then(|| scaling.idle_period.get() - gone).map_or(SILENCED, |left| left.min(SILENCED));
        let vote = is_away.then_some(Vote::Hold);
        return Judgement { verdict: Some(verdict), vote, again: Some(again), ..base };
    }
    let rule = Rule {
        min: scaling.min_replicas,
        max: scaling.max_replicas,
        backlog_per_replica: scaling.backlog_per_replica,
        max_oldest_age: scaling.max_oldest_age.as_ref().map(capstan_crds::Duration::get),
        scale_down_stabilization: scaling.scale_down_stabilization.get(),
        idle_period: scaling.idle_period.get(),
    };
    let base = Judgement { is_free: true, ..base };
    let numbers = match seen(look) {
        Ok(numbers) => numbers,
        Err(held) => {
            // What was wanted meanwhile is not known.
            entry.forget(&key);
            return Judgement { vote: Some(Vote::Hold), verdict: Some(held), again: Some(HELD), ..base };
        }
    };
    let mut decision =
        entry.memory(&key).decide(&rule, numbers.to_do(look.is_paused), look.workload.replicas, now);
    if look.workload.replicas == 0 && failure(look, numbers).is_some() {
        // Somebody has to begin, and no more until it succeeds.
        decision.desired = decision.desired.min(rule.min.max(1));
    }
    let why = reckoning(&decision, &rule);
    let verdict = Some(following(&decision, (&why, look.is_paused)));
    let (vote, again) = (Some(Vote::Pods(decision.desired)), decision.again);
    Judgement { vote, verdict, again, why, decision: Some(decision), ..base }
}

/// Whether no pod of the workload will ever have anything of the Consumer's Queue.
fn is_elsewhere(look: &Look<'_>) -> bool {
    look.broker.zip(look.claimant.resolved.broker.as_ref()).is_some_and(|(talks_to, own)| talks_to != own)
}

/// Whether a Consumer's Queue is not there, for now.
fn claimant_waits(look: &Look<'_>) -> bool {
    look.is_enabled
        && look.rival.is_none()
        && look.claimant.resolved.finding == ConsumerFinding::QueueNotFound
}

/// Why a Consumer has no say at all.
fn silenced(look: &Look<'_>) -> Option<Verdict> {
    let Look { claimant, workload, rival, .. } = look;
    if !look.is_enabled {
        let text = "Capstan was installed with scaling.enabled: false and leaves the number of pods alone: set it by KEDA or an HPA, \
                    remove scaling, or have the chart changed";
        return Some(Verdict::no(reason::SCALING_DISABLED, text));
    }
    if !is_accepted(claimant) {
        let text = "this Consumer does not have the Queue: see its condition Accepted";
        return Some(Verdict::no(reason::PENDING, text));
    }
    if is_elsewhere(look) {
        let text = "the workload's sidecars talk to another Broker than that of this Consumer's Queue: see its condition TargetResolved";
        return Some(Verdict::no(reason::BROKER_MISMATCH, text));
    }
    if let Some(owner) = &workload.controller {
        let text =
            format!("{owner} owns the workload and sets its number of pods: scale that, or remove scaling");
        return Some(Verdict::no(reason::TARGET_CONTROLLED, text));
    }
    let rival = rival.as_ref()?;
    Some(Verdict::no(
        reason::OTHER_AUTOSCALER,
        format!(
            "{rival} sets the number of this workload's pods too: delete it, or remove scaling from the Consumers of the \
             workload"
        ),
    ))
}

/// The numbers to decide by, or why the number of pods stays as it is.
fn seen<'a>(look: &'a Look<'_>) -> Result<&'a Numbers, Verdict> {
    let numbers = match &look.heard {
        Some(Heard::Seen(numbers)) => numbers,
        Some(Heard::Unheard) | None => {
            let text = "the broker does not say what there is to do: the number of pods stays as it is until it does; see the \
                        condition Available of the Broker";
            return Err(Verdict::no(reason::BROKER_UNAVAILABLE, text));
        }
        Some(Heard::Unknown) => {
            let text = "the broker does not know the Queue yet: the number of pods stays as it is";
            return Err(Verdict::no(reason::NOT_DECLARED, text));
        }
    };
    match failure(look, numbers) {
        // Where nobody calls, somebody has to begin.
        Some(verdict) if look.workload.replicas > 0 => Err(verdict),
        _ => Ok(numbers),
    }
}

/// Why more pods would not help, and fewer would hide it.
fn failure(look: &Look<'_>, numbers: &Numbers) -> Option<Verdict> {
    // Whoever pauses because of it wants it to end.
    if look.is_paused {
        return None;
    }
    if let Some(application) = numbers.application.as_ref().filter(|one| takes_nothing(one, look.claimant)) {
        let pods = application.unreachable + application.reachable;
        let text = format!(
            "in {} of {pods} pods the application takes no batches: the number of pods stays as it is; see the condition \
             AppReachable",
            application.unreachable
        );
        return Some(Verdict::no(reason::UNREACHABLE, text));
    }
    if numbers.are_failing {
        let text = "more than half of the deliveries of the last minute failed: the number of pods stays as it is until they \
                    succeed; look at the application's log, and at the broker's metrics of retries";
        return Some(Verdict::no(reason::CALLS_FAILING, text));
    }
    None
}

/// Whether the application takes nothing in more than half of the pods: there more pods would not help.
fn takes_nothing(application: &ApplicationState, claimant: &Claimant) -> bool {
    use kube::ResourceExt;
    application.consumer.as_str() == claimant.consumer.name_any()
        && application.unreachable > application.reachable
}

fn following(decision: &Decision, (why, is_paused): (&str, bool)) -> Verdict {
    let pause = if is_paused { " (delivery is paused)" } else { "" };
    if decision.limit == Some(Limit::Max) && decision.desired >= decision.wanted {
        let text = format!("{why}: raise it if messages wait for too long");
        return Verdict::yes(reason::AT_MAX_REPLICAS, text);
    }
    Verdict::yes(reason::FOLLOWS_DEMAND, format!("{why}{pause}"))
}

/// A decision in numbers.
fn reckoning(decision: &Decision, rule: &Rule) -> String {
    let Decision { demand, pods, wanted, desired, limit, steps, .. } = decision;
    let Demand { ready, leased, due, .. } = demand;
    let late = match steps {
        0 => String::new(),
        steps => format!(", {steps} of them because a message waits for longer than maxOldestAge"),
    };
    let bound = match limit {
        _ if desired < wanted => format!("; {desired} until a call succeeds"),
        _ if desired > wanted => "; more were wanted within scaleDownStabilization".to_owned(),
        Some(Limit::Min) => format!("; minReplicas is {}", rule.min),
        Some(Limit::Max) => format!("; maxReplicas is {}", rule.max),
        None if *pods == 0 && *desired > 0 => "; the last pod stays for idlePeriod".to_owned(),
        None => String::new(),
    };
    format!(
        "{} messages ({ready} ready, {leased} leased, {due} due soon), {} for each pod: {pods} wanted{late}{bound}",
        demand.total(),
        rule.backlog_per_replica
    )
}

/// Adds to what each says why there are more pods than it wants: because of others of the same workload.
pub(super) fn compare(all: &mut [Judgement], names: &[String], (current, total): (u32, u32)) {
    let others: Vec<String> = all
        .iter()
        .zip(names)
        .filter_map(|(one, name)| match one.vote? {
            Vote::Pods(pods) => (pods >= total).then(|| name.clone()),
            Vote::Some => (total == 1).then(|| format!("{name}, which does not scale")),
            Vote::Hold => (total == current).then(|| format!("{name}, which is held")),
        })
        .collect();
    for one in all {
        let wants_fewer = matches!(one.vote, Some(Vote::Pods(pods)) if pods < total);
        if let Some(verdict) = one.verdict.as_mut().filter(|_| wants_fewer && !others.is_empty()) {
            let beside = format!("; {total} because of Consumer {}", others.join(" and "));
            verdict.message += &beside;
            one.why += &beside;
        }
    }
}

/// Someone sets the number of pods back: those that scale say so.
pub(super) fn contest(all: &mut [Judgement]) {
    let text = "somebody set the number of pods back twice within ten minutes: it is left alone for ten minutes; take replicas \
                out of the manifest of the workload, or remove scaling";
    say(all, &Verdict::no(reason::REPLICAS_CONTESTED, text));
}

/// The API server refused the number.
pub(super) fn refuse(all: &mut [Judgement], text: &str) {
    say(
        all,
        &Verdict::no(
            reason::SCALING_REFUSED,
            format!("the API server refused another number of pods: {text}"),
        ),
    );
}

/// The broker does not say which pods are at work.
pub(super) fn unsaid(all: &mut [Judgement], text: &str) {
    let text =
        format!("there are to be fewer pods, and the broker does not say which of them are at work: {text}");
    say(all, &Verdict::no(reason::BROKER_UNAVAILABLE, text));
}

fn say(all: &mut [Judgement], verdict: &Verdict) {
    all.iter_mut().filter(|one| one.is_free).for_each(|one| one.verdict = Some(verdict.clone()));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use capstan_inject::testing::{claimants, workload};
    use serde_json::json;

    use super::*;

    fn claimant(scaling: &str) -> Claimant {
        let mut one = claimants(&[("one", "a", "")]).remove(0);
        let mut consumer = one.consumer.as_ref().clone();
        consumer.spec.scaling = (!scaling.is_empty()).then(|| serde_yaml::from_str(scaling).unwrap());
        one.consumer = Arc::new(consumer);
        one
    }

    fn said_ready(ready: u64) -> Option<Heard> {
        Some(Heard::Seen(Numbers { demand: Demand { ready, ..Demand::default() }, ..Numbers::default() }))
    }

    fn application(reachable: u32, unreachable: u32) -> Option<ApplicationState> {
        let said = json!({"consumer": "one", "reachable": reachable, "unreachable": unreachable});
        Some(serde_json::from_value(said).unwrap())
    }

    fn of(claimant: &Claimant, replicas: u32, heard: Option<Heard>, rival: Option<&str>) -> Judgement {
        let workload = Workload { replicas, ..workload() };
        let broker = claimant.resolved.broker.as_ref();
        let look =
            Look { claimant, broker, workload: &workload, is_enabled: true, rival, heard, is_paused: false };
        judge(&look, &mut Entry::default(), Duration::from_secs(100))
    }

    fn said(judgement: &Judgement) -> (bool, &str, Option<Vote>) {
        let verdict = judgement.verdict.as_ref().unwrap();
        (verdict.holds, verdict.reason, judgement.vote)
    }

    const SCALING: &str = "{maxReplicas: 5, backlogPerReplica: 10}";

    #[test]
    fn what_is_seen_is_followed_within_the_bounds() {
        let one = claimant(SCALING);
        let pods = |pods| Some(Vote::Pods(pods));
        assert_eq!(said(&of(&one, 1, said_ready(35), None)), (true, "FollowsDemand", pods(4)));
        assert_eq!(said(&of(&one, 1, said_ready(500), None)), (true, "AtMaxReplicas", pods(5)));
        assert_eq!(said(&of(&one, 4, said_ready(0), None)), (true, "FollowsDemand", pods(4)), "for a while");
        let text = of(&one, 1, said_ready(35), None).verdict.unwrap().message;
        assert_eq!(text, "35 messages (35 ready, 0 leased, 0 due soon), 10 for each pod: 4 wanted");
    }

    #[test]
    fn what_is_not_seen_is_held() {
        let one = claimant(SCALING);
        let hold = Some(Vote::Hold);
        assert_eq!(said(&of(&one, 3, Some(Heard::Unheard), None)), (false, "BrokerUnavailable", hold));
        assert_eq!(said(&of(&one, 3, None, None)), (false, "BrokerUnavailable", hold));
        assert_eq!(said(&of(&one, 3, Some(Heard::Unknown), None)), (false, "NotDeclared", hold));
        let failing = |are_failing, application| {
            Some(Heard::Seen(Numbers { are_failing, application, ..Numbers::default() }))
        };
        assert_eq!(said(&of(&one, 3, failing(true, None), None)), (false, "CallsFailing", hold));
        assert_eq!(said(&of(&one, 3, failing(false, application(1, 2)), None)), (false, "Unreachable", hold));
        assert!(said(&of(&one, 3, failing(false, application(2, 2)), None)).0, "half of them help");
        assert!(
            said(&of(&one, 0, failing(true, application(0, 2)), None)).0,
            "nobody calls: somebody has to begin"
        );
    }

    #[test]
    fn who_has_no_say_is_not_followed() {
        let mut one = claimant(SCALING);
        assert_eq!(
            said(&of(&one, 3, said_ready(9), Some("HorizontalPodAutoscaler web"))),
            (false, "OtherAutoscaler", None)
        );
        one.resolved.finding = ConsumerFinding::QueueNotFound;
        assert_eq!(said(&of(&one, 3, said_ready(9), None)), (false, "Pending", Some(Vote::Hold)));
        let other = of(&claimant(""), 3, said_ready(9), None);
        assert_eq!((other.vote, other.verdict, other.is_free), (Some(Vote::Some), None, false));
    }

    fn failing() -> Option<Heard> {
        let demand = Demand { ready: 45, ..Demand::default() };
        Some(Heard::Seen(Numbers { demand, are_failing: true, ..Numbers::default() }))
    }

    #[test]
    fn one_that_fails_begins_with_one_pod_and_is_not_held_while_it_is_paused() {
        let one = claimant("{minReplicas: 0, maxReplicas: 5, backlogPerReplica: 10}");
        let begun = of(&one, 0, failing(), None);
        assert_eq!(begun.vote, Some(Vote::Pods(1)));
        assert!(begun.why.ends_with("5 wanted; 1 until a call succeeds"), "{}", begun.why);
        assert_eq!(of(&one, 1, failing(), None).vote, Some(Vote::Hold));
        let workload = Workload { replicas: 3, ..workload() };
        let broker = one.resolved.broker.as_ref();
        let look = Look {
            claimant: &one,
            broker,
            workload: &workload,
            is_enabled: true,
            rival: None,
            heard: failing(),
            is_paused: true,
        };
        let paused = judge(&look, &mut Entry::default(), Duration::ZERO);
        assert_eq!(said(&paused).1, "FollowsDemand", "whoever pauses it wants it to end");
    }

    #[test]
    fn a_queue_that_stays_away_keeps_no_pods_for_ever() {
        let mut one = claimant("{maxReplicas: 5, idlePeriod: 1m}");
        one.resolved.finding = ConsumerFinding::QueueNotFound;
        let (workload, mut entry) = (Workload { replicas: 2, ..workload() }, Entry::default());
        let look = |claimant| Look {
            claimant,
            broker: None,
            workload: &workload,
            is_enabled: true,
            rival: None,
            heard: None,
            is_paused: false,
        };
        let mut at = |seconds| judge(&look(&one), &mut entry, Duration::from_secs(seconds));
        assert_eq!(at(100).vote, Some(Vote::Hold));
        let last = at(155);
        assert_eq!((last.vote, last.again), (Some(Vote::Hold), Some(Duration::from_secs(5))));
        assert_eq!(at(160).vote, None);
    }

    #[test]
    fn who_wants_fewer_pods_says_whose_they_are() {
        let one = claimant(SCALING);
        let mut all = [of(&one, 4, said_ready(15), None), of(&one, 4, failing(), None)];
        all[0].vote = Some(Vote::Pods(2));
        compare(&mut all, &["one".to_owned(), "other".to_owned()], (4, 4));
        assert!(all[0].why.ends_with("; 4 because of Consumer other, which is held"), "{}", all[0].why);
        assert_eq!(all[1].why, "");
    }

    #[test]
    fn a_bound_is_named() {
        let one =
            claimant("{minReplicas: 2, maxReplicas: 5, backlogPerReplica: 10, scaleDownStabilization: 0s}");
        let why = |ready| of(&one, 2, said_ready(ready), None).why;
        assert!(why(0).ends_with("0 wanted; minReplicas is 2"), "{}", why(0));
        assert!(why(60).ends_with("6 wanted; maxReplicas is 5"), "{}", why(60));
        assert!(why(30).ends_with(": 3 wanted"), "{}", why(30));
        let late = of(&claimant("{minReplicas: 1, maxReplicas: 5}"), 4, said_ready(0), None).why;
        assert!(late.ends_with("0 wanted; more were wanted within scaleDownStabilization"), "{late}");
    }

    #[test]
    fn what_is_paused_asks_for_no_pods_but_for_calls_that_are_under_way() {
        let numbers = Numbers {
            demand: Demand { ready: 90, leased: 11, due: 5, oldest_ready: None, quiet_for: None },
            ..Numbers::default()
        };
        assert_eq!(numbers.to_do(true).total(), 11);
        assert_eq!(numbers.to_do(false).total(), 106);
    }
}
