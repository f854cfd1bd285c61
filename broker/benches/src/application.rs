//! The application behind a sidecar: it answers each batch with 200 at once, and tells what was in it.
//!
//! As lean as the clients that pull: it searches requests for the start of bodies instead of parsing them whole.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::message::{self, Stamp};

/// Connections at once; a further one waits.
const CONNECTIONS_MAX: usize = 64;
/// Batches that are told and not yet heard; a further call waits.
const TOLD_MAX: usize = 1024;
/// Headers of a request that are read.
const HEADERS_MAX: usize = 32;
/// Bytes of a request that are read.
const REQUEST_BYTES_MAX: usize = 16 << 20;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// What came in one call.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    pub stamps: Vec<Stamp>,
    /// When all of it was there, as [`message::now`] counts.
    pub at: u64,
}

/// An application that listens on localhost until it is dropped.
pub struct Application {
    address: SocketAddr,
    calls: mpsc::Receiver<Result<Batch>>,
    _serving: JoinSet<()>,
}

impl Application {
    /// Listens on a free port.
    ///
    /// # Errors
    /// The system has none.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (tell, calls) = mpsc::channel(TOLD_MAX);
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, tell));
        Ok(Self { address, calls, _serving: serving })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next call.
    ///
    /// # Errors
    /// A call was none that a sidecar makes.
    pub async fn next(&mut self) -> Result<Batch> {
        self.calls.recv().await.context("the application no longer listens")?
    }

    /// The next call that was heard already, if there is one.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn heard(&mut self) -> Result<Option<Batch>> {
        self.calls.try_recv().ok().transpose()
    }
}

async fn serve(listener: TcpListener, tell: mpsc::Sender<Result<Batch>>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, tell.clone()));
            }
            Err(error) => {
                // Whoever no longer listens has its own error.
                let _gone = tell.send(Err(error.into())).await;
                return;
            }
        }
    }
}

async fn connection(stream: TcpStream, tell: mpsc::Sender<Result<Batch>>) {
    if let Err(error) = answer(stream, &tell).await {
        let _gone = tell.send(Err(error.context("a call of the application failed"))).await;
    }
}

/// Answers one request after the other until the connection ends.
async fn answer(mut stream: TcpStream, tell: &mpsc::Sender<Result<Batch>>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    loop {
        let Some(body) = read(&mut stream, &mut request).await? else { return Ok(()) };
        let at = message::now();
        let stamps = stamps(body)?;
        stream.write_all(ANSWER).await?;
        tell.send(Ok(Batch { stamps, at })).await?;
    }
}

/// Reads a request into `request` and answers its body; none when the connection ended before it.
async fn read<'a>(stream: &mut TcpStream, request: &'a mut Vec<u8>) -> Result<Option<&'a [u8]>> {
    request.clear();
    let mut parsed = None;
    loop {
        if stream.read_buf(request).await? == 0 {
            ensure!(request.is_empty(), "the connection ended within a request");
            return Ok(None);
        }
        if parsed.is_none() {
            parsed = parse(request)?;
        }
        if let Some((head, length)) = parsed
            && request.len() >= head + length
        {
            return Ok(Some(&request[head..head + length]));
        }
    }
}

/// The lengths of the head and the body; none when the head is not whole.
fn parse(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(bytes)? else { return Ok(None) };
    ensure!(request.method == Some("POST"), "a call by {:?}, not POST", request.method);
    let named = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let named = named.context("a request without content-length")?;
    let length = std::str::from_utf8(named.value)?.trim().parse().context("content-length is no number")?;
    ensure!(length <= REQUEST_BYTES_MAX, "a request of {length} bytes");
    Ok(Some((head, length)))
}

/// The stamps of the messages in a request.
fn stamps(request: &[u8]) -> Result<Vec<Stamp>> {
    let body = memmem::Finder::new(b"\"body\":");
    let starts = body.find_iter(request).map(|at| at + body.needle().len());
    let stamps: Vec<Stamp> = starts.map(|at| message::read(&request[at..])).collect::<Result<_>>()?;
    ensure!(!stamps.is_empty(), "a call without messages");
    Ok(stamps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(stamps: &[Stamp]) -> Vec<u8> {
        let message = |stamp: &Stamp| {
            let mut body = Vec::new();
            message::write(*stamp, &mut body);
            let (id, body) = (format!("{:032x}", stamp.number), String::from_utf8(body).unwrap());
            format!(
                r#"{{"id":"{id}","timestampMs":1,"attempts":1,"contentType":"json","body":{body},"attributes":{{}}}}"#
            )
        };
        let messages: Vec<String> = stamps.iter().map(message).collect();
        let body = format!(r#"{{"queue":"q0","metadata":{{}},"messages":[{}]}}"#, messages.join(","));
        serde_json::from_str::<serde_json::Value>(&body).unwrap();
        format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[tokio::test]
    async fn calls_are_answered_and_told_in_order_however_they_come() {
        let stamps: Vec<Stamp> = (0..3).map(|number| Stamp { number, due: number + 7 }).collect();
        let mut application = Application::start().await.unwrap();
        let mut stream = TcpStream::connect(application.address()).await.unwrap();
        for part in [&stamps[..1], &stamps[1..]] {
            let before = message::now();
            for piece in request(part).chunks(700) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut answer = vec![0; ANSWER.len()];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, ANSWER);
            let batch = application.next().await.unwrap();
            assert_eq!(batch.stamps, part);
            assert!((before..=message::now()).contains(&batch.at));
        }
        drop(stream);
        assert!(application.heard().unwrap().is_none(), "an end between requests is no failure");
    }

    #[tokio::test]
    async fn what_no_sidecar_sends_is_an_error() {
        let foreign = r#"{"messages":[{"body":"hello"}]}"#;
        let foreign = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{foreign}", foreign.len());
        for wrong in [
            foreign.as_str(),
            "POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}",
            "POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: x\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\n",
        ] {
            let mut application = Application::start().await.unwrap();
            let mut stream = TcpStream::connect(application.address()).await.unwrap();
            stream.write_all(wrong.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            assert!(application.next().await.is_err(), "{wrong}");
        }
    }
}
