//! What cannot run is refused with a text that says where and why.

use std::net::{Ipv4Addr, TcpListener};

use crate::support::{Dev, repository, run, run_with, yaml};

const QUEUE: &str = "{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {name: a}}";

/// Runs `capstan dev` on a YAML text that must be refused.
fn refused(text: &str) -> String {
    let (files, data) = (yaml(text), tempfile::tempdir().unwrap());
    let done = run(&[
        "dev",
        files.path().to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--data",
        data.path().to_str().unwrap(),
    ]);
    assert_eq!(done.code, Some(1), "{text}: {done:?}");
    assert!(done.err.starts_with("capstan: "), "{done:?}");
    done.err
}

/// By file, object and field.
#[test]
fn bad_yaml_is_refused_by_file_object_and_field() {
    let consumer = |spec: &str| {
        format!(
            "{{apiVersion: capstan.dev/v1alpha1, kind: Consumer, metadata: {{name: c}}, spec: {{{spec}}}}}\n---\n{QUEUE}"
        )
    };
    for (text, parts) in [
        ("a: [".to_owned(), vec!["all.yaml", "not valid YAML"]),
        ("kind: Queue".to_owned(), vec!["all.yaml", "document 1", "apiVersion"]),
        (
            consumer("queueRef: {name: a}, maxBatchSize: 101"),
            vec!["all.yaml", "Consumer c", "spec.maxBatchSize", "at most 100"],
        ),
        (
            consumer("queueRef: {name: a}, batch: 1"),
            vec!["all.yaml", "Consumer c", "spec.batch", "unknown field"],
        ),
        // A rule in CEL.
        (
            consumer("queueRef: {name: a}, deadLetterQueueRef: {name: a}"),
            vec!["all.yaml", "Consumer c", "deadLetterQueueRef.name must be another queue"],
        ),
        (
            consumer("queueRef: {name: b}"),
            vec!["all.yaml", "Consumer c", "spec.queueRef.name", "no Queue default/b", "default/a"],
        ),
        (format!("{QUEUE}\n---\n{QUEUE}"), vec!["all.yaml", "Queue default/a", "once"]),
        ("{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}".to_owned(), vec!["no Queue"]),
    ] {
        let error = refused(&text);
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }
}

#[test]
fn files_that_are_not_there_are_named() {
    let empty = tempfile::tempdir().unwrap();
    let done = run(&["dev", empty.path().to_str().unwrap()]);
    assert!(done.code == Some(1) && done.err.contains("no files with the endings yaml"), "{done:?}");
    let done = run(&["dev", "nowhere.yaml"]);
    assert!(done.code == Some(1) && done.err.contains("nowhere.yaml: No such file"), "{done:?}");
    let done = run_with(&["dev", "-"], "a: [");
    assert!(done.code == Some(1) && done.err.contains("standard input: not valid YAML"), "{done:?}");
}

#[test]
fn the_application_and_the_gateway_cannot_have_one_port() {
    let (files, data) = (repository().join("examples/quickstart"), tempfile::tempdir().unwrap());
    let (files, data) = (files.to_str().unwrap(), data.path().to_str().unwrap());
    let ports = ["--app-port", "21060", "--gateway-port", "21060"];
    let done = run(&[&["dev", files, "--listen", "127.0.0.1:0", "--data", data], &ports[..]].concat());
    assert_eq!(done.code, Some(64), "{done:?}");
    assert!(done.err.contains("--gateway-port 21060") && done.err.contains("--app-port"), "{done:?}");
}

#[test]
fn what_another_process_holds_is_named_with_a_way_out() {
    let (files, data) = (repository().join("examples/quickstart"), tempfile::tempdir().unwrap());
    let dev = Dev::start(&files, data.path(), &["--app-port", "1"]);
    let address = dev.url().trim_start_matches("http://").to_owned();
    let (files, held) = (files.to_str().unwrap(), data.path().to_str().unwrap());
    let free = tempfile::tempdir().unwrap();
    let free = free.path().to_str().unwrap();

    let done = run(&["dev", files, "--listen", &address, "--data", free]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.err.contains(&format!("cannot listen on {address}"))
            && done.err.contains("--listen 127.0.0.1:0"),
        "{done:?}"
    );

    let port = dev.gateway().rsplit_once(':').unwrap().1.to_owned();
    let done = run(&["dev", files, "--listen", "127.0.0.1:0", "--data", free, "--gateway-port", &port]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.err.contains(&format!("127.0.0.1:{port}")) && done.err.contains("--gateway-port"),
        "{done:?}"
    );

    let done = run(&["dev", files, "--listen", "127.0.0.1:0", "--data", held]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("in use by another broker") && done.err.contains("--data"), "{done:?}");

    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let done =
        run(&["dev", files, "--listen", "127.0.0.1:0", "--data", free, "--app", "true", "--app-port", &port]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.err.contains(&format!("cannot listen on port {port}")) && done.err.contains("--app-port"),
        "{done:?}"
    );
    dev.interrupt();
}

#[test]
fn wrong_command_lines_exit_with_64() {
    let files = repository().join("examples/quickstart");
    let files = files.to_str().unwrap();
    for (args, part) in [
        (vec!["dev"], "FILE"),
        (vec!["dev", files, "--send", "orders"], "--send"),
        (vec!["dev", files, "--send", "order", "1"], "there is no Queue order; there are orders, orders-dlq"),
        (vec!["dev", files, "--send", "orders", "{id: 1}"], "is not JSON"),
        (vec!["dev", files, "--app-port", "0"], "--app-port 0 needs --app"),
        (vec!["dev", files, "--listen", "localhost"], "--listen"),
        (vec!["send", "orders"], "BODY"),
        (vec!["send", "orders", "{id: 1}"], "is not JSON"),
        (vec!["send", "Orders", "1"], "is not a valid name"),
        (vec!["send", "orders", "1", "--delay", "soon"], "not a duration"),
        (vec!["send", "orders", "-", "--count", "2"], "--count"),
        (vec!["send", "orders", "1", "--count", "0"], "--count"),
        (vec!["send", "orders", "1", "--delay", "25h"], "--delay <TIME>': at most 24h"),
        (vec!["retry", "orders", "lease", "--delay", "86401"], "--delay <TIME>': at most 24h"),
        (vec!["pull", "orders", "--wait", "61s"], "--wait <TIME>': at most 1m"),
        (vec!["pull", "orders", "--visibility-timeout", "13h"], "--visibility-timeout <TIME>': at most 12h"),
        (vec!["pull", "orders", "--batch-size", "0"], "--batch-size"),
        (vec!["pull", "orders", "--batch-size", "101"], "--batch-size"),
        (vec!["peek", "orders", "--batch-size", "0"], "--batch-size"),
        (vec!["peek", "orders", "--url", "nowhere"], "http://HOST"),
        (vec!["ack", "orders"], "LEASE_ID"),
        (vec!["fetch"], "fetch"),
    ] {
        let done = run(&args);
        assert_eq!(done.code, Some(64), "{args:?}: {done:?}");
        assert!(done.err.contains(part), "{args:?}: {part:?} is not in: {}", done.err);
    }
}
