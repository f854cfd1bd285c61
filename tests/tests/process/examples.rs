//! The applications of `examples/applications`, each in local mode: acks, retries and dead letters, message by message.

use std::path::{Path, PathBuf};
use std::process::Command;

use capstan_api::Name;
use capstan_api::message::{Peek, SendBatch};
use e2e::process::{Dev, program};
use serde_json::json;

use crate::fixture::{message_of, name, until};

/// Where local mode has what names no namespace.
const NAMESPACE: &str = "default";
/// The programs are examples: they are read at one look.
const LINES_MAX: usize = 40;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/applications")
}

/// A program of `PATH`, which must be there.
fn tool(name: &str, version: &[&str]) -> &'static str {
    let output = Command::new(name).args(version).output();
    assert!(
        output.as_ref().is_ok_and(|output| output.status.success()),
        "{name} is missing in PATH: docs/testing.md says what this level needs; {output:?}"
    );
    String::leak(name.to_owned())
}

/// Of six orders, two can never be handled; all others are, whatever their neighbours do.
async fn handles_orders(file: &str, app: &str) {
    let source = std::fs::read_to_string(folder().join(file)).unwrap();
    assert!(source.lines().count() < LINES_MAX, "{file} is longer than an example should be");
    let data = tempfile::tempdir().unwrap();
    let files = [folder().join("queue.yaml"), folder().join("consumer.yaml")];
    let dev = Dev::start(
        &[&files[0], &files[1]],
        data.path(),
        &["--app", &format!("exec {app}"), "--app-port", "0"],
    );
    let (client, namespace): (_, Name) = (dev.client(), name(NAMESPACE));
    let (orders, letters) = (name("orders"), name("orders-dlq"));
    let item = |id: u32| json!({ "body": { "id": id, "item": "lamp" } });
    let bodies =
        [item(1), item(2), json!({ "body": { "id": 3 } }), item(4), json!({ "body": "no order" }), item(6)];
    let batch = SendBatch { messages: bodies.iter().map(message_of).collect(), delay_seconds: None };
    let ids = client.send_batch(&namespace, &orders, &batch).await.unwrap().ids;
    dev.wait(&["orders", "acknowledged", "4 messages"]);
    dev.wait(&["orders", "retried", "delivery 1 of 3, again in 1 s: the application asked for it"]);

    let peeked = until("both are dead letters", async || {
        let peeked = client.peek(&namespace, &letters, &Peek::default()).await.unwrap().messages;
        (peeked.len() == 2).then_some(peeked)
    })
    .await;
    let mut dead: Vec<&str> = peeked.iter().map(|message| message.id.as_str()).collect();
    dead.sort_unstable();
    let mut expected = [ids[2].as_str(), ids[4].as_str()];
    expected.sort_unstable();
    assert_eq!(dead, expected);
    for message in &peeked {
        let metadata = |key: &str| message.metadata[&format!("capstan-dead-letter-{key}")].as_str();
        assert_eq!((metadata("queue"), metadata("attempts")), ("orders", "3"));
        assert_eq!(metadata("reason"), "the application asked for it");
    }
    assert_eq!(client.metrics(&namespace, &orders).await.unwrap().backlog_count, 0, "{}", dev.log());
    // What the application writes itself.
    for id in expected {
        let is_said = |line: &String| line.contains(id) && line.contains("failed, attempt 3");
        until("the application says so", async || dev.log().lines().iter().any(is_said).then_some(())).await;
    }
    let status = dev.interrupt();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn the_one_in_javascript_handles_orders() {
    let node = tool("node", &["--version"]);
    handles_orders("node/server.js", &format!("{node} '{}'", folder().join("node/server.js").display()))
        .await;
}

#[tokio::test]
async fn the_one_in_python_handles_orders() {
    let python = tool("python3", &["--version"]);
    handles_orders(
        "python/server.py",
        &format!("{python} '{}'", folder().join("python/server.py").display()),
    )
    .await;
}

#[tokio::test]
async fn the_one_in_go_handles_orders() {
    let built = tempfile::tempdir().unwrap();
    let program = built.path().join("orders");
    let mut go = Command::new(tool("go", &["version"]));
    go.args(["build", "-buildvcs=false", "-o"]).arg(&program).arg(".").current_dir(folder().join("go"));
    let output = go.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    handles_orders("go/main.go", &program.display().to_string()).await;
}

#[tokio::test]
async fn the_one_in_rust_handles_orders() {
    handles_orders("rust/src/main.rs", &program("example-application").display().to_string()).await;
}
