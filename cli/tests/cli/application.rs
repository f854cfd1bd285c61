//! `--app`: starting, restarting and ending the application.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::json;

use crate::support::{App, DEADLINE, Dev, repository, yaml};

#[test]
fn an_application_that_ends_is_reported_and_started_again() {
    let (files, data) = (repository().join("examples/quickstart"), tempfile::tempdir().unwrap());
    let count = data.path().join("count");
    let command = format!(
        "echo x >> {0}; echo start $(wc -l < {0}) port $PORT at $CAPSTAN_GATEWAY_URL $CAPSTAN_URL; exit 3",
        count.display()
    );
    let dev = Dev::start(&files, data.path(), &["--app", &command, "--app-port", "0"]);
    let urls = format!("{} {}", dev.gateway(), dev.url());
    let first = dev.wait(&["app", "start 1 port "]);
    assert!(first.ends_with(&urls), "{first} does not name {urls}");
    dev.wait(&["app", "ended", "exit code 3; starting it again in 1 s"]);
    dev.wait(&["app", "start 2 port "]);
    dev.interrupt();
}

#[test]
fn the_application_ends_with_everything_it_started() {
    let (files, data) = (repository().join("examples/quickstart"), tempfile::tempdir().unwrap());
    let dev =
        Dev::start(&files, data.path(), &["--app", "sleep 1000 & echo child $!; wait", "--app-port", "0"]);
    let line = dev.wait(&["app", "child "]);
    let child = Pid::from_raw(line.split_whitespace().last().unwrap().parse().unwrap()).unwrap();
    assert!(test_kill_process(child).is_ok(), "it runs");
    dev.interrupt();
    gone(child);
}

/// Waits until a process has ended; a zombie has.
fn gone(process: Pid) {
    let until = Instant::now() + DEADLINE;
    let stat = format!("/proc/{}/stat", process.as_raw_nonzero());
    while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < until, "process {process:?} outlived its group");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Its group has a process that waits for that.
#[test]
fn the_application_ends_also_when_capstan_is_killed() {
    let (files, data) = (repository().join("examples/quickstart"), tempfile::tempdir().unwrap());
    let command = "trap '' TERM HUP; sleep 1000 & echo children $$ $!; wait";
    let mut dev = Dev::start(&files, data.path(), &["--app", command, "--app-port", "0"]);
    let line = dev.wait(&["app", "children "]);
    let (_, children) = line.split_once("children ").unwrap();
    let children: Vec<Pid> =
        children.split_whitespace().map(|id| Pid::from_raw(id.parse().unwrap()).unwrap()).collect();
    assert_eq!(children.len(), 2);
    assert!(children.iter().all(|child| test_kill_process(*child).is_ok()), "they run");
    dev.signal(Signal::KILL);
    dev.ended();
    for child in children {
        gone(child);
    }
}

#[test]
fn failures_are_shown_with_their_reason() {
    let (files, data, app) =
        (repository().join("examples/quickstart"), tempfile::tempdir().unwrap(), App::start());
    let dev =
        Dev::start(&files, data.path(), &["--app-port", &app.port(), "--send", "orders", r#"{"id": 1}"#]);
    app.call().answer(500, "");
    dev.wait(&["orders", "retried", "delivery 1 of 4: the application answered 500"]);
    let second = app.call();
    assert_eq!(second.batch["messages"][0]["attempts"], json!(2));
    second.answer(404, "");
    dev.wait(&["orders", "held back", "the application answered 404"]);
    // A verdict about a message that is not there would be a riddle otherwise.
    let third = app.call();
    assert_eq!(third.batch["messages"][0]["attempts"], json!(2), "a 404 is no attempt");
    third.answer(200, r#"{"retryMessages": [{"msgId": "x"}]}"#);
    dev.wait(&["warning", "no message \"x\" is in this batch"]);
    dev.interrupt();
}

#[test]
fn an_application_that_comes_back_is_served() {
    let (files, data, app) =
        (repository().join("examples/quickstart"), tempfile::tempdir().unwrap(), App::start());
    let port = app.port();
    let dev = Dev::start(&files, data.path(), &["--app-port", &port, "--send", "orders", r#"{"id": 1}"#]);
    app.call().answer(200, "");
    dev.wait(&["orders", "acknowledged"]);
    app.stop();
    assert_eq!(dev.client(&["send", "orders", r#"{"id": 2}"#]).code, Some(0));
    dev.wait(&["app", "waiting", &port]);
    let app = App::start_on(port.parse().unwrap());
    let call = app.call();
    assert_eq!(call.batch["messages"][0]["body"], json!({"id": 2}));
    assert_eq!(call.batch["messages"][0]["attempts"], json!(1), "nothing was delivered meanwhile");
    call.answer(200, "");
    dev.interrupt();
}

/// Written for a shell, it needs nothing but the port.
#[test]
fn an_application_sends_through_the_gateway_of_its_namespace() {
    let files =
        yaml("{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {name: orders, namespace: shop}}");
    let data = tempfile::tempdir().unwrap();
    let command =
        r#"curl -s -d '{"body": 7}' "$CAPSTAN_GATEWAY_URL/queues/orders/messages"; echo; exec sleep 1000"#;
    let dev = Dev::start(files.path(), data.path(), &["--app", command]);
    dev.wait(&["app", r#""success":true"#]);
    let peeked = dev.client(&["peek", "orders", "-n", "shop", "-o", "json"]).objects();
    assert_eq!((peeked.len(), &peeked[0]["body"]), (1, &json!(7)));
    dev.interrupt();
}
