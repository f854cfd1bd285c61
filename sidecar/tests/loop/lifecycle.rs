//! Policies that come, change and go; shutdown; the admin port.

use std::time::Duration;

use crate::support::app::{self, App, Reply};
use crate::support::broker::Broker;
use crate::support::{Running, config, get, name, policy, soon, until_metrics};
use tokio::sync::watch;

#[tokio::test]
async fn a_sidecar_without_consumers_idles_and_ends() {
    let broker = Broker::start().await;
    broker.declare(vec![]);
    let sidecar = Running::start(config(&broker)).await;
    broker.declare(vec![]);
    assert!(broker.read(|seen| seen.pulls.is_empty()));
    sidecar.end().await;
}

#[tokio::test]
async fn a_sidecar_whose_broker_is_away_ends_all_the_same() {
    let (_socket, port) = app::silent();
    let broker = Broker::start().await;
    let mut config = config(&broker);
    config.broker_url = format!("http://127.0.0.1:{port}");
    Running::start(config).await.end().await;
}

#[tokio::test]
async fn policies_take_effect_while_running() {
    let app = App::start([]).await;
    let broker = Broker::start().await;
    broker.declare(vec![policy(app.port)]);
    let sidecar = Running::start(config(&broker)).await;
    broker.until("one slot pulls", |seen| seen.waiting == 1).await;

    let mut changed = policy(app.port);
    (changed.concurrency_per_pod, changed.max_batch_size) = (3, 7);
    changed.endpoint.path = "/elsewhere".to_owned();
    broker.declare(vec![changed.clone()]);
    let new = |seen: &crate::support::broker::Seen| {
        let new = seen.pulls.iter().filter(|(_, pull)| pull.batch_size.unwrap().0 == 7).count();
        seen.waiting == 3 && new >= 3
    };
    broker.until("three slots pull by the new policy", new).await;
    broker.send(&["1"]);
    broker.until("it is acknowledged", |seen| seen.acked() == ["1"]).await;
    assert_eq!(app.read(|seen| seen.requests[0].path.clone()), "/elsewhere");

    changed.concurrency_per_pod = 1;
    broker.declare(vec![changed.clone()]);
    broker.until("one slot is left", |seen| seen.waiting == 1).await;

    changed.paused = true;
    broker.declare(vec![changed.clone()]);
    broker.until("nothing is pulled", |seen| seen.waiting == 0).await;
    changed.paused = false;
    broker.declare(vec![changed]);
    broker.until("it goes on", |seen| seen.waiting == 1).await;
    sidecar.end().await;
}

#[tokio::test]
async fn a_consumer_that_goes_finishes_its_call_and_one_that_comes_works() {
    let app = App::start([Reply::held()]).await;
    let broker = Broker::start().await;
    broker.send(&["1"]);
    broker.declare(vec![policy(app.port)]);
    let sidecar = Running::start(config(&broker)).await;
    app.until("the call is open", |seen| seen.held == 1).await;
    let other = capstan_api::workload::WorkloadConsumer { queue: name("invoices"), ..policy(app.port) };
    broker.declare(vec![other]);
    broker.until("the other queue is pulled", |seen| seen.waiting == 1).await;
    app.let_go(1);
    broker.until("the open call is settled", |seen| seen.acked() == ["1"]).await;
    broker.declare(vec![]);
    broker.until("nothing is pulled any more", |seen| seen.waiting == 0).await;
    broker.declare(vec![policy(app.port)]);
    broker.send(&["2"]);
    broker.until("it works again", |seen| seen.acked() == ["1", "2"]).await;
    sidecar.end().await;
}

#[tokio::test]
async fn a_drain_stops_pulls_and_finishes_calls() {
    let app = App::start([Reply::held()]).await;
    let broker = Broker::start().await;
    broker.send(&["1"]);
    let mut policy = policy(app.port);
    policy.concurrency_per_pod = 2;
    broker.declare(vec![policy]);
    let mut sidecar = Running::start(config(&broker)).await;
    app.until("the call is open", |seen| seen.held == 1).await;
    broker.until("the other slot pulls", |seen| seen.waiting == 1).await;
    sidecar.shut_down();
    broker.until("the pull is abandoned", |seen| seen.waiting == 0).await;
    broker.send(&["2"]);
    // A verdict that the broker refuses at first is sent all the same.
    broker.change(|seen| seen.refuse_settles = 1);
    app.let_go(1);
    sidecar.ended().await;
    broker.read(|seen| {
        assert_eq!(seen.acked(), ["1"]);
        assert_eq!((seen.ready.len(), seen.released().len(), seen.retried().len()), (1, 0, 0));
    });
    assert_eq!(app.read(|seen| seen.requests.len()), 1);
}

#[tokio::test]
async fn a_drain_that_takes_too_long_releases() {
    let app = App::start([Reply::held()]).await;
    let broker = Broker::start().await;
    broker.send(&["1"]);
    broker.declare(vec![policy(app.port)]);
    let mut config = config(&broker);
    config.drain_timeout = Duration::from_millis(200);
    let sidecar = Running::start(config).await;
    app.until("the call is open", |seen| seen.held == 1).await;
    sidecar.end().await;
    broker.read(|seen| {
        assert_eq!((seen.released(), seen.retried(), seen.acked()), (vec!["1".to_owned()], vec![], vec![]));
    });
}

#[tokio::test]
async fn a_connection_that_breaks_just_before_the_drain_releases() {
    let (break_now, when) = watch::channel(false);
    let (port, mut calls, _app) = app::breaking(when).await;
    let broker = Broker::start().await;
    broker.send(&["1"]);
    broker.declare(vec![policy(port)]);
    let mut sidecar = Running::start(config(&broker)).await;
    soon("the call is open", calls.wait_for(|calls| *calls == 1)).await.unwrap();
    break_now.send(true).unwrap();
    sidecar.shut_down();
    sidecar.ended().await;
    broker.read(|seen| assert_eq!((seen.released(), seen.retried()), (vec!["1".to_owned()], vec![])));
}

#[tokio::test]
async fn the_admin_port_answers_probes_shows_metrics_and_drains() {
    let app = App::start([Reply::held()]).await;
    let broker = Broker::start().await;
    broker.send(&["1"]);
    broker.declare(vec![policy(app.port)]);
    let mut config = config(&broker);
    config.admin = Some("127.0.0.1:0".parse().unwrap());
    let mut sidecar = Running::start(config).await;
    app.until("the call is open", |seen| seen.held == 1).await;
    let admin = sidecar.admin.unwrap();
    let get = async |path: &str| get(admin, path).await;
    assert_eq!((get("/livez").await.0, get("/startupz").await.0, get("/other").await.0), (200, 200, 404));
    assert_eq!(get("/drain").await.0, 405, "looking at it drains nothing");
    let in_flight = r#"capstan_sidecar_calls_in_flight{namespace="shop",queue="orders"} 1"#;
    let (_, metrics) = get("/metrics").await;
    assert!(metrics.contains(in_flight), "{metrics}");

    let drain = tokio::spawn(capstan_sidecar::drain::drain(move |name| {
        (name == capstan_sidecar::config::ADMIN_PORT).then(|| admin.port().to_string())
    }));
    app.let_go(1);
    soon("the drain is over", drain).await.unwrap().unwrap();
    assert_eq!(broker.read(|seen| (seen.acked(), seen.waiting)), (vec!["1".to_owned()], 0));
    // Drained, it still answers: the kubelet ends it when the application is gone.
    assert_eq!(get("/livez").await.0, 200);
    sidecar.shut_down();
    sidecar.ended().await;
}

#[tokio::test]
async fn metrics_of_a_consumer_that_is_gone_go_too() {
    let app = App::start([Reply::body(r#"{"ok": true}"#), Reply::status(404)]).await;
    let broker = Broker::start().await;
    broker.send(&["0"]);
    broker.declare(vec![policy(app.port)]);
    let mut config = config(&broker);
    config.admin = Some("127.0.0.1:0".parse().unwrap());
    let sidecar = Running::start(config).await;
    let admin = sidecar.admin.unwrap();
    broker.until("it is retried", |seen| seen.retried() == ["0"]).await;
    broker.send(&["1"]);
    broker.until("it is acknowledged", |seen| seen.acked() == ["1"]).await;
    until_metrics(admin, "all calls are counted", |metrics| {
        let line = |outcome| {
            format!(r#"capstan_sidecar_calls_total{{namespace="shop",outcome="{outcome}",queue="orders"}} 1"#)
        };
        ["malformed", "not_begun", "handled"].iter().all(|outcome| metrics.contains(&line(outcome)))
    })
    .await;
    broker.declare(vec![]);
    until_metrics(admin, "no series is left", |metrics| !metrics.contains(r#"queue="orders""#)).await;
    sidecar.end().await;
}

#[tokio::test]
async fn silent_connections_do_not_take_the_admin_port_away() {
    let broker = Broker::start().await;
    let mut config = config(&broker);
    config.admin = Some("127.0.0.1:0".parse().unwrap());
    let sidecar = Running::start(config).await;
    let admin = sidecar.admin.unwrap();
    let mut silent = Vec::new();
    for _ in 0..80 {
        silent.push(tokio::net::TcpStream::connect(admin).await.unwrap());
    }
    // Those beyond the most at once, and they are told; the others after a while.
    let mut told = 0;
    for stream in silent.iter_mut().rev() {
        let mut text = Vec::new();
        // A reset is an end too.
        let _ = soon("it is closed", tokio::io::AsyncReadExt::read_to_end(stream, &mut text)).await;
        told += usize::from(text.starts_with(b"HTTP/1.1 503 "));
    }
    assert_eq!(told, 80 - 64);
    assert_eq!(get(admin, "/livez").await.0, 200);
    sidecar.end().await;
}
