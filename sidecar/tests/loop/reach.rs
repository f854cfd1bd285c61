//! What the broker is told about the application, and what it shows of that.

use capstan_api::control::{ApplicationState, QueueState, UnreachablePod};
use std::time::Duration;

use capstan_api::workload::{ConsumerReport, PodReport, REPORT_CONSUMERS_MAX, REPORT_EVERY};
use capstan_sidecar::Config;
use capstan_sidecar::breaker::STARTS;
use capstan_sidecar::config::Reporting;
use capstan_sidecar::event::What;
use tokio::net::TcpListener;

use crate::support::app::{App, Reply, silent};
use crate::support::broker::Broker;
use crate::support::real::{Real, orders, queue};
use crate::support::{Running, config, get, name, policy, soon};

const REFUSAL: &str = "the application answered 404";

fn report(unreachable: Option<&str>) -> PodReport {
    let unreachable = unreachable.map(str::to_owned);
    PodReport {
        consumers: vec![ConsumerReport { queue: name("orders"), consumer: name("orders"), unreachable }],
    }
}

fn state(reachable: u32, unreachable: u32, example: Option<(&str, &str)>) -> Option<ApplicationState> {
    let example = example.map(|(pod, why)| UnreachablePod { pod: pod.to_owned(), reason: why.to_owned() });
    Some(ApplicationState { consumer: name("orders"), reachable, unreachable, example })
}

#[tokio::test]
async fn each_change_is_told_until_the_broker_takes_it() {
    let app = App::start([Reply::status(404), Reply::held()]).await;
    let broker = Broker::start().await;
    broker.change(|seen| seen.refuse_reports = 1);
    broker.declare(vec![policy(app.port)]);
    let mut sidecar = Running::start(config(&broker)).await;
    broker.until("it is reachable", |seen| seen.reports == [report(None)]).await;
    broker.send(&["1"]);
    broker.until("it is not", |seen| seen.reports.last() == Some(&report(Some(REFUSAL)))).await;
    app.until("it is tried again", |seen| seen.held == 1).await;
    app.let_go(1);
    broker.until("it is again", |seen| seen.reports.last() == Some(&report(None))).await;
    sidecar.shut_down();
    sidecar.ended().await;
    assert_eq!(
        broker.read(|seen| seen.reports.last().cloned()),
        Some(PodReport::default()),
        "it says goodbye"
    );
}

#[tokio::test]
async fn nothing_is_told_of_a_consumer_that_is_gone() {
    let app = App::start([]).await;
    let broker = Broker::start().await;
    broker.declare(vec![policy(app.port)]);
    let sidecar = Running::start(config(&broker)).await;
    broker.until("it is reachable", |seen| seen.reports == [report(None)]).await;
    broker.declare(vec![]);
    broker.until("it is gone", |seen| seen.reports.last() == Some(&PodReport::default())).await;
    sidecar.end().await;
}

/// Reports often, so that no test waits for half a minute, and knows no application that should have started by now.
fn hasty(broker: &Broker) -> Config {
    let reporting = Reporting { every: Duration::from_millis(200), grace: Duration::from_secs(3600) };
    Config { reporting, ..config(broker) }
}

fn is_absent(report: &PodReport) -> bool {
    let reason = report.consumers.first().and_then(|one| one.unreachable.as_deref());
    reason.is_some_and(|reason| reason.contains("Connection refused"))
}

#[tokio::test]
async fn an_application_that_goes_away_beside_an_empty_queue_is_told_of_and_its_return_too() {
    let app = App::start([]).await;
    let broker = Broker::start().await;
    broker.declare(vec![policy(app.port)]);
    let sidecar = Running::start(hasty(&broker)).await;
    broker.until("it is said again", |seen| seen.reports.len() >= 2).await;
    assert_eq!(broker.read(|seen| seen.reports[..2].to_vec()), [report(None), report(None)]);
    app.stop_listening().await;
    broker.until("it is gone", |seen| seen.reports.last().is_some_and(is_absent)).await;
    let back = App::on(TcpListener::bind(("127.0.0.1", app.port)).await.unwrap(), []);
    broker.until("it is back", |seen| seen.reports.last() == Some(&report(None))).await;
    assert_eq!(back.read(|seen| seen.requests.len()), 0, "no message was needed");
    sidecar.end().await;
}

#[tokio::test]
async fn an_application_that_is_starting_is_no_news() {
    let (socket, port) = silent();
    let broker = Broker::start().await;
    broker.declare(vec![policy(port)]);
    let mut sidecar = Running::start(hasty(&broker)).await;
    let event = soon("it is looked for", sidecar.events.recv()).await.unwrap();
    assert!(matches!(event.what, What::Unreachable { .. }), "{event:?}");
    // Said once, however often it is looked for.
    let more = tokio::time::timeout(10 * STARTS, sidecar.events.recv()).await;
    assert!(more.is_err(), "{more:?}");
    assert_eq!(broker.read(|seen| seen.reports.clone()), []);
    let app = App::on(socket.listen(64).unwrap(), []);
    broker.until("it is there", |seen| !seen.reports.is_empty()).await;
    assert_eq!(broker.read(|seen| seen.reports[0].clone()), report(None), "nothing else was told before");
    // Now it is news, although the sidecar is still young.
    app.stop_listening().await;
    broker.until("it is gone", |seen| seen.reports.last().is_some_and(is_absent)).await;
    sidecar.end().await;
}

#[tokio::test]
async fn an_older_broker_that_knows_no_reports_is_no_error() {
    let app = App::start([]).await;
    let broker = Broker::start().await;
    broker.change(|seen| seen.has_no_reports = true);
    broker.declare(vec![policy(app.port)]);
    let admin = Some("127.0.0.1:0".parse().unwrap());
    let sidecar = Running::start(Config { admin, ..hasty(&broker) }).await;
    broker.until("it is asked again", |seen| seen.reports_lost > 2).await;
    let errors = "capstan_sidecar_broker_errors_total{request=\"report\"}";
    let (_, metrics) = get(sidecar.admin.unwrap(), "/metrics").await;
    assert!(metrics.contains(&format!("{errors} 0\n")), "{metrics}");
    broker.change(|seen| (seen.has_no_reports, seen.refuse_reports) = (false, 1));
    broker.until("its successor is told", |seen| seen.reports == [report(None)]).await;
    let (_, metrics) = get(sidecar.admin.unwrap(), "/metrics").await;
    assert!(metrics.contains(&format!("{errors} 1\n")), "{metrics}");
    sidecar.end().await;
}

#[tokio::test]
async fn the_broker_shows_what_is_said_now_and_after_its_restart() {
    let (_socket, port) = silent();
    let mut real = Real::start().await;
    real.declare(vec![orders(port), queue("orders-dlq")]).await;
    assert_eq!(real.state("orders").await.application, None);
    let reporting = Reporting { grace: Duration::from_millis(500), ..Reporting::default() };
    let sidecar = Running::start(Config { reporting, ..real.config() }).await;
    let is_down = |state: &QueueState| {
        let application = state.application.as_ref();
        application.is_some_and(|application| (application.reachable, application.unreachable) == (0, 1))
    };
    let down = real.until("orders", "nobody listens", is_down).await.application.unwrap();
    let example = down.example.unwrap();
    assert_eq!(example.pod, "shop-1");
    assert!(example.reason.contains("Connection refused"), "{}", example.reason);
    real.stop().await;
    real.begin().await;
    let again = real.until("orders", "it is said again", is_down);
    tokio::time::timeout(REPORT_EVERY / 2, again).await.expect("long before the next report is due");
    sidecar.end().await;
    assert_eq!(real.state("orders").await.application, None, "the pod is gone");
}

#[tokio::test]
async fn pods_are_counted_and_those_of_others_are_not() {
    let real = Real::start().await;
    real.declare(vec![orders(1), queue("orders-dlq")]).await;
    let (client, shop) = (real.client(), name("shop"));
    let say = async |workload: &str, pod: &str, report: &PodReport| {
        client.report(&shop, &workload.parse().unwrap(), pod, report).await
    };
    say("Deployment/shop", "shop-2", &report(Some("no"))).await.unwrap();
    say("Deployment/shop", "shop-1", &report(Some("not now"))).await.unwrap();
    say("Deployment/shop", "shop-3", &report(None)).await.unwrap();
    say("Deployment/other", "other-1", &report(Some("no"))).await.unwrap();
    let mut others = report(Some("no"));
    others.consumers[0].consumer = name("others");
    say("Deployment/shop", "shop-4", &others).await.unwrap();
    assert_eq!(real.state("orders").await.application, state(1, 2, Some(("shop-1", "not now"))));
    say("Deployment/shop", "shop-1", &report(None)).await.unwrap();
    assert_eq!(real.state("orders").await.application, state(2, 1, Some(("shop-2", "no"))));
    say("Deployment/shop", "shop-2", &PodReport::default()).await.unwrap();
    assert_eq!(real.state("orders").await.application, state(2, 0, None));

    let many = PodReport { consumers: vec![report(None).consumers.remove(0); REPORT_CONSUMERS_MAX + 1] };
    let refused = say("Deployment/shop", "shop-1", &many).await.unwrap_err();
    assert_eq!(refused.code(), Some(10207), "{refused}");
    // Another Consumer has the queue now: what is said of the old one says nothing of it.
    let mut renamed = orders(1);
    renamed.consumer.as_mut().unwrap().name = name("others");
    real.declare(vec![renamed, queue("orders-dlq")]).await;
    assert_eq!(real.state("orders").await.application, None);
}
