//! An API server that goes away, refuses, says that a watch is too old, keeps quiet, or whose answers are lost.

use e2e::cluster::{LONG, until};

use super::Window;
use super::shop::Shop;
use crate::field::{Call, Fault, Field, on_field};

/// How often the API server restarts.
const RESTARTS: usize = 3;
/// Looks at the broker while it is away.
const LOOKS: u64 = 3;

/// What fails, how, and how often.
struct Failure {
    what: &'static str,
    fault: Fault,
    times: usize,
    applies: fn(&Call) -> bool,
}

const fn failure(what: &'static str, fault: Fault, times: usize, applies: fn(&Call) -> bool) -> Failure {
    Failure { what, fault, times, applies }
}

fn is_watch(call: &Call) -> bool {
    call.verb == "watch"
}

fn is_status(call: &Call) -> bool {
    call.resource.ends_with("/status")
}

const FAILURES: [Failure; 12] = [
    failure("watches end at once with 410", Fault::Expired, 12, is_watch),
    failure("watches are answered with 410", Fault::Answer(410, None), 6, is_watch),
    failure("watches are answered with 409", Fault::Answer(409, None), 6, is_watch),
    failure("watches are answered with 429", Fault::Answer(429, Some(1)), 12, is_watch),
    failure("watches are answered with 500", Fault::Answer(500, None), 12, is_watch),
    failure("watches are not answered", Fault::Hang, 6, is_watch),
    failure("statuses are answered with 409", Fault::Answer(409, None), 20, is_status),
    failure("writes are answered with 429", Fault::Answer(429, Some(1)), 30, Call::is_write),
    failure("writes are answered with 500", Fault::Answer(500, None), 12, Call::is_write),
    failure("everything is answered with 503", Fault::Answer(503, None), 60, |_| true),
    failure("writes are done and their answers lost", Fault::Lost, 12, Call::is_write),
    failure("writes are not answered", Fault::Hang, 4, Call::is_write),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_fails_delays_and_no_more() {
    on_field("refused", 1, async |field| {
        let _operator = field.operator(&[]).await;
        let mut shop = Shop::open(field).await;
        for failure in &FAILURES {
            println!("---- {}", failure.what);
            let window = Window::open(field);
            let met = field.proxy.fail(failure.fault, failure.times, failure.applies);
            field.proxy.cut_watches();
            shop.change().await;
            until(failure.what, LONG, async || {
                let count = met.count();
                if count == failure.times { Ok(()) } else { Err(format!("{count} times so far")) }
            })
            .await;
            field.proxy.heal();
            shop.converged().await;
            window.close(field, failure.what, shop.objects());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_meets_a_conflict_is_written_again() {
    on_field("conflict", 1, async |field| {
        let _operator = field.operator(&[]).await;
        let mut shop = Shop::open(field).await;
        let is_consumer = |call: &Call| call.resource == "consumers/status";
        let met = field.proxy.fail(Fault::Answer(409, None), 2, is_consumer);
        // Nothing else happens that would have it written anyway.
        shop.touch().await;
        shop.converged().await;
        assert_eq!(met.count(), 2);
    })
    .await;
}

/// As with a webhook for Services that is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_brokers_object_that_cannot_be_written_keeps_no_queue_from_it() {
    on_field("webhook", 1, async |field| {
        let _operator = field.operator(&[]).await;
        let mut shop = Shop::open(field).await;
        let is_service = |call: &Call| call.verb == "patch" && call.resource == "services";
        let met = field.proxy.fail(Fault::Answer(500, None), usize::MAX, is_service);
        let changed = shop.change_service().await;
        until("the Service is not written", LONG, async || match met.count() {
            0 => Err("not tried yet".to_owned()),
            _ => Ok(()),
        })
        .await;
        shop.change().await;
        shop.served().await;
        assert!(shop.observed().await < changed, "nobody is told that it was done");
        field.proxy.heal();
        shop.converged().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_restarts_is_waited_for() {
    on_field("away", 1, async |field| {
        let _operator = field.operator(&[]).await;
        let mut shop = Shop::open(field).await;
        for _ in 0..RESTARTS {
            let window = Window::open(field);
            field.proxy.close();
            shop.change().await;
            looks(field).await;
            field.proxy.open();
            shop.converged().await;
            window.close(field, "the API server was away", shop.objects());
        }
    })
    .await;
}

/// Waits until the broker was looked at some times: the operator is there, and goes on as well as it can.
async fn looks(field: &Field) {
    let asked = || field.plane.asked().values().sum::<u64>();
    let from = asked();
    until("the operator looks at its broker", LONG, async || {
        let looks = asked() - from;
        if looks >= LOOKS { Ok(()) } else { Err(format!("{looks} times so far")) }
    })
    .await;
}
