//! The sidecar with a real broker in this process.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use capstan_api::control::{ConsumerPolicy, QueuePolicy};
use capstan_api::message::{Lease, Peek, Pull, Settle};
use capstan_api::number::Whole;

use crate::support::app::{App, Reply, Request};
use crate::support::real::{Real, orders, queue};
use crate::support::{Running, name, soon, until_metrics};

/// A broker with the queues `orders` (its consumer as changed) and `orders-dlq`, and a sidecar.
async fn start(app: &App, change: impl FnOnce(&mut ConsumerPolicy)) -> (Real, Running) {
    let real = Real::start().await;
    let sidecar = Running::start(real.config()).await;
    let mut orders = orders(app.port);
    change(orders.consumer.as_mut().unwrap());
    // The sidecar runs already: it learns of its Consumer by long poll.
    real.declare(vec![orders, dead_letters()]).await;
    (real, sidecar)
}

fn dead_letters() -> QueuePolicy {
    queue("orders-dlq")
}

/// The attempts of each call's first message.
fn attempts(app: &App) -> Vec<u64> {
    let of = |request: &Request| request.body["messages"][0]["attempts"].as_u64().unwrap();
    app.read(|seen| seen.requests.iter().map(of).collect())
}

#[tokio::test]
async fn every_message_is_handled_and_the_queue_is_empty() {
    let app = App::start([]).await;
    let (real, sidecar) = start(&app, |_| {}).await;
    let sent: BTreeSet<String> = real.send(25).await.into_iter().collect();
    let state = real.until("orders", "all are acknowledged", |state| state.totals.acknowledged == 25).await;
    assert_eq!((state.ready, state.leased, state.delayed, state.totals.retried), (0, 0, 0, 0));
    app.read(|seen| {
        let messages =
            || seen.requests.iter().flat_map(|request| request.body["messages"].as_array().unwrap());
        let handled: BTreeSet<String> =
            messages().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(handled, sent);
        assert_eq!(messages().count(), 25, "each once");
        let metrics = |request: &Request| request.body["metadata"]["metrics"].clone();
        for request in &seen.requests {
            let batch = request.body["messages"].as_array().unwrap().len() as u64;
            let backlog = metrics(request)["backlogCount"].as_u64().unwrap();
            assert!((batch..=25).contains(&backlog), "this batch is a part of it: {backlog}");
            assert!(metrics(request)["backlogBytes"].as_u64().unwrap() >= batch * 7);
        }
        assert!(messages().all(|one| one["body"]["n"].is_u64() && one["attempts"] == 1));
        assert!(messages().all(|one| one["contentType"] == "json" && one["timestampMs"].is_u64()));
    });
    sidecar.end().await;
}

#[tokio::test]
async fn a_message_that_always_fails_is_dead_after_its_last_retry() {
    let app = App::start((0..10).map(|_| Reply::status(500))).await;
    let (real, sidecar) = start(&app, |_| {}).await;
    let sent = real.send(1).await;
    real.until("orders-dlq", "it is dead", |state| state.ready == 1).await;
    assert_eq!(attempts(&app), [1, 2, 3], "maxRetries is 2");
    let state = real.state("orders").await;
    assert_eq!((state.ready, state.leased, state.delayed, state.totals.dead_lettered), (0, 0, 0, 1));
    let peeked = real.client().peek(&name("shop"), &name("orders-dlq"), &Peek::default()).await.unwrap();
    assert_eq!(peeked.messages[0].id, sent[0]);
    assert_eq!(peeked.messages[0].metadata["capstan-dead-letter-reason"], "the application answered 500");
    sidecar.end().await;
}

#[tokio::test]
async fn a_verdict_retries_one_message_alone_and_later() {
    let app = App::start([]).await;
    let real = Real::start().await;
    real.declare(vec![orders(app.port), dead_letters()]).await;
    let sent = real.send(2).await;
    let verdict = format!(r#"{{"retryMessages": [{{"msgId": "{}", "delaySeconds": 600}}]}}"#, sent[1]);
    app.change(|seen| seen.replies.push_back(Reply::body(String::leak(verdict))));
    let sidecar = Running::start(real.config()).await;
    let settled =
        |state: &capstan_api::control::QueueState| state.delayed == 1 && state.totals.acknowledged == 1;
    let state = real.until("orders", "one is done, one waits", settled).await;
    assert_eq!((state.ready, state.leased, state.totals.retried), (0, 0, 1));
    assert_eq!(attempts(&app), [1]);
    sidecar.end().await;
}

#[tokio::test]
async fn a_call_that_is_open_when_the_sidecar_is_ended_is_acknowledged() {
    let app = App::start([Reply::held()]).await;
    let (real, mut sidecar) = start(&app, |_| {}).await;
    real.send(1).await;
    app.until("the call is open", |seen| seen.held == 1).await;
    sidecar.shut_down();
    // Sent while it drains: it is for another pod.
    real.send(1).await;
    app.let_go(1);
    sidecar.ended().await;
    let state = real.state("orders").await;
    assert_eq!((state.totals.acknowledged, state.ready, state.leased), (1, 1, 0));
    assert_eq!((state.totals.retried, app.read(|seen| seen.requests.len())), (0, 1));
}

#[tokio::test]
async fn a_call_that_outlives_the_drain_costs_no_attempt() {
    let app = App::start([Reply::held()]).await;
    let real = Real::start().await;
    real.declare(vec![orders(app.port), dead_letters()]).await;
    real.send(1).await;
    let mut config = real.config();
    config.drain_timeout = Duration::from_millis(200);
    let sidecar = Running::start(config).await;
    app.until("the call is open", |seen| seen.held == 1).await;
    sidecar.end().await;
    let state = real.state("orders").await;
    assert_eq!((state.ready, state.leased, state.totals.released), (1, 0, 1));
    let sidecar = Running::start(real.config()).await;
    real.until("orders", "another sidecar has it", |state| state.totals.acknowledged == 1).await;
    assert_eq!(attempts(&app), [1, 1]);
    sidecar.end().await;
}

#[tokio::test]
async fn a_broker_that_restarts_during_a_call_delivers_nothing_twice() {
    let app = App::start([Reply::held()]).await;
    let (mut real, sidecar) = start(&app, |_| {}).await;
    real.send(1).await;
    app.until("the call is open", |seen| seen.held == 1).await;
    real.stop().await;
    real.begin().await;
    app.let_go(1);
    let state = real.until("orders", "it is acknowledged", |state| state.totals.acknowledged == 1).await;
    assert_eq!((state.ready, state.leased), (0, 0));
    real.send(1).await;
    real.until("orders", "pulls go on", |state| state.totals.acknowledged == 2).await;
    assert_eq!(attempts(&app), [1, 1]);
    sidecar.end().await;
}

#[tokio::test]
async fn a_verdict_waits_for_a_broker_that_is_away_longer_than_the_lease() {
    let app = App::start([Reply::held()]).await;
    let (mut real, sidecar) = start(&app, |consumer| consumer.visibility_timeout_ms = 3000).await;
    let admin = sidecar.admin.unwrap();
    real.send(1).await;
    app.until("the call is open", |seen| seen.held == 1).await;
    real.stop().await;
    app.let_go(1);
    until_metrics(admin, "the verdict is sent", |metrics| metrics.contains(r#"{request="settle"}"#)).await;
    // Longer than the lease: time is what this is about.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    real.begin().await;
    let state = real.until("orders", "it is acknowledged", |state| state.totals.acknowledged == 1).await;
    assert_eq!((state.ready, state.leased, state.totals.lease_expired), (0, 0, 0));
    assert_eq!(attempts(&app), [1]);
    sidecar.end().await;
}

#[tokio::test]
async fn a_call_may_take_longer_than_its_leases() {
    let app = App::start([Reply::held()]).await;
    let (real, sidecar) = start(&app, |consumer| consumer.visibility_timeout_ms = 2000).await;
    real.send(1).await;
    app.until("the call is open", |seen| seen.held == 1).await;
    // Longer than the lease: time is what this is about.
    tokio::time::sleep(Duration::from_millis(4500)).await;
    app.let_go(1);
    let state = real.until("orders", "it is acknowledged", |state| state.totals.acknowledged == 1).await;
    assert_eq!((state.totals.lease_expired, state.totals.delivered), (0, 1));
    sidecar.end().await;
}

#[tokio::test]
async fn an_application_that_refuses_costs_no_attempt_however_many_slots_there_are() {
    let app = App::start([Reply::status(404), Reply::status(503)]).await;
    let (real, sidecar) =
        start(&app, |consumer| consumer.push.as_mut().unwrap().concurrency_per_pod = 100).await;
    let waits = |metrics: &str| metrics.contains("capstan_pulls_waiting 100\n");
    until_metrics(real.admin(), "all slots pull", waits).await;
    real.send(1).await;
    let state = real.until("orders", "it is acknowledged", |state| state.totals.acknowledged == 1).await;
    assert_eq!(attempts(&app), [1, 1, 1]);
    // Else the message would go through all slots within moments, and use up its releases.
    assert_eq!((state.totals.retried, state.totals.released), (0, 2));
    sidecar.end().await;
}

#[tokio::test]
async fn a_changed_policy_takes_effect_within_a_second() {
    let app = App::start([]).await;
    let (real, sidecar) = start(&app, |_| {}).await;
    let mut quickest = Duration::MAX;
    // The best of some: this machine may be busy.
    for slots in [5, 2, 7] {
        let mut orders = orders(app.port);
        orders.consumer.as_mut().unwrap().push.as_mut().unwrap().concurrency_per_pod = slots;
        let began = Instant::now();
        real.declare(vec![orders, dead_letters()]).await;
        let waiting = format!("capstan_pulls_waiting {slots}\n");
        until_metrics(real.admin(), "all slots pull", |metrics| metrics.contains(&waiting)).await;
        quickest = quickest.min(began.elapsed());
    }
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
    sidecar.end().await;
}

#[tokio::test]
async fn two_consumers_of_one_workload_work_side_by_side() {
    let app = App::start([]).await;
    let real = Real::start().await;
    let mut other = QueuePolicy { name: name("invoices"), ..orders(app.port) };
    other.consumer.as_mut().unwrap().name = name("invoices");
    real.declare(vec![other, orders(app.port), dead_letters()]).await;
    let sidecar = Running::start(real.config()).await;
    real.send(1).await;
    real.send_to("invoices", 1).await;
    for queue in ["orders", "invoices"] {
        real.until(queue, "it is acknowledged", |state| state.totals.acknowledged == 1).await;
        assert!(app.read(|seen| seen.requests.iter().any(|request| request.body["queue"] == queue)));
    }
    sidecar.end().await;
}

#[tokio::test]
async fn a_pull_that_is_abandoned_leases_nothing() {
    let real = Real::start().await;
    real.declare(vec![orders(1), dead_letters()]).await;
    let client = real.client().with_identity("Deployment/shop".parse().unwrap(), "shop-1");
    let pull = Pull { idle_ms: Some(Whole(20_000)), ..Pull::default() };
    let (shop, orders) = (name("shop"), name("orders"));
    for round in 0..40 {
        let abandoned = tokio::spawn({
            let (client, shop, orders, pull) = (client.clone(), shop.clone(), orders.clone(), pull.clone());
            async move { client.pull(&shop, &orders, &pull).await }
        });
        // The pull is on its way, or waits, or was never sent.
        tokio::time::sleep(Duration::from_micros(round * 200)).await;
        abandoned.abort();
        assert!(abandoned.await.unwrap_err().is_cancelled());
        let sent = real.send(1).await;
        let pulled = soon("the message", client.pull(&shop, &orders, &pull)).await.unwrap();
        let message = pulled.messages.first();
        let message = message.unwrap_or_else(|| panic!("round {round}: the abandoned pull has the lease"));
        assert_eq!((&message.id, message.attempts), (&sent[0], 1), "round {round}");
        let acks = vec![Lease { lease_id: message.lease_id.clone() }];
        client.settle(&shop, &orders, &Settle { acks, ..Settle::default() }).await.unwrap();
    }
    let state = real.state("orders").await;
    assert_eq!((state.totals.acknowledged, state.totals.lease_expired, state.leased), (40, 0, 0));
}

#[tokio::test]
async fn a_pull_that_is_called_off_loses_nothing() {
    let real = Real::start().await;
    real.declare(vec![orders(1), dead_letters()]).await;
    let client = real.client().with_identity("Deployment/shop".parse().unwrap(), "shop-1");
    let pull = Pull { idle_ms: Some(Whole(20_000)), ..Pull::default() };
    let (shop, orders) = (name("shop"), name("orders"));
    for round in 0..60 {
        // At another moment each time: before the message is there, and when its answer is on its way.
        let stop = tokio::time::sleep(Duration::from_micros(1000 + round * 70));
        let (pulled, sent) = tokio::join!(client.pull_until(&shop, &orders, &pull, stop), real.send(1));
        let mut messages = pulled.unwrap().0.messages;
        let state = real.state("orders").await;
        assert_eq!(state.leased, messages.len() as u64, "round {round}: who pulled has the lease, or nobody");
        if messages.is_empty() {
            messages = client.pull(&shop, &orders, &pull).await.unwrap().messages;
        }
        assert_eq!((&messages[0].id, messages[0].attempts), (&sent[0], 1));
        let acks = vec![Lease { lease_id: messages[0].lease_id.clone() }];
        client.settle(&shop, &orders, &Settle { acks, ..Settle::default() }).await.unwrap();
    }
}

#[tokio::test]
async fn a_sidecar_that_ends_as_a_message_arrives_leaves_no_lease_behind() {
    let app = App::start([]).await;
    let real = Real::start().await;
    real.declare(vec![orders(app.port), dead_letters()]).await;
    let ended = Duration::from_micros(1000);
    for round in 0..40 {
        let mut sidecar = Running::start(real.config()).await;
        let waits = |metrics: &str| metrics.contains("capstan_pulls_waiting 1\n");
        until_metrics(real.admin(), "the sidecar pulls", waits).await;
        let end = async {
            tokio::time::sleep(ended + Duration::from_micros(round * 70)).await;
            sidecar.shut_down();
        };
        tokio::join!(end, real.send(1));
        sidecar.ended().await;
        assert_eq!(real.state("orders").await.leased, 0, "round {round}");
    }
    let sidecar = Running::start(real.config()).await;
    let state = real.until("orders", "all are acknowledged", |state| state.totals.acknowledged == 40).await;
    assert_eq!((state.totals.lease_expired, state.totals.retried), (0, 0));
    assert!(attempts(&app).iter().all(|attempts| *attempts == 1));
    sidecar.end().await;
}

#[tokio::test]
async fn what_an_abandoned_pull_gathered_goes_to_the_next_at_once() {
    let real = Real::start().await;
    real.declare(vec![orders(1), dead_letters()]).await;
    let client = real.client().with_identity("Deployment/shop".parse().unwrap(), "shop-1");
    let (shop, orders) = (name("shop"), name("orders"));
    let pull = |wait| Pull { wait_ms: Some(Whole(wait)), idle_ms: Some(Whole(60_000)), ..Pull::default() };
    let spawn = |pull: Pull| {
        let (client, shop, orders) = (client.clone(), shop.clone(), orders.clone());
        tokio::spawn(async move { client.pull(&shop, &orders, &pull).await })
    };
    let gathers = spawn(pull(60_000));
    until_metrics(real.admin(), "one waits", |metrics| metrics.contains("capstan_pulls_waiting 1\n")).await;
    let next = spawn(pull(0));
    until_metrics(real.admin(), "both wait", |metrics| metrics.contains("capstan_pulls_waiting 2\n")).await;
    let sent = real.send(1).await;
    gathers.abort();
    let pulled = soon("the next one has it", next).await.unwrap().unwrap();
    assert_eq!(pulled.messages[0].id, sent[0]);
}
