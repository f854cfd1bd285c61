//! A wall clock that steps by a day: leases, delays and retention go by the time that passes.

use std::time::{Duration, Instant};

use capstan_api::message::Pull;
use capstan_api::number::Whole;
use e2e::process::{Broker, Clock, Starting};
use serde_json::{Value, json};

use crate::fixture::{DEADLINE, Fixture, NAMESPACE, name, queue, until};

const DAY_HOURS: i32 = 24;
const DAY_SECONDS: f64 = 86_400.0;
const HOUR_MS: u64 = 3_600_000;
/// Longer than any of these tests takes, shorter than a day.
const LEASE: Whole = Whole(HOUR_MS);

/// `short` drops its messages after two hours.
fn queues() -> [Value; 2] {
    [queue("orders", 3, json!({})), queue("short", 3, json!({ "retention_ms": 2 * HOUR_MS }))]
}

/// A leased, a delayed and a ready message; and what was sent first.
async fn fill(fixture: &Fixture) -> u64 {
    fixture.send("orders", json!({ "body": "leased" })).await;
    let pull = Pull { visibility_timeout_ms: Some(LEASE), ..Pull::default() };
    let leased = fixture.client.pull(&name(NAMESPACE), &name("orders"), &pull).await.unwrap().messages;
    assert_eq!(leased.len(), 1);
    fixture.send("orders", json!({ "body": "delayed", "delay_seconds": 3_600 })).await;
    fixture.send("short", json!({ "body": "kept" })).await;
    leased[0].timestamp_ms
}

/// How far the wall clock is ahead, in days.
async fn is_ahead_by(fixture: &Fixture, days: f64) {
    let series = "capstan_clock_offset_seconds";
    let near = async || {
        let offset = fixture.metric(series).await;
        ((offset - days * DAY_SECONDS).abs() < 120.0).then_some(())
    };
    until(&format!("{series} is {days} days"), near).await;
}

/// A lease of a second ends after about a second; answers the time at which its message was sent.
async fn time_passes(fixture: &Fixture) -> u64 {
    fixture.send("orders", json!({ "body": "now" })).await;
    let pull = Pull { visibility_timeout_ms: Some(Whole(1_000)), ..Pull::default() };
    let (shop, orders) = (name(NAMESPACE), name("orders"));
    let began = Instant::now();
    let first = fixture.client.pull(&shop, &orders, &pull).await.unwrap().messages;
    let wait = Pull { idle_ms: Some(Whole(30_000)), ..Pull::default() };
    let second = tokio::time::timeout(DEADLINE, fixture.client.pull(&shop, &orders, &wait)).await;
    let second = second.expect("the lease ends").unwrap().messages;
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(20)).contains(&took),
        "a lease of 1 s took {took:?}"
    );
    assert_eq!((first.len(), second.len(), &second[0].id), (1, 1, &first[0].id));
    assert_eq!(fixture.ack("orders", &[&second[0].lease_id]).await.ack_count, 1);
    first[0].timestamp_ms
}

async fn nothing_ended(fixture: &Fixture) {
    let (orders, short) = (fixture.queue("orders").await, fixture.queue("short").await);
    assert_eq!((orders.leased, orders.delayed, orders.ready), (1, 1, 0), "{orders:?}");
    assert_eq!((short.ready, short.totals.expired, orders.totals.expired), (1, 0, 0), "{short:?}");
}

#[tokio::test]
async fn a_step_of_a_day_while_the_broker_runs_ends_nothing() {
    let clock = Clock::new();
    let fixture = Fixture::of(|data| Starting::with_clock(data, &clock), &queues()).await;
    let mut last = fill(&fixture).await;
    for (hours, days) in [(DAY_HOURS, 1.0), (-DAY_HOURS, -1.0), (0, 0.0)] {
        clock.step(hours);
        is_ahead_by(&fixture, days).await;
        let now = time_passes(&fixture).await;
        assert!((last..last + 120_000).contains(&now), "the broker's time went from {last} to {now}");
        nothing_ended(&fixture).await;
        last = now;
    }
    let (status, log) = {
        fixture.broker.terminate();
        fixture.broker.ended()
    };
    assert!(status.success(), "{status}\n{log}");
}

/// Nobody can tell a clock that was set from an outage: a day forward moves leases and retention along, and what was
/// delayed by an hour is due; a day back waits for no one.
#[tokio::test]
async fn a_step_of_a_day_while_the_broker_is_away_ends_nothing() {
    let clock = Clock::new();
    let fixture = Fixture::of(|data| Starting::with_clock(data, &clock), &queues()).await;
    let first = fill(&fixture).await;
    let again = |fixture: Fixture, hours| {
        fixture.again_as(
            |broker: Broker| {
                broker.kill();
                clock.step(hours);
            },
            |data| Starting::with_clock(data, &clock),
        )
    };
    let fixture = again(fixture, -DAY_HOURS);
    is_ahead_by(&fixture, -1.0).await;
    let back = time_passes(&fixture).await;
    assert!((first..first + 120_000).contains(&back), "the broker's time went from {first} to {back}");
    nothing_ended(&fixture).await;

    let fixture = again(fixture, DAY_HOURS);
    is_ahead_by(&fixture, 0.0).await;
    until("what was due meanwhile is ready", async || {
        (fixture.queue("orders").await.delayed == 0).then_some(())
    })
    .await;
    let (orders, short) = (fixture.queue("orders").await, fixture.queue("short").await);
    assert_eq!((orders.leased, orders.ready, orders.totals.lease_expired), (1, 1, 0), "{orders:?}");
    assert_eq!(
        (short.ready, short.totals.expired),
        (1, 0),
        "two hours of retention, and a day away: {short:?}"
    );
}
