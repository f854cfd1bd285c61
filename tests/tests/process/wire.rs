//! HTTP by hand, for what no HTTP client would do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::fixture::NAMESPACE;

/// Of an answer that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that lasts.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Writes anything; whether the broker still takes it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.0.get_mut().write_all(bytes).is_ok()
    }

    /// Writes the head of a POST to `orders`, and `body`.
    pub(crate) fn begin(&mut self, action: &str, length: usize, body: &[u8]) {
        assert!(self.write(head(action, length).as_bytes()) && self.write(body), "the broker reads on");
    }

    /// Posts; answers the status and the body.
    pub(crate) fn post(&mut self, action: &str, body: &Value) -> (u16, String) {
        let body = body.to_string();
        self.begin(action, body.len(), body.as_bytes());
        self.answer().expect("an answer")
    }

    /// The status and the body of the next answer; `None` when the connection ends before.
    pub(crate) fn answer(&mut self) -> Option<(u16, String)> {
        let mut status = String::new();
        if self.0.read_line(&mut status).ok()? == 0 {
            return None;
        }
        let status = status.split(' ').nth(1).expect("a status line").parse().unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).ok()?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            length = line.strip_prefix("content-length: ").map_or(length, |text| text.parse().unwrap());
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).ok()?;
        Some((status, String::from_utf8(body).unwrap()))
    }

    /// Whether the broker has closed it, after what may still have come.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        // A reset is an end too; only a time-out is none.
        self.0
            .read_to_end(&mut rest)
            .map_or_else(|error| error.kind() != std::io::ErrorKind::WouldBlock, |_| true)
    }
}

/// The head of a POST to `orders`.
pub(crate) fn head(action: &str, length: usize) -> String {
    let path = format!("/client/v4/accounts/{NAMESPACE}/queues/orders/{action}");
    format!("POST {path} HTTP/1.1\r\nhost: broker\r\ncontent-length: {length}\r\n\r\n")
}
