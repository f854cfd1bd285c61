//! When a changed pod template may restart a Broker's pod: a new version takes turns over the cluster, a Broker's own
//! change does not wait.
//!
//! A StatefulSet of one pod with partition 1 keeps the pod at its revision, also when it has to be made anew; with
//! partition 0 it lets the template through. All that decides is on the StatefulSets, so that the next operator goes on
//! where this one ended.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use capstan_crds::Key;
use capstan_crds::condition::reason;
use jiff::Timestamp;

use crate::condition::Verdict;
use crate::world::{Set, State};

/// A Broker that takes longer than this to come back has stopped the upgrade: opening a large store takes ten minutes at most.
const STOPPED_AFTER: Duration = Duration::from_secs(600);

/// How a template is let through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hold {
    /// 0 lets it through, 1 holds it.
    pub(super) partition: i32,
    /// Since when the pod is being restarted for a new version, as RFC 3339.
    pub(super) upgrading_since: Option<String>,
}

/// Hashes of a pod template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marks {
    /// Of all of it.
    pub(super) template: String,
    /// Of what this version makes of it, whatever the Broker asks for.
    pub(super) version: String,
}

/// A Broker for which others wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upgrading {
    pub(super) broker: Key,
    /// RFC 3339.
    pub(super) since: String,
}

impl Upgrading {
    /// Whether it has been away for so long that somebody has to look.
    fn is_stopped(&self, now: Timestamp) -> bool {
        let since = self.since.parse::<Timestamp>().unwrap_or(now);
        let away = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        away >= STOPPED_AFTER
    }
}

/// What was decided, and for whom the Broker waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) hold: Hold,
    pub(super) waits_for: Option<Upgrading>,
}

/// Decides. `turn` is asked only for a Broker that may have to wait for others, with whether its pod serves. Pure.
pub(super) fn decide(
    known: Option<&Set>,
    has_claim: bool,
    marks: &Marks,
    is_available: bool,
    now: Timestamp,
    turn: impl FnOnce(bool) -> Result<String, Upgrading>,
) -> Decision {
    let Some((workload, set)) = known.and_then(|known| Some((known, known.broker.as_ref()?))) else {
        // Where there was a Broker before there may be its pod, which is not restarted out of turn.
        return free(has_claim.into(), None);
    };
    let since = set.upgrading_since.clone();
    let is_new_version = set.version_template.as_ref() != Some(&marks.version);
    if !is_new_version && set.template.as_ref() != Some(&marks.template) {
        return free(0, since);
    }
    let is_held = set.partition > 0 && workload.is_observed && workload.updated < workload.replicas;
    if !is_new_version && !is_held {
        let is_over = is_available && workload.is_settled();
        return free(set.partition, since.filter(|_| !is_over));
    }
    if since.is_some() {
        // Its turn already. Another version is another try.
        return free(0, if is_new_version { Some(now.to_string()) } else { since });
    }
    if is_new_version && !is_available {
        // That was known at the last look, perhaps of the last operator: it is held until the next.
        return free(1, None);
    }
    match turn(is_available) {
        // Nobody misses one that does not serve, so nobody waits for it either.
        Ok(since) => free(0, is_available.then_some(since)),
        Err(waits_for) => {
            Decision { hold: Hold { partition: 1, upgrading_since: None }, waits_for: Some(waits_for) }
        }
    }
}

fn free(partition: i32, upgrading_since: Option<String>) -> Decision {
    Decision { hold: Hold { partition, upgrading_since }, waits_for: None }
}

/// What is to be said of it.
pub(super) fn verdict(decision: &Decision, known: Option<&Set>, now: Timestamp) -> Verdict {
    if let Some(other) = &decision.waits_for {
        let broker = &other.broker;
        return if other.is_stopped(now) {
            Verdict::no(
                reason::UPGRADE_STOPPED,
                format!(
                    "the upgrade stopped: Broker {broker} has not come back with the new version. This one goes on with the version \
                     it has; see kubectl -n {} describe capb {}, or go back to the version before",
                    broker.namespace, broker.name
                ),
            )
        } else {
            Verdict::no(
                reason::UPGRADE_WAITING,
                format!(
                    "its pod is restarted for the new version when Broker {broker} has come back with it"
                ),
            )
        };
    }
    // A pod that moves to another node is not counted as updated either, while no template has changed.
    let is_behind = known.is_some_and(|known| {
        let is_outdated = known.broker.as_ref().is_some_and(|set| set.is_outdated);
        is_outdated && known.is_observed && known.updated < known.current
    });
    if decision.hold.upgrading_since.is_some() || is_behind {
        return Verdict::no(reason::UPGRADING, "its pod is restarted for a changed template");
    }
    Verdict::yes(reason::AS_DECLARED, "its pod is as this version makes it")
}

/// The turns that were given and that the world may not show yet.
#[derive(Debug, Default)]
pub(crate) struct Upgrades(Mutex<BTreeMap<Key, String>>);

impl Upgrades {
    /// Gives a Broker its turn, when fewer than `limit` others have one; otherwise the one that has it for the longest
    /// time. Who needs none, because it does not serve, waits only for an upgrade that has stopped.
    pub(super) fn take(
        &self,
        state: &State,
        broker: &Key,
        limit: usize,
        needs_turn: bool,
        now: Timestamp,
    ) -> Result<String, Upgrading> {
        let mut given = self.given();
        if let Some(since) = given.get(broker) {
            return Ok(since.clone());
        }
        let mut others = upgrading(state);
        others.extend(given.iter().map(|(key, since)| (key.clone(), since.clone())));
        others.remove(broker);
        let others = others.into_iter().map(|(broker, since)| Upgrading { broker, since });
        let others: Vec<Upgrading> = others.filter(|one| needs_turn || one.is_stopped(now)).collect();
        if others.len() >= limit
            && let Some(oldest) = others.into_iter().min_by(|a, b| a.since.cmp(&b.since))
        {
            return Err(oldest);
        }
        if needs_turn {
            given.insert(broker.clone(), now.to_string());
        }
        Ok(now.to_string())
    }

    /// The world shows the turn, or it came to nothing.
    pub(crate) fn forget(&self, broker: &Key) {
        self.given().remove(broker);
    }

    fn given(&self) -> MutexGuard<'_, BTreeMap<Key, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All Brokers whose pod is being restarted for a new version.
fn upgrading(state: &State) -> BTreeMap<Key, String> {
    let of = |workload: &std::sync::Arc<Set>| {
        let since = workload.broker.as_ref()?.upgrading_since.clone()?;
        let broker = workload.controller.as_deref()?.strip_prefix("Broker/")?;
        Some((workload.key.sibling(broker), since))
    };
    state.stateful_sets.all().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::world::{BrokerSet, Workload};

    const START: &str = "2026-01-01T00:00:00Z";

    fn marks() -> Marks {
        Marks { template: "t".into(), version: "v".into() }
    }

    fn now() -> Timestamp {
        "2026-01-01T00:05:00Z".parse().unwrap()
    }

    /// A StatefulSet whose pod is as the template says and ready.
    fn settled(set: BrokerSet) -> Set {
        let workload = Workload {
            key: Key::new("shop", "capstan-main"),
            controller: Some("Broker/main".into()),
            is_observed: true,
            replicas: 1,
            current: 1,
            updated: 1,
            ready: 1,
            ..Workload::default()
        };
        Set { workload: Arc::new(workload), broker: Some(set) }
    }

    /// The same with another workload.
    fn with(set: &Set, change: impl FnOnce(&mut Workload)) -> Set {
        let mut workload = Workload::clone(&set.workload);
        change(&mut workload);
        Set { workload: Arc::new(workload), broker: set.broker.clone() }
    }

    fn applied(template: &str, version: &str, partition: i32) -> BrokerSet {
        BrokerSet {
            template: Some(template.into()),
            version_template: Some(version.into()),
            partition,
            ..BrokerSet::default()
        }
    }

    fn other() -> Upgrading {
        Upgrading { broker: Key::new("shop", "other"), since: START.into() }
    }

    fn decided(known: &Set, is_available: bool, turn: Result<&str, Upgrading>) -> Decision {
        decide(Some(known), true, &marks(), is_available, now(), |_| turn.map(str::to_owned))
    }

    fn hold(decision: &Decision) -> (i32, Option<&str>) {
        (decision.hold.partition, decision.hold.upgrading_since.as_deref())
    }

    #[test]
    fn a_new_statefulset_leaves_a_pod_that_is_there_alone() {
        for (has_claim, partition) in [(true, 1), (false, 0)] {
            let decision = decide(None, has_claim, &marks(), false, now(), |_| panic!("nobody is asked"));
            assert_eq!(hold(&decision), (partition, None));
        }
    }

    #[test]
    fn a_brokers_own_change_does_not_wait() {
        let known = settled(applied("old", "v", 1));
        assert_eq!(hold(&decided(&known, true, Err(other()))), (0, None));
    }

    #[test]
    fn a_new_version_takes_turns() {
        for set in [applied("old", "old", 0), BrokerSet::default()] {
            let known = settled(set);
            let waiting = decided(&known, true, Err(other()));
            assert_eq!((hold(&waiting), waiting.waits_for.clone()), ((1, None), Some(other())));
            assert_eq!(hold(&decided(&known, true, Ok("now"))), (0, Some("now")));
            assert_eq!(hold(&decided(&known, false, Ok("now"))), (1, None), "it may serve by now");
        }
    }

    #[test]
    fn what_is_held_goes_on_when_it_is_its_turn_or_does_not_serve() {
        let held = with(&settled(applied("t", "v", 1)), |workload| workload.updated = 0);
        assert_eq!(hold(&decided(&held, true, Err(other()))), (1, None));
        assert_eq!(hold(&decided(&held, true, Ok("now"))), (0, Some("now")));
        assert_eq!(hold(&decided(&held, false, Ok("now"))), (0, None));
    }

    #[test]
    fn a_turn_ends_when_the_new_pod_serves() {
        let set = BrokerSet { upgrading_since: Some(START.into()), ..applied("t", "v", 0) };
        for restarting in [
            with(&settled(set.clone()), |workload| {
                (workload.updated, workload.current, workload.ready) = (0, 0, 0);
            }),
            with(&settled(set.clone()), |workload| workload.ready = 0),
            with(&settled(set.clone()), |workload| workload.is_observed = false),
        ] {
            assert_eq!(hold(&decided(&restarting, true, Err(other()))), (0, Some(START)), "{restarting:?}");
        }
        assert_eq!(hold(&decided(&settled(set.clone()), false, Err(other()))), (0, Some(START)));
        assert_eq!(hold(&decided(&settled(set), true, Err(other()))), (0, None));
    }

    #[test]
    fn another_version_is_another_try_of_one_that_did_not_come_back() {
        let set = BrokerSet { upgrading_since: Some(START.into()), ..applied("bad", "bad", 0) };
        let known = with(&settled(set), |workload| workload.ready = 0);
        let again = now().to_string();
        assert_eq!(hold(&decided(&known, false, Err(other()))), (0, Some(again.as_str())));
    }

    fn state(upgrading: &[(&str, &str)]) -> State {
        let mut state = State::default();
        for (name, since) in upgrading {
            let set = BrokerSet { upgrading_since: Some((*since).into()), ..applied("t", "v", 0) };
            let key = Key::new("shop", &format!("capstan-{name}"));
            let set = with(&settled(set), |workload| {
                (workload.key, workload.controller) = (key.clone(), Some(format!("Broker/{name}")));
            });
            state.stateful_sets.insert(key, Arc::new(set));
        }
        state
    }

    #[test]
    fn so_many_turns_are_given_and_no_more() {
        let (upgrades, key) = (Upgrades::default(), |name: &str| Key::new("shop", name));
        let take = |state: &State, name: &str, limit| upgrades.take(state, &key(name), limit, true, now());
        let first = take(&state(&[]), "a", 1).unwrap();
        assert_eq!(take(&state(&[]), "a", 1), Ok(first), "again: the world may not show it yet");
        assert_eq!(take(&state(&[]), "b", 1).unwrap_err().broker, key("a"));
        assert!(take(&state(&[("a", START)]), "b", 2).is_ok(), "the same turn counts once");
        assert!(take(&state(&[("a", START)]), "c", 2).is_err());
        upgrades.forget(&key("a"));
        upgrades.forget(&key("b"));
        assert_eq!(
            take(&state(&[("z", START)]), "c", 1).unwrap_err(),
            Upgrading { broker: key("z"), since: START.into() }
        );
        assert!(take(&state(&[("c", START)]), "c", 1).is_ok(), "its own");
    }

    #[test]
    fn who_does_not_serve_waits_for_a_stopped_upgrade_alone() {
        let upgrades = Upgrades::default();
        let take = |since: &str| {
            upgrades.take(&state(&[("a", since)]), &Key::new("shop", "b"), 1, false, now()).is_ok()
        };
        assert!(take("2026-01-01T00:00:00Z"));
        assert!(!take("2025-12-31T23:00:00Z"));
        assert!(upgrades.given().is_empty(), "it has no turn");
    }

    #[test]
    fn who_waits_says_for_whom() {
        let waits = |since: &str| Decision {
            hold: Hold { partition: 1, upgrading_since: None },
            waits_for: Some(Upgrading { since: since.into(), ..other() }),
        };
        let known = settled(applied("t", "v", 1));
        let waiting = verdict(&waits(START), Some(&known), now());
        assert_eq!(waiting.reason, "UpgradeWaiting");
        assert!(waiting.message.contains("shop/other"), "{}", waiting.message);
        let stopped = verdict(&waits("2025-12-31T00:00:00Z"), Some(&known), now());
        assert_eq!(stopped.reason, "UpgradeStopped");
        assert!(verdict(&Decision::default(), Some(&known), now()).holds);
        let moving = with(&known, |workload| workload.updated = 0);
        assert!(verdict(&Decision::default(), Some(&moving), now()).holds, "to another node");
        let outdated = settled(BrokerSet { is_outdated: true, ..applied("t", "v", 1) });
        let behind = with(&outdated, |workload| workload.updated = 0);
        assert_eq!(verdict(&Decision::default(), Some(&behind), now()).reason, "Upgrading");
    }
}
