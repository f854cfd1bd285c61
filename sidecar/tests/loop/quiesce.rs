//! The application's `preStop` hook: nothing is pulled until the application is back.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::app::{self, App, Reply};
use crate::support::broker::Broker;
use crate::support::{Running, config, get, policy, soon};

/// A sidecar with an admin port, two slots of which one has a call, and the longest drain `drain`.
async fn start(port: u16, drain: Duration) -> (Broker, Running) {
    let broker = Broker::start().await;
    broker.send(&["1"]);
    let mut policy = policy(port);
    policy.concurrency_per_pod = 2;
    broker.declare(vec![policy]);
    let mut config = config(&broker);
    (config.admin, config.drain_timeout) = (Some("127.0.0.1:0".parse().unwrap()), drain);
    let sidecar = Running::start(config).await;
    broker.until("the other slot pulls", |seen| seen.ready.is_empty() && seen.waiting >= 1).await;
    (broker, sidecar)
}

/// Calls the hook; the answer comes when it comes.
fn hook(sidecar: &Running) -> JoinHandle<(u16, String)> {
    let address = sidecar.admin.unwrap();
    tokio::spawn(async move { get(address, "/quiesce").await })
}

#[tokio::test]
async fn nothing_is_pulled_until_the_application_is_back() {
    let app = App::start([Reply::held()]).await;
    let (broker, sidecar) = start(app.port, Duration::from_secs(3600)).await;
    app.until("the call is open", |seen| seen.held == 1).await;

    let hook = hook(&sidecar);
    broker.until("the other pull is abandoned", |seen| seen.waiting == 0).await;
    broker.send(&["2"]);
    assert!(!hook.is_finished(), "it waits for the call");
    app.let_go(1);
    assert_eq!(soon("the hook returns", hook).await.unwrap(), (200, "quiescent\n".to_owned()));
    broker.until("the call is settled", |seen| seen.acked() == ["1"]).await;
    let (_, metrics) = get(sidecar.admin.unwrap(), "/metrics").await;
    assert!(metrics.contains("capstan_sidecar_quiescent 1"), "{metrics}");

    app.stop_listening().await;
    // A container is away for a while when it restarts; that is how the sidecar tells.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(broker.read(|seen| (seen.ready.len(), seen.pulls.len())), (1, 2), "nothing was pulled");
    let back = App::on(TcpListener::bind(("127.0.0.1", app.port)).await.unwrap(), []);
    broker.until("it goes on", |seen| seen.acked() == ["1", "2"]).await;
    assert_eq!(back.read(|seen| seen.requests.len()), 1);
    sidecar.end().await;
}

#[tokio::test]
async fn the_hook_returns_in_time_and_a_connection_that_breaks_then_releases() {
    let (break_now, when) = watch::channel(false);
    let (port, mut calls, _app) = app::breaking(when).await;
    let (broker, sidecar) = start(port, Duration::from_millis(200)).await;
    soon("the call is open", calls.wait_for(|calls| *calls == 1)).await.unwrap();
    let (status, text) = soon("the hook returns", hook(&sidecar)).await.unwrap();
    assert_eq!((status, text.as_str()), (200, "calls are still open\n"));
    assert!(broker.read(|seen| seen.settles.is_empty()), "the call goes on");
    break_now.send(true).unwrap();
    broker.until("it is settled", |seen| !seen.settles.is_empty()).await;
    assert_eq!(broker.read(|seen| (seen.released(), seen.retried())), (vec!["1".to_owned()], vec![]));
    sidecar.end().await;
}

#[tokio::test]
async fn a_quiescent_sidecar_ends() {
    let app = App::start([]).await;
    let (broker, sidecar) = start(app.port, Duration::from_secs(3600)).await;
    broker.until("it is acknowledged", |seen| seen.acked() == ["1"]).await;
    soon("the hook returns", hook(&sidecar)).await.unwrap();
    broker.until("nothing is pulled", |seen| seen.waiting == 0).await;
    sidecar.end().await;
}

#[tokio::test]
async fn a_call_of_the_hook_after_a_false_one_stops_nothing() {
    let app = App::start([Reply::held()]).await;
    let (broker, sidecar) = start(app.port, Duration::from_millis(100)).await;
    app.until("the call is open", |seen| seen.held == 1).await;
    soon("the hook returns", hook(&sidecar)).await.unwrap();
    broker.until("nothing is pulled", |seen| seen.waiting == 0).await;
    // The application stays: after the longest drain and its margin, that is known.
    broker.until("it goes on", |seen| seen.waiting == 1).await;
    let pulls = broker.read(|seen| seen.pulls.len());
    assert_eq!(soon("the hook returns", hook(&sidecar)).await.unwrap().1, "calls are still open\n");
    assert_eq!(
        broker.read(|seen| (seen.waiting, seen.pulls.len())),
        (1, pulls),
        "the pull was not abandoned"
    );
    app.let_go(1);
    broker.until("the call is settled", |seen| seen.acked() == ["1"]).await;
    sidecar.end().await;
}

#[tokio::test]
async fn a_connection_that_breaks_after_a_hook_that_stopped_nothing_releases() {
    let (break_now, when) = watch::channel(false);
    let (port, mut calls, _app) = app::breaking(when).await;
    let (broker, sidecar) = start(port, Duration::from_millis(100)).await;
    soon("the call is open", calls.wait_for(|calls| *calls == 1)).await.unwrap();
    soon("the hook returns", hook(&sidecar)).await.unwrap();
    broker.until("nothing is pulled", |seen| seen.waiting == 0).await;
    broker.until("it goes on", |seen| seen.waiting == 1).await;
    // The application is ended after all.
    soon("the hook returns", hook(&sidecar)).await.unwrap();
    break_now.send(true).unwrap();
    broker.until("it is settled", |seen| !seen.settles.is_empty()).await;
    assert_eq!(broker.read(|seen| (seen.released(), seen.retried())), (vec!["1".to_owned()], vec![]));
    sidecar.end().await;
}
