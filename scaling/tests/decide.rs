//! The decision of one Consumer, as tables: what there is to do, and how many pods there should be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use capstan_scaling::{Decision, Demand, Limit, Memory, Rule};
use proptest::prelude::*;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// `minReplicas` and `maxReplicas`, ten messages for each pod, and the defaults.
const fn rule(min: u32, max: u32) -> Rule {
    Rule {
        min,
        max,
        backlog_per_replica: 10,
        max_oldest_age: None,
        scale_down_stabilization: seconds(300),
        idle_period: seconds(300),
    }
}

fn ready(ready: u64) -> Demand {
    Demand { ready, ..Demand::default() }
}

/// So many messages, of which the oldest has waited so long.
fn aged(messages: u64, age: u64) -> Demand {
    Demand { oldest_ready: Some(seconds(age)), ..ready(messages) }
}

/// Decides at each time with what was decided before as the pods that there are. Rows: second, messages, pods.
fn play(rule: &Rule, mut current: u32, rows: &[(u64, u64, u32)]) {
    let mut memory = Memory::default();
    for (at, messages, desired) in rows {
        let decision = memory.decide(rule, ready(*messages), current, seconds(*at));
        assert_eq!(decision.desired, *desired, "at {at} s with {messages} messages: {decision:?}");
        current = decision.desired;
    }
}

fn first(rule: &Rule, demand: Demand, current: u32) -> Decision {
    Memory::default().decide(rule, demand, current, seconds(7))
}

#[test]
fn the_formula_rounds_up_and_keeps_within_bounds() {
    let rule = rule(1, 5);
    let (min, max) = (Some(Limit::Min), Some(Limit::Max));
    let rows = [
        (0, 0, 1, min),
        (1, 1, 1, None),
        (10, 1, 1, None),
        (11, 2, 2, None),
        (50, 5, 5, None),
        (51, 6, 5, max),
        (u64::MAX, u32::MAX, 5, max),
    ];
    for (messages, pods, wanted, limit) in rows {
        assert_eq!(rule.pods(&ready(messages)), pods, "{messages}");
        let decision = first(&rule, ready(messages), 1);
        assert_eq!((decision.wanted, decision.limit), (wanted, limit), "{messages}");
    }
    assert_eq!(Rule { backlog_per_replica: 0, ..rule }.pods(&ready(3)), 3, "never divides by zero");
}

#[test]
fn everything_that_needs_a_pod_counts() {
    let demand = Demand { ready: 9, leased: 1, due: 1, oldest_ready: None, quiet_for: None };
    assert_eq!((demand.total(), rule(0, 5).pods(&demand)), (11, 2));
    let full = Demand { ready: u64::MAX, leased: 1, due: 1, oldest_ready: None, quiet_for: None };
    assert_eq!(full.total(), u64::MAX);
}

#[test]
fn a_minimum_of_zero_is_no_bound_that_was_met() {
    assert_eq!(first(&rule(0, 5), ready(0), 1).limit, None, "the last pod stays for the idle period");
    assert_eq!(first(&rule(0, 5), ready(0), 0).limit, None);
    assert_eq!(first(&rule(3, 5), ready(11), 3).limit, Some(Limit::Min));
}

#[test]
fn grows_at_once_and_shrinks_late() {
    play(
        &rule(0, 20),
        1,
        &[(0, 5, 1), (1, 95, 10), (2, 200, 20), (3, 100, 20), (302, 100, 20), (303, 100, 10)],
    );
    // A short dip changes nothing, and each peak is remembered for as long as it is the most.
    play(
        &rule(0, 20),
        10,
        &[(0, 100, 10), (100, 50, 10), (150, 80, 10), (399, 50, 10), (400, 50, 8), (450, 50, 8)],
    );
    // Without a wait it follows at once.
    let hasty = Rule { scale_down_stabilization: Duration::ZERO, ..rule(1, 20) };
    play(&hasty, 10, &[(0, 100, 10), (1, 50, 5), (2, 0, 1)]);
}

#[test]
fn what_was_wanted_last_was_wanted_until_the_next_decision() {
    // Nothing happened for 400 s, so nobody asked; the ten pods were needed all the time.
    play(&rule(0, 20), 10, &[(0, 100, 10), (400, 20, 10), (699, 20, 10), (700, 20, 2)]);
}

#[test]
fn after_a_restart_the_pods_that_there_are_stand_for_the_past() {
    play(&rule(0, 20), 8, &[(1000, 20, 8), (1299, 20, 8), (1300, 20, 2)]);
}

#[test]
fn zero_only_when_idle_for_long_enough() {
    play(&rule(0, 20), 1, &[(0, 1, 1), (10, 0, 1), (309, 0, 1), (310, 0, 0), (311, 0, 0), (10_000, 0, 0)]);
    play(&rule(0, 20), 1, &[(0, 0, 1), (200, 1, 1), (201, 0, 1), (500, 0, 1), (501, 0, 0)]);
    play(&rule(1, 20), 1, &[(0, 0, 1), (300, 0, 1), (100_000, 0, 1)]);
}

#[test]
fn one_message_wakes_it() {
    play(&rule(0, 20), 0, &[(0, 0, 0), (5, 1, 1), (6, 0, 1), (305, 0, 1), (306, 0, 0), (307, 11, 2)]);
    let (leased, due) = (Demand { leased: 1, ..ready(0) }, Demand { due: 1, ..ready(0) });
    assert_eq!((first(&rule(0, 5), leased, 0).desired, first(&rule(0, 5), due, 0).desired), (1, 1));
}

#[test]
fn an_idle_period_may_be_shorter_than_the_wait_or_longer() {
    let short = Rule { idle_period: seconds(60), ..rule(0, 20) };
    play(&short, 5, &[(0, 50, 5), (10, 0, 5), (69, 0, 5), (70, 0, 0)]);
    let long = Rule { idle_period: seconds(600), ..rule(0, 20) };
    play(&long, 5, &[(0, 50, 5), (10, 0, 5), (309, 0, 5), (310, 0, 1), (609, 0, 1), (610, 0, 0)]);
}

#[test]
fn bounds_that_move_hold_at_once() {
    let mut memory = Memory::default();
    assert_eq!(memory.decide(&rule(0, 20), ready(200), 20, seconds(0)).desired, 20);
    assert_eq!(memory.decide(&rule(0, 6), ready(200), 20, seconds(1)).desired, 6, "maxReplicas lowered");
    assert_eq!(
        memory.decide(&rule(0, 20), ready(10), 6, seconds(2)).desired,
        6,
        "raised again: no more pods"
    );
    assert_eq!(memory.decide(&rule(9, 20), ready(10), 6, seconds(3)).desired, 9, "minReplicas raised");
    assert_eq!(memory.decide(&rule(2, 20), ready(0), 0, seconds(4)).desired, 2, "asleep, minReplicas raised");
}

#[test]
fn old_messages_ask_for_a_pod_at_once_and_one_more_each_minute() {
    let rule = Rule { max_oldest_age: Some(seconds(30)), ..rule(0, 4) };
    let mut memory = Memory::default();
    let rows = [
        (0, 30, 0, 1, None),
        (1, 31, 1, 2, None),
        (60, 90, 1, 2, None),
        (61, 91, 2, 3, None),
        (120, 150, 2, 3, None),
        (121, 151, 3, 4, None),
        (181, 211, 4, 4, Some(Limit::Max)),
        (182, 5, 0, 1, None),
        (183, 31, 1, 2, None),
    ];
    for (at, age, steps, wanted, limit) in rows {
        let decision = memory.decide(&rule, aged(1, age), 1, seconds(at));
        assert_eq!((decision.steps, decision.wanted, decision.limit), (steps, wanted, limit), "at {at} s");
    }
    assert_eq!(memory.decide(&rule, ready(5), 1, seconds(184)).steps, 0, "nothing waits");
}

#[test]
fn again_says_when_time_alone_matters() {
    let again = |rule: &Rule, demand, current| first(rule, demand, current).again;
    assert_eq!(again(&rule(0, 5), ready(5), 1), None, "work, and as many pods as are wanted");
    assert_eq!(again(&rule(0, 5), ready(0), 0), None, "asleep");
    assert_eq!(again(&rule(1, 5), ready(0), 1), None, "never sleeps");
    assert_eq!(again(&rule(0, 5), ready(0), 1), Some(seconds(300)));
    assert_eq!(again(&rule(0, 5), ready(5), 3), Some(seconds(300)));
    let rule = Rule { max_oldest_age: Some(seconds(30)), ..rule(0, 5) };
    assert_eq!(again(&rule, aged(5, 10), 1), Some(Duration::from_millis(20_001)));
    assert_eq!(again(&rule, aged(5, 31), 1), Some(seconds(60)));
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let age = prop::option::of(1..200u64);
    (0..4u32, 0..12u32, 1..20u32, age, 0..400u64, 0..400u64).prop_map(
        |(min, more, backlog, age, down, idle)| Rule {
            min,
            max: (min + more).max(1),
            backlog_per_replica: backlog,
            max_oldest_age: age.map(seconds),
            scale_down_stabilization: seconds(down),
            idle_period: seconds(idle),
        },
    )
}

fn any_demand() -> impl Strategy<Value = Demand> {
    let some = (0..100u64, 0..50u64, 0..10u64, 0..200u64);
    let some = some.prop_map(|(ready, leased, due, age)| Demand {
        ready,
        leased,
        due,
        oldest_ready: (ready > 0).then(|| seconds(age)),
        quiet_for: None,
    });
    prop_oneof![3 => some, 1 => Just(Demand::default())]
}

/// The same demand after so long: what waits grows older.
fn later(demand: Demand, by: Duration) -> Demand {
    Demand { oldest_ready: demand.oldest_ready.map(|age| age + by), ..demand }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever asks no sooner than `again` misses nothing, whether what was decided was brought about or not.
    #[test]
    fn nothing_changes_before_again(
        rule in any_rule(),
        steps in prop::collection::vec((any_demand(), 0..300_000u64), 1..12),
        start in 0..15u32,
        follows in any::<bool>(),
        parts in prop::collection::vec(0.0..1.0f64, 0..4),
    ) {
        let (mut memory, mut now, mut current) = (Memory::default(), seconds(1000), start);
        for (demand, pause) in steps {
            let decision = memory.decide(&rule, demand, current, now);
            let then = if follows { decision.desired } else { current };
            let until = decision.again.unwrap_or(seconds(100_000)).saturating_sub(Duration::from_millis(1));
            // A copy, asked now and then, and another that is asked only at the end.
            let mut often = memory.clone();
            let mut parts: Vec<_> = parts.iter().map(|part| until.mul_f64(*part)).collect();
            parts.sort();
            for part in parts {
                let same = often.decide(&rule, later(demand, part), then, now + part);
                prop_assert_eq!(same.desired, decision.desired, "after {:?} of {:?}", part, &decision);
            }
            let last = memory.clone().decide(&rule, later(demand, until), then, now + until);
            prop_assert_eq!(last.desired, decision.desired, "just before {:?}", &decision);
            current = then;
            now += Duration::from_millis(pause);
        }
    }

    /// Asking at `again` each time comes to rest, at what the formula wants.
    #[test]
    fn asking_at_again_comes_to_rest(rule in any_rule(), demand in any_demand(), start in 0..15u32) {
        let demand = Demand { oldest_ready: None, ..demand };
        let (mut memory, mut now, mut current, mut asked) = (Memory::default(), seconds(0), start, 0);
        loop {
            let decision = memory.decide(&rule, demand, current, now);
            current = decision.desired;
            asked += 1;
            prop_assert!(asked < 10, "{:?}", decision);
            match decision.again {
                Some(again) => now += again,
                None => { prop_assert_eq!(decision.desired, decision.wanted); break; }
            }
        }
    }

    #[test]
    fn bounds_always_hold(rule in any_rule(), steps in prop::collection::vec((any_demand(), 0..500u64, 0..30u32), 1..20)) {
        let (mut memory, mut now) = (Memory::default(), seconds(0));
        for (demand, pause, current) in steps {
            let decision = memory.decide(&rule, demand, current, now);
            prop_assert!((rule.min..=rule.max).contains(&decision.desired), "{:?}", decision);
            prop_assert!(decision.desired >= decision.wanted);
            prop_assert!(decision.desired > 0 || demand.total() == 0);
            now += seconds(pause);
        }
    }
}

/// What comes and is handled between two looks is in no number, and keeps pods all the same.
#[test]
fn messages_that_nobody_sees_keep_the_last_pod() {
    let rule = Rule { idle_period: seconds(10), ..rule(0, 5) };
    let mut memory = Memory::default();
    let quiet = |quiet: u64| Demand { quiet_for: Some(seconds(quiet)), ..Demand::default() };
    let at = |memory: &mut Memory, quiet_for: u64, now: u64| {
        memory.decide(&rule, quiet(quiet_for), 1, seconds(now))
    };
    for now in 0..30 {
        assert_eq!(at(&mut memory, 1, now).desired, 1, "one was handled a second before {now}");
    }
    let last = at(&mut memory, 1, 30);
    assert_eq!((last.desired, last.again), (1, Some(seconds(9))));
    assert_eq!(at(&mut memory, 10, 39).desired, 0);
}
