//! Which pods go when fewer are needed: those that have nothing to do. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use capstan_api::workload::WorkloadKind;

use super::pods::Pod;

/// The `count` pods that are to go.
///
/// A ReplicaSet removes pods that do not run or are not ready first, whatever they cost, so these are chosen before others; then those that
/// were chosen already, by this operator or by one before; then by the cost that somebody else gave them; then those with the fewest messages, and of these the youngest. With
/// `idle_first` one that was chosen and is still at work makes way for one that is idle. A StatefulSet always removes the highest ordinals.
pub(super) fn choose(
    kind: WorkloadKind,
    pods: &[Pod],
    leased: &BTreeMap<String, u64>,
    chosen: &BTreeSet<String>,
    (count, idle_first): (usize, bool),
) -> BTreeSet<String> {
    let mut pods: Vec<&Pod> = pods.iter().collect();
    match kind {
        WorkloadKind::StatefulSet => pods.sort_by_key(|pod| Reverse(pod.ordinal)),
        WorkloadKind::Deployment => pods.sort_by_key(|pod| {
            let is_chosen = chosen.contains(&pod.name) || pod.is_marked;
            let messages = leased.get(&pod.name).copied().unwrap_or_default();
            let is_passed_over = idle_first && messages > 0;
            let rank = (pod.is_running, pod.is_ready, is_passed_over, !is_chosen);
            (rank, pod.cost.unwrap_or_default(), messages, Reverse(pod.created), pod.name.clone())
        }),
    }
    pods.into_iter().take(count).map(|pod| pod.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, created: i64) -> Pod {
        let ordinal = name.rsplit_once('-').and_then(|(_, number)| number.parse().ok());
        let name = name.to_owned();
        Pod { name, is_running: true, is_ready: true, is_marked: false, cost: None, created, ordinal }
    }

    fn chosen(
        kind: WorkloadKind,
        pods: &[Pod],
        busy: &[(&str, u64)],
        before: &[&str],
        count: usize,
    ) -> Vec<String> {
        let leased = busy.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let before = before.iter().map(|name| (*name).to_owned()).collect();
        choose(kind, pods, &leased, &before, (count, false)).into_iter().collect()
    }

    #[test]
    fn one_that_works_on_makes_way_for_one_that_is_idle_and_for_no_other() {
        let pods = [pod("a", 1), pod("b", 2), pod("c", 3)];
        let of = |busy: &[(&str, u64)], before: &[&str]| {
            let leased = busy.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
            let before = before.iter().map(|name| (*name).to_owned()).collect();
            let chosen = choose(WorkloadKind::Deployment, &pods, &leased, &before, (1, true));
            chosen.into_iter().next().unwrap()
        };
        assert_eq!(of(&[("b", 3), ("c", 1)], &["b"]), "a");
        assert_eq!(of(&[("a", 1), ("b", 3), ("c", 1)], &["b"]), "b", "all work");
        assert_eq!(of(&[], &["b"]), "b", "it is idle itself");
    }

    #[test]
    fn idle_pods_go_first_and_of_these_the_youngest() {
        let pods = [pod("a", 1), pod("b", 2), pod("c", 3), pod("d", 4)];
        let of = |busy: &[(&str, u64)], before: &[&str], count| {
            chosen(WorkloadKind::Deployment, &pods, busy, before, count).join(" ")
        };
        assert_eq!(of(&[], &[], 2), "c d");
        assert_eq!(of(&[("c", 1), ("d", 5)], &[], 1), "b");
        assert_eq!(of(&[("a", 9), ("b", 9), ("c", 2), ("d", 3)], &[], 1), "c");
        assert_eq!(of(&[("b", 1)], &["b"], 2), "b d", "chosen once is chosen");
        assert_eq!(of(&[], &[], 9), "a b c d");
        assert_eq!(of(&[], &[], 0), "");
    }

    #[test]
    fn what_kubernetes_would_take_first_is_chosen_first() {
        let unready = Pod { is_ready: false, ..pod("a", 1) };
        let marked = Pod { is_marked: true, ..pod("b", 2) };
        let pods = [unready, marked, pod("c", 3)];
        assert_eq!(chosen(WorkloadKind::Deployment, &pods, &[("a", 5), ("b", 5)], &[], 1), ["a"]);
        assert_eq!(chosen(WorkloadKind::Deployment, &pods, &[("a", 5), ("b", 5)], &[], 2), ["a", "b"]);
    }

    #[test]
    fn a_cost_of_somebodys_own_is_minded() {
        let (dear, cheap) = (Pod { cost: Some(100), ..pod("a", 9) }, Pod { cost: Some(-1), ..pod("b", 1) });
        let pods = [dear, cheap, pod("c", 5)];
        let of = |count| chosen(WorkloadKind::Deployment, &pods, &[("b", 3)], &[], count).join(" ");
        assert_eq!((of(1), of(2)), ("b".to_owned(), "b c".to_owned()));
    }

    #[test]
    fn of_a_stateful_set_the_highest_ordinals_go_by_number() {
        let pods = [pod("db-2", 3), pod("db-10", 1), pod("db-9", 2)];
        assert_eq!(chosen(WorkloadKind::StatefulSet, &pods, &[("db-10", 7)], &[], 2), ["db-10", "db-9"]);
    }
}
