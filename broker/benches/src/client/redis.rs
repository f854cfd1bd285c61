//! A Redis stream with one consumer group; a stream for each queue.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::resp::Resp;
use crate::message::{self, Stamp};

/// The name of the group on every stream.
pub const GROUP: &str = "g";

/// A connection.
pub struct Redis {
    resp: Resp,
    consumer: String,
    ids: Vec<Vec<u8>>,
    body: Vec<u8>,
}

impl Redis {
    pub async fn connect(address: SocketAddr, number: usize) -> Result<Self> {
        let resp = Resp::connect(address).await?;
        Ok(Self { resp, consumer: format!("c{number}"), ids: Vec::new(), body: Vec::new() })
    }

    pub async fn publish(&mut self, queue: usize, stamps: &[Stamp]) -> Result<()> {
        let stream = format!("q{queue}");
        for stamp in stamps {
            self.body.clear();
            message::write(*stamp, &mut self.body);
            self.resp.command(&[b"XADD", stream.as_bytes(), b"*", b"b", &self.body]);
        }
        self.resp.flush(stamps.len()).await.map(drop)
    }

    pub async fn take(&mut self, queue: usize, most: usize, idle: Duration) -> Result<Vec<Stamp>> {
        let (stream, most, idle) = (format!("q{queue}"), most.to_string(), idle.as_millis().to_string());
        let group: [&[u8]; 4] = [b"XREADGROUP", b"GROUP", GROUP.as_bytes(), self.consumer.as_bytes()];
        let count: [&[u8]; 2] = [b"COUNT", most.as_bytes()];
        let wait: &[&[u8]] = if idle == "0" { &[] } else { &[b"BLOCK", idle.as_bytes()] };
        let from: [&[u8]; 3] = [b"STREAMS", stream.as_bytes(), b">"];
        self.resp.command(&[&group[..], &count[..], wait, &from[..]].concat());
        let mut tokens = self.resp.flush(1).await?;
        self.ids.clear();
        if tokens.array()? == 0 {
            return Ok(Vec::new());
        }
        tokens.array()?;
        tokens.bulk()?;
        let count = tokens.array()?;
        let mut stamps = Vec::with_capacity(count);
        for _ in 0..count {
            tokens.array()?;
            self.ids.push(tokens.bulk()?.to_vec());
            tokens.array()?;
            tokens.bulk()?;
            stamps.push(message::read(tokens.bulk()?)?);
        }
        Ok(stamps)
    }

    pub async fn settle(&mut self, queue: usize) -> Result<()> {
        let stream = format!("q{queue}");
        let count = self.ids.len();
        self.resp.array(3 + count);
        self.resp.word(b"XACK");
        self.resp.word(stream.as_bytes());
        self.resp.word(GROUP.as_bytes());
        self.ids.iter().for_each(|id| self.resp.word(id));
        self.resp.array(2 + count);
        self.resp.word(b"XDEL");
        self.resp.word(stream.as_bytes());
        self.ids.iter().for_each(|id| self.resp.word(id));
        let mut tokens = self.resp.flush(2).await?;
        let (acknowledged, deleted) = (tokens.int()?, tokens.int()?);
        let all = [acknowledged, deleted].iter().all(|done| usize::try_from(*done) == Ok(count));
        ensure!(all, "of {count} messages {acknowledged} were acknowledged and {deleted} deleted");
        Ok(())
    }

    pub async fn depth(&mut self, queue: usize) -> Result<u64> {
        self.resp.command(&[b"XLEN", format!("q{queue}").as_bytes()]);
        Ok(u64::try_from(self.resp.flush(1).await?.int()?)?)
    }
}
