//! A broker by script, for sends: answers as it is told, breaks connections, and writes down what it gets.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::soon;

/// What becomes of a request.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// This status, headers and body; the connection stays open.
    Answer(u16, &'static [(&'static str, &'static str)], &'static str),
    /// The connection is closed when the request was read, without an answer.
    Cut,
    /// The same in the middle of an answer.
    CutAnswer,
    /// No answer before the test says so; then 200.
    Hold,
}

/// A request as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) line: String,
    /// Values of one name in their order.
    pub(crate) headers: BTreeMap<String, Vec<String>>,
    pub(crate) body: String,
    pub(crate) at: Instant,
}

impl Sent {
    pub(crate) fn key(&self) -> &str {
        &self.headers["idempotency-key"][0]
    }
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) steps: VecDeque<Step>,
    pub(crate) sent: Vec<Sent>,
    /// Requests that are held now.
    pub(crate) held: usize,
    /// So many of them may be answered.
    let_go: usize,
}

/// A broker that takes sends.
pub(crate) struct Sends {
    seen: Arc<watch::Sender<Seen>>,
    pub(crate) port: u16,
    serving: JoinSet<()>,
}

/// The body of a send by which a gateway learns that this broker minds keys. It takes no step, and is not written down.
pub(crate) const HELLO: &str = "hello";

/// The answer to a step that nobody scripted.
pub(crate) const TAKEN: &str = r#"{"success":true,"errors":[],"messages":[],"result":{"ids":["1"]}}"#;

impl Sends {
    pub(crate) async fn start(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::at(0, steps).await
    }

    /// At a port that was free a moment ago.
    pub(crate) async fn at(port: u16, steps: impl IntoIterator<Item = Step>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let steps = steps.into_iter().collect();
        let seen = Arc::new(watch::Sender::new(Seen { steps, ..Seen::default() }));
        let (port, mut serving) = (listener.local_addr().unwrap().port(), JoinSet::new());
        let all = Arc::clone(&seen);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&all)));
            }
        });
        Self { seen, port, serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.seen.borrow().sent.clone()
    }

    pub(crate) fn let_go(&self, count: usize) {
        self.seen.send_modify(|seen| seen.let_go += count);
    }

    /// Waits until the condition holds.
    pub(crate) async fn until(&self, what: &str, condition: impl FnMut(&Seen) -> bool) {
        soon(what, self.seen.subscribe().wait_for(condition)).await.unwrap();
    }

    /// Ends, with all connections; gives back the port.
    pub(crate) async fn end(mut self) -> u16 {
        self.serving.shutdown().await;
        self.port
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<watch::Sender<Seen>>) {
    while let Some(sent) = read(&mut stream).await {
        if sent.line.contains(" /capstan/v1/") {
            // The sidecar asks what to consume; there is no news.
            let _ = stream.read_u8().await;
            return;
        }
        if sent.body == HELLO {
            let (key, length) = (sent.key(), TAKEN.len());
            let head = format!("HTTP/1.1 200 OK\r\nidempotency-key: {key}\r\ncontent-length: {length}");
            stream.write_all(format!("{head}\r\n\r\n{TAKEN}").as_bytes()).await.unwrap();
            continue;
        }
        // This broker minds keys, as those do that take part in the tests.
        let key = sent.headers.get("idempotency-key").map(|values| values[0].clone());
        let mut step = None;
        seen.send_modify(|seen| {
            step = seen.steps.pop_front();
            seen.sent.push(sent);
        });
        let (status, headers, body) = match step.unwrap_or(Step::Answer(200, &[], TAKEN)) {
            Step::Answer(status, headers, body) => (status, headers, body),
            Step::Cut => return,
            Step::CutAnswer => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{").await.unwrap();
                return;
            }
            Step::Hold => {
                let mut released = seen.subscribe();
                seen.send_modify(|seen| seen.held += 1);
                let holding = Holding(Arc::clone(&seen));
                // A client that goes away is noticed.
                let gone = stream.read_u8();
                tokio::select! {
                    free = released.wait_for(|seen| seen.let_go > 0) => drop(free.unwrap()),
                    _ = gone => return,
                }
                drop(holding);
                seen.send_modify(|seen| seen.let_go -= 1);
                (200, &[][..], TAKEN)
            }
        };
        let reason = StatusCode::from_u16(status).unwrap();
        let mut head = format!("HTTP/1.1 {reason}\r\ncontent-type: application/json\r\n");
        if let Some(key) = key.filter(|_| status == 200) {
            head.push_str(&format!("idempotency-key: {key}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

struct Holding(Arc<watch::Sender<Seen>>);

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.send_modify(|seen| seen.held -= 1);
    }
}

/// Reads a request with `content-length`, or none when the connection ends.
async fn read(stream: &mut TcpStream) -> Option<Sent> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let line = lines.next().unwrap().to_owned();
    let mut headers = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        headers.entry(name.to_lowercase()).or_default().push(value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |values| values[0].parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Sent { line, headers, body: String::from_utf8(body).unwrap(), at: Instant::now() })
}

/// How long the sends waited for each other.
pub(crate) fn between(sent: &[Sent]) -> Vec<Duration> {
    sent.windows(2).map(|two| two[1].at - two[0].at).collect()
}
