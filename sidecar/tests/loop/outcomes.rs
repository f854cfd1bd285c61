//! The table of outcomes in docs/protocol.md, each row run.

use std::time::Duration;

use capstan_sidecar::verdict::{Answer, Class, Decision, Outcome, decide};

const PROTOCOL: &str = include_str!("../../../docs/protocol.md");
const IDS: [&str; 3] = ["m1", "m2", "m3"];

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
        "not called before shutdown" => (Outcome::NotCalled, true),
        status => (Outcome::Answer(answer(status.parse().expect(row.line), row.body)), false),
    }
}

fn answer(status: u16, cell: &str) -> Answer {
    if cell == "more than 1 MiB of a verdict" {
        return Answer {
            status,
            json: true,
            body: b"{\"explicitAcks\": [".to_vec(),
            too_long: true,
            ..Answer::default()
        };
    }
    let json = cell.ends_with("as JSON") || matches!(cell, "`null`");
    let body = cell.trim_end_matches(" as JSON").trim_matches('`').as_bytes().to_vec();
    Answer { status, json, body, ..Answer::default() }
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
        let began = matches!(verdict.class, Class::Handled | Class::Failed(_));
        assert_eq!(released, !began, "{}", row.line);
    }
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
