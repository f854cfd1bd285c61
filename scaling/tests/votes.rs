//! Several Consumers of one workload, and when calls fail too often to trust what there is to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use capstan_scaling::{Calls, Outcomes, Vote, combine};

#[test]
fn the_most_that_anybody_wants_and_zero_only_when_all_agree() {
    use Vote::{Hold, Pods, Some as Consumes};
    let rows: [(&[Vote], u32, Option<u32>); 12] = [
        (&[], 4, None),
        (&[Consumes], 4, None),
        (&[Consumes, Consumes], 4, None),
        (&[Pods(0)], 4, Some(0)),
        (&[Pods(3)], 4, Some(3)),
        (&[Pods(2), Pods(7), Pods(0)], 4, Some(7)),
        (&[Pods(0), Pods(0)], 4, Some(0)),
        (&[Pods(0), Consumes], 4, Some(1)),
        (&[Hold], 4, Some(4)),
        (&[Hold], 0, Some(0)),
        (&[Pods(0), Hold], 4, Some(4)),
        (&[Pods(9), Hold, Consumes], 4, Some(9)),
    ];
    for (votes, current, pods) in rows {
        assert_eq!(combine(votes, current), pods, "{votes:?} with {current}");
    }
}

/// Second, and what succeeded and failed since the broker's start.
type Row = (u64, u64, u64);

fn learnt(rows: &[Row]) -> Calls {
    let mut calls = Calls::default();
    for (at, succeeded, failed) in rows {
        calls.learn(Outcomes { succeeded: *succeeded, failed: *failed }, Duration::from_secs(*at));
    }
    calls
}

#[test]
fn more_than_half_of_enough_calls() {
    let rows: [(&[Row], Option<f64>, bool); 9] = [
        (&[], None, false),
        // What was before the first look is not known.
        (&[(0, 0, 1000)], None, false),
        (&[(0, 5, 1000), (10, 5, 1000)], None, false),
        (&[(0, 0, 0), (10, 0, 9)], Some(1.0), false),
        (&[(0, 0, 0), (10, 0, 10)], Some(1.0), true),
        (&[(0, 0, 0), (10, 10, 10)], Some(0.5), false),
        (&[(0, 0, 0), (10, 9, 11)], Some(0.55), true),
        // Counters that fell are those of a new process.
        (&[(0, 0, 0), (10, 0, 50), (20, 0, 3)], None, false),
        (&[(0, 100, 0), (10, 100, 50), (20, 0, 3), (30, 0, 13)], Some(1.0), true),
    ];
    for (rows, ratio, failing) in rows {
        let calls = learnt(rows);
        assert_eq!((calls.error_ratio(), calls.are_failing()), (ratio, failing), "{rows:?}");
    }
}

#[test]
fn only_the_last_minute_counts() {
    let mut rows = vec![(0, 0, 0), (5, 0, 100)];
    rows.extend((2..=12).map(|at| (at * 5, at, 100)));
    assert!(learnt(&rows).are_failing(), "at 60 s all is seen");
    rows.push((65, 13, 100));
    let calls = learnt(&rows);
    assert_eq!(
        (calls.error_ratio(), calls.are_failing()),
        (Some(0.0), false),
        "at 65 s the failures are over"
    );
}

#[test]
fn failures_before_a_silence_are_not_of_now() {
    // Ten failures between two samples, then nothing for ten minutes: a message that comes then must find nobody failing.
    let silent = [(0, 0, 0), (3, 0, 10)];
    assert!(learnt(&silent).are_failing());
    let rows = [silent[0], silent[1], (600, 0, 10)];
    assert_eq!((learnt(&rows).error_ratio(), learnt(&rows).are_failing()), (None, false));
    // What happened since the last look may all be of the last minute.
    assert!(learnt(&[silent[0], silent[1], (600, 0, 20)]).are_failing());
}

#[test]
fn memory_is_bounded() {
    for every in 1..=7 {
        let rows: Vec<_> = (0..10_000).map(|at| (at * every, at / 10, at)).collect();
        // A minute of two each five seconds at most, and both ends.
        let samples = format!("{:?}", learnt(&rows)).matches("Outcomes").count() - 1;
        assert!(samples <= 26, "{samples} samples when asked each {every} s");
    }
    // Asked twice and then not for a while: each pair leaves two.
    let rows: Vec<_> = (0..10_000).map(|at| (at / 2 * 6 + at % 2, at, at)).collect();
    let samples = format!("{:?}", learnt(&rows)).matches("Outcomes").count() - 1;
    assert!(samples <= 26, "{samples} samples");
}
