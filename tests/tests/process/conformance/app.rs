//! The application of the table: does to the first call of each path what the row says, and acknowledges what comes after.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

use super::{Row, WORDS};

const LONG: &str = "more than 1 MiB of a verdict";

/// What happens to the first call.
#[derive(Debug, Clone)]
pub(super) enum First {
    Answer {
        status: u16,
        /// With the words of the table in place of ids.
        body: String,
        is_json: bool,
    },
    /// It has no answer.
    Never,
    /// Its connection is closed, at once or when the test says so.
    Break,
    BreakLater(Arc<Notify>),
}

impl First {
    /// The answer that the cells of a row show.
    pub(super) fn answer(status: u16, cell: &str) -> Self {
        if cell == LONG {
            let body = format!("{{\"explicitAcks\": [{}", " ".repeat(1 << 20));
            return Self::Answer { status, body, is_json: true };
        }
        let body = cell.trim_end_matches(" as JSON").trim_matches('`').to_owned();
        let is_json = cell.ends_with(" as JSON") || body == "null";
        Self::Answer { status, body, is_json }
    }
}

/// A delivery of a message: when, and which attempt it was said to be.
type Delivery = (Instant, u64);

#[derive(Default)]
struct Path {
    first: Option<First>,
    deliveries: BTreeMap<String, Vec<Delivery>>,
}

/// An application with a port, on which it listens when it is told to.
#[derive(Clone)]
pub(super) struct App {
    pub(super) port: u16,
    socket: Arc<Mutex<Option<TcpSocket>>>,
    paths: Arc<Mutex<BTreeMap<String, Path>>>,
}

impl App {
    pub(super) fn new(rows: &[Row]) -> Self {
        Self::with(rows.iter().map(|row| (row.name.as_str(), row.first.clone())))
    }

    /// One that does this to the first call of each of these paths.
    pub(super) fn with<'a>(firsts: impl IntoIterator<Item = (&'a str, First)>) -> Self {
        let path = |(name, first): (&str, First)| {
            (format!("/{name}"), Path { first: Some(first), ..Path::default() })
        };
        let paths = Arc::new(Mutex::new(firsts.into_iter().map(path).collect()));
        Self { paths, ..Self::on("127.0.0.1:0".parse().unwrap()) }
    }

    /// One that acknowledges everything, on this port.
    pub(super) fn at(port: u16) -> Self {
        Self::on(([127, 0, 0, 1], port).into())
    }

    fn on(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let port = socket.local_addr().unwrap().port();
        Self { port, socket: Arc::new(Mutex::new(Some(socket))), paths: Arc::default() }
    }

    /// Listens until the test ends.
    pub(super) fn listen(&self) {
        let listener =
            self.socket.lock().unwrap().take().expect("it does not listen yet").listen(1024).unwrap();
        let app = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let app = app.clone();
                // Who closes a connection early is not the application's concern.
                tokio::spawn(async move { app.serve(stream).await.ok() });
            }
        });
    }

    /// What was delivered of a message.
    pub(super) fn deliveries(&self, name: &str, id: &str) -> Vec<Delivery> {
        let paths = self.paths.lock().unwrap();
        let path = paths.get(&format!("/{name}"));
        path.and_then(|path| path.deliveries.get(id)).cloned().unwrap_or_default()
    }

    /// How many messages were delivered at a path, again or not.
    pub(super) fn count(&self, name: &str) -> usize {
        let paths = self.paths.lock().unwrap();
        paths.get(&format!("/{name}")).map_or(0, |path| path.deliveries.values().map(Vec::len).sum())
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        // Who only looks whether somebody listens writes nothing.
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap().to_owned();
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).await?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let messages = serde_json::from_slice::<Value>(&body).unwrap()["messages"].take();
        let first = self.take(&path, messages.as_array().unwrap());
        let (status, body, is_json) = match first {
            None => (200, String::new(), false),
            Some(First::Never) => return std::future::pending().await,
            Some(First::Break) => return Ok(()),
            Some(First::BreakLater(now)) => {
                now.notified().await;
                return Ok(());
            }
            Some(First::Answer { status, body, is_json }) => {
                (status, with_ids(body, messages.as_array().unwrap()), is_json)
            }
        };
        let content_type = if is_json { "content-type: application/json\r\n" } else { "" };
        let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\n{content_type}");
        let length =
            if status == 204 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        stream.write_all(format!("{head}{length}\r\n{body}").as_bytes()).await
    }

    /// Writes a call down; what is to be done to it if it is the first.
    fn take(&self, path: &str, messages: &[Value]) -> Option<First> {
        let mut paths = self.paths.lock().unwrap();
        let path = paths.entry(path.to_owned()).or_default();
        for message in messages {
            let (id, attempts) = (message["id"].as_str().unwrap(), message["attempts"].as_u64().unwrap());
            path.deliveries.entry(id.to_owned()).or_default().push((Instant::now(), attempts));
        }
        path.first.take()
    }
}

/// Puts the ids of the messages in place of the table's words, which are their bodies.
fn with_ids(body: String, messages: &[Value]) -> String {
    let id = |word: &str| messages.iter().find(|one| one["body"] == word).and_then(|one| one["id"].as_str());
    WORDS.iter().fold(body, |body, word| body.replace(word, id(word).expect("all are in the first call")))
}
