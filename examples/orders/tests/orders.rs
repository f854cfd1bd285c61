//! The example as it is started: takes orders, reports them, ends at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

struct Orders {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Orders {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_example-orders"));
        let mut child = command.env("PORT", "0").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let port = first.strip_prefix("taking orders on port ").expect(&first).parse().unwrap();
        Self { child, lines, port }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn orders_are_handled_and_those_that_fail_are_named() {
    let mut orders = Orders::start();
    assert!(reqwest::get(orders.url("/healthz")).await.unwrap().status().is_success());
    let message =
        |id: &str, body: Value| json!({"id": id, "attempts": 1, "contentType": "json", "body": body});
    let messages = [
        message("a", json!({"id": 1})),
        message("b", json!({"id": 2, "fail": true})),
        message("c", json!("no order at all")),
    ];
    let batch = json!({"queue": "orders", "messages": messages});
    let answer = reqwest::Client::new().post(orders.url("/")).json(&batch).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({"retryMessages": [{"msgId": "b"}]}));
    assert_eq!(orders.line(), r#"order {"id":1} handled (attempt 1)"#);
    assert_eq!(orders.line(), r#"order {"id":2,"fail":true} failed (attempt 1)"#);

    let report: Value = reqwest::get(orders.url("/handled")).await.unwrap().json().await.unwrap();
    assert_eq!(report, json!({"handled": 2, "failed": 1, "distinct": 2, "ids": ["a", "c"]}));
    // A failed delivery is not one that was understood.
    let wrong = reqwest::Client::new().post(orders.url("/")).body("no batch").send().await.unwrap();
    assert!(wrong.status().is_client_error());
}

#[test]
fn it_finishes_open_requests_and_ends_at_once() {
    let mut orders = Orders::start();
    let _idle = TcpStream::connect(("127.0.0.1", orders.port)).unwrap();
    let batch = json!({"messages": [{"id": "a", "attempts": 1, "body": {"takesMs": 300}}]}).to_string();
    let mut open = BufReader::new(TcpStream::connect(("127.0.0.1", orders.port)).unwrap());
    let length = batch.len();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: orders\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\nexpect: 100-continue\r\n\r\n"
    );
    open.get_mut().write_all(head.as_bytes()).unwrap();
    let mut line = String::new();
    // The request is being read: it is open from here on.
    open.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 100"), "{line}");
    open.get_mut().write_all(batch.as_bytes()).unwrap();

    let asked = Instant::now();
    assert!(Command::new("kill").arg(orders.child.id().to_string()).status().unwrap().success());
    let mut answer = String::new();
    open.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("HTTP/1.1 200 OK"), "{answer}");
    let status = orders.child.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}
