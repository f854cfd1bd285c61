//! The table of outcomes in docs/protocol.md: each row run through the decision alone, and through a sidecar.

use std::time::Duration;

use capstan_api::message::Settle;
use capstan_sidecar::verdict::{Answer, Class, Decision, Outcome, decide};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::app::{self, App, Reply};
use crate::support::broker::Broker;
use crate::support::{Running, config, policy, soon};

const PROTOCOL: &str = include_str!("../../../docs/protocol.md");
const IDS: [&str; 3] = ["m1", "m2", "m3"];
const LONG: &str = "more than 1 MiB of a verdict";
/// A moment that no test can bring about from outside.
const MOMENT: &str = "not called before shutdown";

struct Row<'a> {
    line: &'a str,
    call: &'a str,
    body: &'a str,
    expected: Vec<&'a str>,
}

fn rows() -> Vec<Row<'static>> {
    let section = PROTOCOL.split("\n### Outcomes\n").nth(1).unwrap().split("\n### ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, call, body, m1, m2, m3, _] = cells[..] else { panic!("not five columns: {line}") };
            Row { line, call, body, expected: vec![m1, m2, m3] }
        })
        .collect()
}

/// How the call ends, and whether the sidecar is draining.
fn outcome(row: &Row<'_>) -> (Outcome, bool) {
    match row.call {
        "connection refused" => (Outcome::Unreachable("refused".to_owned()), false),
        "no answer within `endpoint.timeout`" => (Outcome::TimedOut(Duration::from_secs(60)), false),
        "connection broken" => (Outcome::Broken("reset".to_owned()), false),
        "connection broken during shutdown" => (Outcome::Broken("reset".to_owned()), true),
        "call still open at the end of the drain" => (Outcome::Cut, true),
        MOMENT => (Outcome::NotCalled, true),
        status => (Outcome::Answer(answer(status.parse().expect(row.line), row.body)), false),
    }
}

fn answer(status: u16, cell: &str) -> Answer {
    if cell == LONG {
        let body = b"{\"explicitAcks\": [".to_vec();
        return Answer { status, json: true, body, too_long: true, ..Answer::default() };
    }
    let (body, json) = body_of(cell);
    Answer { status, json, body: body.as_bytes().to_vec(), ..Answer::default() }
}

/// The body that a cell shows, and whether it is sent as JSON.
fn body_of(cell: &str) -> (&str, bool) {
    let body = cell.trim_end_matches(" as JSON").trim_matches('`');
    (body, cell.ends_with(" as JSON") || body == "null")
}

fn written(decision: &Decision) -> String {
    match decision {
        Decision::Ack => "ack".to_owned(),
        Decision::Release => "release".to_owned(),
        Decision::Retry { delay_seconds: None, .. } => "retry".to_owned(),
        Decision::Retry { delay_seconds: Some(seconds), .. } => format!("retry in {seconds} s"),
    }
}

#[test]
fn every_row_of_the_documented_table_holds() {
    let rows = rows();
    assert!(rows.len() >= 60, "the table is where this test looks for it: {} rows", rows.len());
    for row in rows {
        let (outcome, draining) = outcome(&row);
        let verdict = decide(&outcome, &IDS, draining);
        let decisions: Vec<String> = verdict.decisions.iter().map(written).collect();
        assert_eq!(decisions, row.expected, "{}", row.line);
        let released = verdict.decisions.contains(&Decision::Release);
        let began = matches!(verdict.class, Class::Handled | Class::Failed(_) | Class::Malformed(_));
        assert_eq!(released, !began, "{}", row.line);
    }
}

#[tokio::test]
async fn every_row_holds_with_a_sidecar() {
    let (moments, rows): (Vec<_>, Vec<_>) = rows().into_iter().partition(|row| row.call == MOMENT);
    assert_eq!(moments.len(), 1);
    let mut runs: JoinSet<_> = rows.into_iter().map(|row| async move { (run(&row).await, row) }).collect();
    let mut count = 0;
    while let Some(run) = runs.join_next().await {
        let (outcomes, row) = run.unwrap();
        assert_eq!(outcomes, row.expected, "{}", row.line);
        count += 1;
    }
    assert!(count >= 60, "{count} rows");
}

/// Hands the batch to an application that does what the row says; gives back what the broker is told, by message.
async fn run(row: &Row<'static>) -> Vec<String> {
    let broker = Broker::start().await;
    match row.call {
        "connection refused" => {
            let app = App::start([]).await;
            let sidecar = begin(&broker, app.port, 60_000).await;
            broker.until("the application was there", |seen| seen.waiting == 1).await;
            app.stop_listening().await;
            broker.send(&IDS);
            settled(&broker, sidecar).await
        }
        "no answer within `endpoint.timeout`" => {
            broker.send(&IDS);
            let app = App::start([Reply::held()]).await;
            settled(&broker, begin(&broker, app.port, 300).await).await
        }
        "connection broken" => {
            broker.send(&IDS);
            let (_now, when) = watch::channel(true);
            let (port, ..) = app::breaking(when).await;
            settled(&broker, begin(&broker, port, 60_000).await).await
        }
        "connection broken during shutdown" => {
            broker.send(&IDS);
            let (now, when) = watch::channel(false);
            let (port, mut calls, _app) = app::breaking(when).await;
            let mut sidecar = begin(&broker, port, 60_000).await;
            soon("the call is open", calls.wait_for(|calls| *calls == 1)).await.unwrap();
            sidecar.shut_down();
            now.send(true).unwrap();
            sidecar.ended().await;
            broker.read(|seen| told(&seen.settles[0]))
        }
        "call still open at the end of the drain" => {
            broker.send(&IDS);
            let app = App::start([Reply::held()]).await;
            let sidecar = begin(&broker, app.port, 60_000).await;
            app.until("the call is open", |seen| seen.held == 1).await;
            sidecar.end().await;
            broker.read(|seen| told(&seen.settles[0]))
        }
        status => {
            broker.send(&IDS);
            let app = App::start([reply(status.parse().expect(row.line), row.body)]).await;
            settled(&broker, begin(&broker, app.port, 60_000).await).await
        }
    }
}

async fn begin(broker: &Broker, port: u16, timeout_ms: u64) -> Running {
    let mut policy = policy(port);
    policy.endpoint.timeout_ms = timeout_ms;
    // So short that the sidecar does not wait long for a shutdown that explains a broken connection.
    policy.visibility_timeout_ms = 900;
    broker.declare(vec![policy]);
    let mut config = config(broker);
    config.drain_timeout = Duration::from_millis(100);
    Running::start(config).await
}

async fn settled(broker: &Broker, sidecar: Running) -> Vec<String> {
    broker.until("the batch is settled", |seen| !seen.settles.is_empty()).await;
    sidecar.end().await;
    broker.read(|seen| told(&seen.settles[0]))
}

fn reply(status: u16, cell: &'static str) -> Reply {
    if cell == LONG {
        let body = format!("{{\"explicitAcks\": [{}", " ".repeat(1024 * 1024));
        return Reply { status: Some(status), ..Reply::body(body.leak()) };
    }
    let (body, json) = body_of(cell);
    let content_type = json.then_some("application/json");
    Reply { status: Some(status), content_type, ..Reply::body(body) }
}

/// What a settle says, in the words of the table.
fn told(settle: &Settle) -> Vec<String> {
    let of = |id: &str| {
        let lease = format!("lease-{id}");
        let acked = settle.acks.iter().filter(|one| one.lease_id == lease).map(|_| Decision::Ack);
        let released = settle.releases.iter().filter(|one| one.lease_id == lease).map(|_| Decision::Release);
        let retried = settle.retries.iter().filter(|one| one.lease_id == lease).map(|one| Decision::Retry {
            delay_seconds: one.delay_seconds.as_ref().and_then(serde_json::Number::as_u64),
            reason: String::new(),
        });
        let all: Vec<Decision> = acked.chain(released).chain(retried).collect();
        assert_eq!(all.len(), 1, "{id} is settled once: {settle:?}");
        written(&all[0])
    };
    IDS.map(of).to_vec()
}

#[test]
fn every_status_has_an_outcome() {
    for status in 100..=999 {
        let outcome = Outcome::Answer(Answer { status, ..Answer::default() });
        let verdict = decide(&outcome, &IDS, false);
        let acked = verdict.decisions.iter().all(|decision| *decision == Decision::Ack);
        assert_eq!(acked, (200..300).contains(&status), "{status}");
    }
}

#[test]
fn what_has_no_effect_is_a_warning() {
    for (body, warnings) in [
        (r#"{"explicitAcks": ["m1", "m9"]}"#, 1),
        (r#"{"explicitAcks": ["m1"], "retryMessages": [{"msgId": "m1"}, {"msgId": "m9"}]}"#, 2),
        (r#"{"explicitAcks": ["m1", "m1"], "retryMessages": [{"msgId": "m2"}]}"#, 0),
    ] {
        let verdict = decide(&Outcome::Answer(answer(200, body)), &IDS, false);
        assert_eq!(verdict.warnings.len(), warnings, "{body}: {:?}", verdict.warnings);
    }
}

#[test]
fn reasons_name_the_cause_and_stay_short() {
    let reason = |outcome: &Outcome| match decide(outcome, &["m1"], false).decisions.remove(0) {
        Decision::Retry { reason, .. } => reason,
        other => panic!("{other:?}"),
    };
    for (body, part) in [
        (r#"{"retry_messages": []}"#.to_owned(), "unknown field `retry_messages`"),
        (r#"{"retryMessages": [{"msgId": "m1"}]}"#.to_owned(), "the application asked for it"),
        (format!(r#"{{"outcome": "{}"}}"#, "ü".repeat(5000)), "the outcome"),
    ] {
        let reason = reason(&Outcome::Answer(answer(200, &body)));
        assert!(reason.contains(part) && reason.chars().count() <= 201, "{reason}");
    }
    assert_eq!(reason(&Outcome::Answer(answer(500, ""))), "the application answered 500");
    assert!(reason(&Outcome::Broken("reset".to_owned())).contains("broke: reset"));
    assert_eq!(reason(&Outcome::TimedOut(Duration::from_millis(1500))), "no answer within 1.5 s");
}
