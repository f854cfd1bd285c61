//! The table of outcomes in docs/protocol.md, each row with the real sidecar and the real broker: as programs of their own, and in
//! local mode. The application is on the other side of a real connection, and sees what comes back.

mod app;
mod moments;

use std::collections::BTreeMap;
use std::time::Duration;

use capstan_api::message::{Peek, PeekedMessage, SendBatch};
use capstan_api::number::Whole;
use capstan_api::{Client, Name};
use e2e::process::{Dev, Pod};
use serde_json::{Value, json};

use self::app::{App, First};
use crate::application::pushed;
use crate::fixture::{Fixture, NAMESPACE, message_of, name, until};

const PROTOCOL: &str = include_str!("../../../docs/protocol.md");
/// The messages of each batch, by the words of the table.
const WORDS: [&str; 3] = ["m1", "m2", "m3"];
/// Rows about the moment of the call; they need a sidecar each.
const MOMENTS: [&str; 4] = [
    "connection refused",
    "connection broken during shutdown",
    "call still open at the end of the drain",
    "not called before shutdown",
];
/// Delays up to this are waited for.
const WAITED_MAX: u64 = 9;
/// A sidecar has at most 64 Consumers.
const WORKLOADS: usize = 2;

/// A row of the table.
struct Row {
    /// Its queue and, behind a slash, its path.
    name: String,
    line: &'static str,
    first: First,
    timeout_ms: u64,
    expected: [&'static str; 3],
}

fn lines() -> Vec<(&'static str, [&'static str; 5])> {
    let section = PROTOCOL.split("\n### Outcomes\n").nth(1).unwrap().split("\n### ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = |line: &'static str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, call, body, m1, m2, m3, _] = cells[..] else { panic!("not five columns: {line}") };
        (line, [call, body, m1, m2, m3])
    };
    rows.map(cells).collect()
}

/// All rows but those about a moment.
fn rows() -> Vec<Row> {
    let (moments, others): (Vec<_>, Vec<_>) =
        lines().into_iter().partition(|(_, [call, ..])| MOMENTS.contains(call));
    assert_eq!(moments.len(), MOMENTS.len(), "{moments:?}");
    assert!(others.len() >= 60, "{} rows", others.len());
    let row = |(number, (line, [call, body, m1, m2, m3])): (usize, (&'static str, [&'static str; 5]))| {
        let (first, timeout_ms) = match call {
            "no answer within `endpoint.timeout`" => (First::Never, 1000),
            "connection broken" => (First::Break, 3_600_000),
            status => (First::answer(status.parse().expect(line), body), 3_600_000),
        };
        Row { name: format!("row-{number}"), line, first, timeout_ms, expected: [m1, m2, m3] }
    };
    others.into_iter().enumerate().map(row).collect()
}

/// The delay that a cell asks for, in seconds.
fn delay(cell: &str) -> Option<u64> {
    Some(cell.strip_prefix("retry in ")?.strip_suffix(" s")?.parse().unwrap())
}

/// Sends the batch of a row; the ids in the order of [`WORDS`].
async fn send(client: &Client, namespace: &Name, queue: &str) -> Vec<String> {
    let messages = WORDS.iter().map(|word| message_of(&json!({ "body": word }))).collect();
    let batch = SendBatch { messages, delay_seconds: None };
    client.send_batch(namespace, &name(queue), &batch).await.unwrap().ids
}

/// Waits until everything that comes back has come back, and compares.
async fn check(client: &Client, namespace: &Name, app: &App, row: &Row, ids: &[String]) {
    let stays: BTreeMap<String, String> = ids
        .iter()
        .zip(row.expected)
        .filter(|(_, cell)| delay(cell).is_some_and(|seconds| seconds > WAITED_MAX))
        .map(|(id, _)| (id.clone(), "delayed".to_owned()))
        .collect();
    let look = async || {
        let peek = Peek { batch_size: Some(Whole(100)) };
        let left = client.peek(namespace, &name(&row.name), &peek).await.unwrap().messages;
        let state = |one: PeekedMessage| (one.id, one.metadata["capstan-state"].clone());
        (left.into_iter().map(state).collect::<BTreeMap<_, _>>() == stays).then_some(())
    };
    until(&format!("all but delayed messages are done: {}", row.line), look).await;
    for ((word, id), cell) in WORDS.iter().zip(ids).zip(row.expected) {
        let what = format!("{word} of {}", row.line);
        let deliveries = app.deliveries(&row.name, id);
        let attempts: Vec<u64> = deliveries.iter().map(|(_, attempts)| *attempts).collect();
        let expected: &[u64] = match cell {
            "ack" => &[1],
            "release" => &[1, 1],
            _ if stays.contains_key(id) => &[1],
            _ => &[1, 2],
        };
        assert_eq!(attempts, expected, "attempts of {what}");
        if let (Some(seconds), [first, second]) = (delay(cell), &deliveries[..]) {
            assert!(second.0 - first.0 >= Duration::from_secs(seconds), "too early: {what}");
        }
    }
}

async fn check_all(client: &Client, namespace: &Name, app: &App, rows: &[Row], ids: &[Vec<String>]) {
    for (row, ids) in rows.iter().zip(ids) {
        check(client, namespace, app, row, ids).await;
    }
}

/// The row's queue, handed to the application by the sidecars of one of the workloads.
fn declared(number: usize, row: &Row, port: u16) -> Value {
    let push = json!({
        "workload": { "kind": "Deployment", "name": format!("shop-{}", number % WORKLOADS) },
        "endpoint": { "path": format!("/{}", row.name), "timeout_ms": row.timeout_ms },
        "max_batch_size": WORDS.len(),
    });
    pushed(&row.name, port, json!({ "push": push }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_holds_with_the_programs() {
    let rows = rows();
    let app = App::new(&rows);
    let queues: Vec<Value> =
        rows.iter().enumerate().map(|(number, row)| declared(number, row, app.port)).collect();
    let fixture = Fixture::new(&queues).await;
    let namespace = name(NAMESPACE);
    let mut ids = Vec::new();
    for row in &rows {
        ids.push(send(&fixture.client, &namespace, &row.name).await);
    }
    app.listen();
    let start = |number| Pod::start(&fixture.broker.url(), &format!("Deployment/shop-{number}"), "shop", &[]);
    let _sidecars: Vec<Pod> = (0..WORKLOADS).map(start).collect();
    check_all(&fixture.client, &namespace, &app, &rows, &ids).await;
}

/// A Queue and its Consumer, as `kubectl apply` would get them.
fn yaml(number: usize, row: &Row, port: u16) -> String {
    let (name, timeout) = (&row.name, row.timeout_ms / 1000);
    format!(
        "---\n{{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {{name: {name}}}}}\n---\n\
         {{apiVersion: capstan.dev/v1alpha1, kind: Consumer, metadata: {{name: {name}}}, spec: {{queueRef: {{name: {name}}}, \
         targetRef: {{kind: Deployment, name: shop-{}}}, endpoint: {{port: {port}, path: /{name}, timeout: {timeout}s}}, \
         maxBatchSize: {}, maxWaitTime: 0s, maxRetries: 2}}}}\n",
        number % WORKLOADS,
        WORDS.len(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_holds_in_local_mode() {
    let rows = rows();
    let app = App::new(&rows);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.yaml");
    let text: String = rows.iter().enumerate().map(|(number, row)| yaml(number, row, app.port)).collect();
    std::fs::write(&file, text).unwrap();
    let dev = Dev::start(&[&file], &folder.path().join("data"), &[]);
    let (client, namespace) = (dev.client(), name("default"));
    let mut ids = Vec::new();
    for row in &rows {
        ids.push(send(&client, &namespace, &row.name).await);
    }
    // Until now it was waited for.
    app.listen();
    check_all(&client, &namespace, &app, &rows, &ids).await;
}
