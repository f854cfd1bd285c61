//! The client commands against a running broker.

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Dev, run, run_with, yaml};

const PULL: &str = "\
{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {name: jobs}}
---
{apiVersion: capstan.dev/v1alpha1, kind: Consumer, metadata: {name: c}, spec: {queueRef: {name: jobs}, maxRetries: 1}}
---
{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {name: pushed}}
---
{apiVersion: capstan.dev/v1alpha1, kind: Consumer, metadata: {name: p}, spec: {queueRef: {name: pushed}, targetRef: {kind: Deployment, name: app}}}
";

/// A broker with a queue to pull from.
fn broker() -> (Dev, TempDir) {
    let (files, data) = (yaml(PULL), tempfile::tempdir().unwrap());
    let dev = Dev::start(files.path(), data.path(), &["--app-port", "1"]);
    dev.url();
    (dev, data)
}

#[test]
fn messages_go_round() {
    let (dev, _data) = broker();
    let sent = dev.client(&["send", "jobs", r#"{"id": 1}"#, "-o", "json"]).objects();
    assert_eq!((sent.len(), &sent[0]["queue"]), (1, &json!("jobs")));
    let done = dev.client(&["send", "jobs", "--text", "hello, {i}", "--attribute", "traceparent=x"]);
    assert!(
        done.code == Some(0) && done.out.contains("sent 1 message to jobs; 2 messages in it now"),
        "{done:?}"
    );

    let peeked = dev.client(&["peek", "jobs", "-o", "json"]).objects();
    assert_eq!((&peeked[0]["body"], &peeked[0]["state"]), (&json!({"id": 1}), &json!("ready")));
    assert_eq!((&peeked[1]["body"], &peeked[1]["content_type"]), (&json!("hello, {i}"), &json!("text")));
    assert_eq!(peeked[0]["id"], sent[0]["id"]);
    let table = dev.client(&["peek", "jobs"]).out;
    assert!(table.lines().count() == 3 && table.contains(r#"{"id": 1}"#), "{table}");

    let pulled = dev.client(&["pull", "jobs", "-o", "json", "--batch-size", "1"]).objects();
    assert_eq!((pulled.len(), &pulled[0]["body"], &pulled[0]["attempts"]), (1, &json!({"id": 1}), &json!(1)));
    let lease = pulled[0]["lease_id"].as_str().unwrap();
    let retried = dev.client(&["retry", "jobs", lease, "--reason", "later"]);
    assert_eq!((retried.code, retried.out.as_str()), (Some(0), "retried 1 message\n"), "{retried:?}");

    let pulled = dev.client(&["pull", "jobs", "-o", "json", "--wait", "30s", "--ack"]).objects();
    let attempts: Vec<_> = pulled.iter().map(|one| (&one["body"], &one["attempts"])).collect();
    assert_eq!(attempts.len(), 2, "{pulled:?}");
    assert!(attempts.contains(&(&json!({"id": 1}), &json!(2))), "{pulled:?}");
    assert_eq!(
        pulled.iter().find(|one| one["body"] == "hello, {i}").unwrap()["attributes"],
        json!({"traceparent": "x"})
    );
    assert_eq!(dev.backlog("jobs"), 0);
    assert_eq!(dev.client(&["peek", "jobs"]).out, "empty\n");

    let late = dev.client(&["ack", "jobs", lease]);
    assert!(late.code == Some(1) && late.err.contains(lease), "{late:?}");
}

/// Numbers keep their digits, objects their keys, and strings their escapes.
#[test]
fn bodies_come_back_as_they_were_sent() {
    let (dev, _data) = broker();
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let deep = nested(96);
    let bodies = [
        r#"{"a":12345678901234567890123,"f":1.10,"dup":1,"dup":2}"#,
        r#"{"whole":"\ud83d\ude00","e":1e300}"#,
        &deep,
    ];
    for body in bodies {
        let sent = dev.client(&["send", "jobs", body]);
        assert_eq!(sent.code, Some(0), "{body}: {sent:?}");
    }
    for (body, why) in
        [(nested(97).as_str(), "96 levels"), ("1e400", "64-bit float"), (r#""\ud800""#, "surrogate")]
    {
        let refused = dev.client(&["send", "jobs", body]);
        assert!(refused.code == Some(1) && refused.err.contains(why), "{body}: {refused:?}");
    }
    for command in [vec!["peek", "jobs", "-o", "json"], vec!["pull", "jobs", "--ack", "-o", "json"]] {
        let done = dev.client(&command);
        assert_eq!((done.code, done.out.lines().count()), (Some(0), bodies.len()), "{done:?}");
        for (line, body) in done.out.lines().zip(bodies) {
            assert!(line.contains(&format!(r#""body":{body},"#)), "{command:?}: {body} is not in: {line}");
        }
    }
}

#[test]
fn what_is_sent_again_with_its_key_is_stored_once() {
    let (dev, _data) = broker();
    let send = |body: &str, key: &str| {
        dev.client(&["send", "jobs", body, "--count", "150", "--idempotency-key", key, "-o", "json"])
    };
    let first = send("{i}", "import-7").objects();
    assert_eq!((first.len(), dev.backlog("jobs")), (150, 150));
    assert_eq!(send("{i}", "import-7").objects(), first);
    assert_eq!(dev.backlog("jobs"), 150, "in two requests, each of which was known");
    let other = send("7{i}", "import-7");
    assert!(other.code == Some(1) && other.err.contains("(10280)"), "{other:?}");
    let wrong = send("{i}", "import 7");
    assert!(wrong.code == Some(64) && wrong.err.contains("visible ASCII"), "{wrong:?}");
    let long = send("{i}", &"x".repeat(108));
    assert!(long.code == Some(64) && long.err.contains("at most 107 characters"), "{long:?}");
    assert_eq!(dev.backlog("jobs"), 150, "it is refused before anything is stored");
    assert_eq!(send("{i}", &"x".repeat(107)).objects().len(), 150);
}

#[test]
fn many_are_sent_from_templates_and_from_input() {
    let (dev, _data) = broker();
    let done = dev.client(&["send", "jobs", r#"{"id": {i}}"#, "--count", "250"]);
    assert!(
        done.code == Some(0) && done.out.contains("sent 250 messages to jobs; 250 messages in it now"),
        "{done:?}"
    );
    let url = dev.url();
    let lines: String = (0..150).map(|n| format!("[{n}]\n\n")).collect();
    let done = run_with(&["send", "--url", &url, "jobs", "-", "-o", "json"], &lines);
    assert_eq!(done.objects().len(), 150);
    let mut bodies = Vec::new();
    while dev.backlog("jobs") > 0 {
        let pulled = dev.client(&["pull", "jobs", "--batch-size", "100", "--ack", "-o", "json"]).objects();
        assert!(!pulled.is_empty(), "nothing to pull after {}", bodies.len());
        bodies.extend(pulled.into_iter().map(|one| one["body"].clone()));
    }
    let expected: Vec<_> = (1..=250).map(|n| json!({"id": n})).chain((0..150).map(|n| json!([n]))).collect();
    assert_eq!(bodies, expected);

    let done = run_with(&["send", "--url", &url, "jobs", "-"], "1\n2\n{bad\n3\n");
    assert!(
        done.code == Some(1) && done.err.contains("line 3") && done.err.contains("2 messages"),
        "{done:?}"
    );
    assert_eq!(dev.backlog("jobs"), 2);
}

#[test]
fn queues_are_listed_with_their_backlog() {
    let (dev, _data) = broker();
    assert_eq!(dev.client(&["send", "jobs", "1", "--delay", "1h"]).code, Some(0));
    let queues = dev.client(&["queues", "-o", "json"]).objects();
    let shown: Vec<_> =
        queues.iter().map(|one| (&one["queue"], &one["backlog_count"], &one["consumer"])).collect();
    assert_eq!(
        shown,
        [(&json!("jobs"), &json!(1), &json!("pull")), (&json!("pushed"), &json!(0), &json!("app"))]
    );
    assert_eq!(dev.client(&["peek", "jobs", "-o", "json"]).objects()[0]["state"], "delayed");
    let none = dev.client(&["pull", "jobs"]);
    assert!(none.code == Some(0) && none.out.starts_with("nothing to pull; 1 "), "{none:?}");
    assert_eq!(dev.client(&["queues", "-n", "elsewhere"]).out, "no queues in namespace elsewhere\n");
}

#[test]
fn refusals_say_why_and_exit_with_1() {
    let (dev, _data) = broker();
    for (args, part) in
        [(vec!["send", "nowhere", "1"], "10104"), (vec!["pull", "pushed"], "remove its targetRef")]
    {
        let done = dev.client(&args);
        assert!(done.code == Some(1) && done.err.contains(part), "{args:?}: {done:?}");
    }
    let done = run(&["queues", "--url", "http://127.0.0.1:1"]);
    assert!(done.code == Some(1) && done.err.contains("`capstan dev` starts one"), "{done:?}");
}
