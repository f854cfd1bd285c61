//! Capstan over its HTTP API.
//!
//! Answers are searched for leases and the start of bodies instead of being parsed whole, since the Redis client beside
//! it decodes no more than that either.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use capstan_api::envelope::Envelope;
use capstan_api::message::Metrics;
use memchr::memmem;

use super::http::Http;
use crate::message::{self, Stamp};

/// Where the benchmark's queues are, named `q0` and so on.
pub const NAMESPACE: &str = "bench";

/// A connection.
pub struct Capstan {
    http: Http,
    body: Vec<u8>,
    leases: Vec<u8>,
    taken: usize,
}

impl Capstan {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        Ok(Self { http: Http::connect(address).await?, body: Vec::new(), leases: Vec::new(), taken: 0 })
    }

    pub async fn publish(&mut self, queue: usize, stamps: &[Stamp]) -> Result<()> {
        self.body.clear();
        let action = send(stamps, &mut self.body);
        let head = self.http.head("POST", &path(queue, action));
        self.http.call(&head, &self.body).await.map(drop)
    }

    pub async fn take(&mut self, queue: usize, most: usize, idle: Duration) -> Result<Vec<Stamp>> {
        let idle = match idle.as_millis() {
            0 => String::new(),
            millis => format!(",\"idle_ms\":{millis}"),
        };
        let body = format!("{{\"batch_size\":{most}{idle}}}");
        let head = self.http.head("POST", &path(queue, "messages/pull"));
        let answer = self.http.call(&head, body.as_bytes()).await?;
        self.leases.clear();
        let stamps = pulled(answer, &mut self.leases)?;
        self.taken = stamps.len();
        Ok(stamps)
    }

    pub async fn settle(&mut self, queue: usize) -> Result<()> {
        self.body.clear();
        self.body.extend_from_slice(b"{\"acks\":[");
        self.body.extend_from_slice(&self.leases);
        self.body.extend_from_slice(b"]}");
        let head = self.http.head("POST", &path(queue, "messages/ack"));
        let answer = self.http.call(&head, &self.body).await?;
        let wanted = format!("\"ackCount\":{},", self.taken);
        let done = memmem::find(answer, wanted.as_bytes()).is_some();
        ensure!(done, "not all of {} were acknowledged: {}", self.taken, String::from_utf8_lossy(answer));
        Ok(())
    }

    pub async fn depth(&mut self, queue: usize) -> Result<u64> {
        let head = self.http.head("GET", &path(queue, "metrics"));
        let answer: Envelope<Metrics> = serde_json::from_slice(self.http.call(&head, b"").await?)?;
        Ok(answer.result.context("metrics without a result")?.backlog_count)
    }
}

fn path(queue: usize, action: &str) -> String {
    format!("/client/v4/accounts/{NAMESPACE}/queues/q{queue}/{action}")
}

/// Appends the body of a send; answers where it goes.
pub fn send(stamps: &[Stamp], body: &mut Vec<u8>) -> &'static str {
    if let [stamp] = stamps {
        item(*stamp, body);
        return "messages";
    }
    body.extend_from_slice(b"{\"messages\":[");
    for (index, stamp) in stamps.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        item(*stamp, body);
    }
    body.extend_from_slice(b"]}");
    "messages/batch"
}

fn item(stamp: Stamp, body: &mut Vec<u8>) {
    body.extend_from_slice(b"{\"body\":");
    message::write(stamp, body);
    body.push(b'}');
}

/// The stamps of an answer to a pull; its leases are appended as a list of JSON objects.
fn pulled(answer: &[u8], leases: &mut Vec<u8>) -> Result<Vec<Stamp>> {
    let (body, lease) = (memmem::Finder::new(b"\"body\":\""), memmem::Finder::new(b"\"lease_id\":\""));
    let mut stamps = Vec::new();
    let mut rest = answer;
    while let Some(at) = body.find(rest) {
        rest = &rest[at + body.needle().len()..];
        stamps.push(message::read_base64(rest)?);
        let at = lease.find(rest).context("a message without a lease")?;
        rest = &rest[at..];
        let value = lease.needle().len();
        let end = value + memchr::memchr(b'"', &rest[value..]).context("a lease without an end")?;
        leases.extend_from_slice(if leases.is_empty() { b"{" } else { b",{" });
        leases.extend_from_slice(&rest[..=end]);
        leases.push(b'}');
        rest = &rest[end + 1..];
    }
    Ok(stamps)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use capstan_api::message::{Metadata, Pulled, PulledMessage, SendBatch, Settle};

    use super::*;

    fn stamps() -> Vec<Stamp> {
        (0..3).map(|number| Stamp { number, due: number * 1_000 }).collect()
    }

    #[test]
    fn sends_are_what_the_broker_reads() {
        let mut body = Vec::new();
        assert_eq!(send(&stamps()[..1], &mut body), "messages");
        serde_json::from_slice::<capstan_api::message::Send>(&body).unwrap();
        body.clear();
        assert_eq!(send(&stamps(), &mut body), "messages/batch");
        let batch: SendBatch = serde_json::from_slice(&body).unwrap();
        let read = batch.messages.iter().map(|item| message::read(item.body.get().as_bytes()).unwrap());
        assert_eq!(read.collect::<Vec<_>>(), stamps());
    }

    #[test]
    fn what_the_broker_answers_is_found() {
        let message = |stamp: &Stamp| {
            let mut body = Vec::new();
            message::write(*stamp, &mut body);
            PulledMessage {
                id: format!("{:032x}", stamp.number),
                body: STANDARD.encode(body),
                attempts: 1,
                timestamp_ms: 1,
                lease_id: format!("lease-{}", stamp.number),
                metadata: BTreeMap::from([("CF-Content-Type".to_owned(), "json".to_owned())]),
                attributes: BTreeMap::new(),
            }
        };
        let messages = stamps().iter().map(message).collect();
        let answer = Pulled { message_backlog_count: 3, messages, metadata: Metadata::default() };
        let answer = serde_json::to_vec(&Envelope::success(answer)).unwrap();
        let mut leases = Vec::new();
        assert_eq!(pulled(&answer, &mut leases).unwrap(), stamps());
        let body = [b"{\"acks\":[".as_slice(), &leases, b"]}"].concat();
        let settle: Settle = serde_json::from_slice(&body).unwrap();
        let ids: Vec<String> = settle.acks.into_iter().map(|lease| lease.lease_id).collect();
        assert_eq!(ids, ["lease-0", "lease-1", "lease-2"]);
    }
}
