//! HTTP/1.1 on one kept connection, one request at a time: as lean as the Redis client beside it.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Headers of an answer that are read.
const HEADERS_MAX: usize = 32;
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A connection.
pub struct Http {
    stream: TcpStream,
    host: String,
    request: Vec<u8>,
    answer: Vec<u8>,
}

/// Where the body is in what was received, once all of it is there.
struct Parsed {
    status: u16,
    head: usize,
    length: usize,
}

impl Http {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host: address.to_string(), request: Vec::new(), answer: Vec::new() })
    }

    /// The start of a request, as [`Self::call`] takes it.
    pub fn head(&self, method: &str, path: &str) -> Vec<u8> {
        let host = &self.host;
        format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: "
        )
        .into_bytes()
    }

    /// Sends a request and returns the body of its answer.
    ///
    /// # Errors
    /// The connection ends, or the status is not 200.
    pub async fn call(&mut self, head: &[u8], body: &[u8]) -> Result<&[u8]> {
        self.request.clear();
        self.request.extend_from_slice(head);
        self.request.extend_from_slice(body.len().to_string().as_bytes());
        self.request.extend_from_slice(b"\r\n\r\n");
        self.request.extend_from_slice(body);
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        let mut parsed = None;
        loop {
            let read = self.stream.read_buf(&mut self.answer).await?;
            ensure!(read > 0, "the connection ended before its answer");
            if parsed.is_none() {
                parsed = parse(&self.answer)?;
            }
            if let Some(Parsed { status, head, length }) = parsed
                && self.answer.len() >= head + length
            {
                let body = &self.answer[head..head + length];
                ensure!(status == 200, "answered with {status}: {}", String::from_utf8_lossy(body));
                return Ok(body);
            }
        }
    }
}

/// Reads the head of an answer; none when it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<Parsed>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = answer.parse(bytes)? else { return Ok(None) };
    let named = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let Some(named) = named else { bail!("an answer without content-length") };
    let length = std::str::from_utf8(named.value)?.trim().parse().context("content-length is no number")?;
    ensure!(length <= ANSWER_BYTES_MAX, "an answer of {length} bytes");
    Ok(Some(Parsed { status: answer.code.unwrap_or(0), head, length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        for end in 0..answer.len() - 3 {
            assert!(parse(&answer[..end]).unwrap().is_none(), "{end} bytes");
        }
        let parsed = parse(answer).unwrap().unwrap();
        assert_eq!((parsed.status, parsed.length, &answer[parsed.head..]), (200, 3, b"abc".as_slice()));
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n").is_err());
    }

    #[tokio::test]
    async fn answers_may_come_in_pieces_and_refusals_are_errors() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            for pieces in [
                ["HTTP/1.1 200 OK\r\ncontent-", "length: 4\r\n\r\nab", "cd"],
                ["HTTP/1.1 429 Busy\r\n", "content-length: 2\r\n", "\r\nno"],
            ] {
                assert!(stream.read(&mut request).await.unwrap() > 0);
                for piece in pieces {
                    stream.write_all(piece.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut http = Http::connect(address).await.unwrap();
        let head = http.head("POST", "/x");
        assert_eq!(http.call(&head, b"1").await.unwrap(), b"abcd");
        let refused = http.call(&head, b"1").await.unwrap_err().to_string();
        assert!(refused.contains("429") && refused.contains("no"), "{refused}");
        server.await.unwrap();
    }
}
