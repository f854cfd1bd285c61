//! Connections, of which there are never more than so many, and that have to begin soon.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::warn;

/// Connections at once; those beyond wait until one ends. KEDA has one from each of its operators.
const CONNECTIONS_MAX: usize = 64;
/// Bytes by which a client of HTTP/2 begins, whatever it asks: its preface and the head of its settings.
const BEGINNING: usize = 24 + 9;
/// How long those may take. Later on a connection whose other end is gone, or only holds its place, is found by pings.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);
/// When no connection can be taken, such as for want of file descriptors, the next is tried so much later.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection, and its place among them.
pub(super) struct Connection {
    stream: TcpStream,
    /// What is left of the beginning, and until when it is waited for.
    beginning: Option<(usize, Pin<Box<Sleep>>)>,
    _permit: OwnedSemaphorePermit,
}

/// The connections that a listener takes.
pub(super) fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    unfold((listener, places), |(listener, places)| async move {
        let permit = Arc::clone(&places).acquire_owned().await.ok()?;
        let stream = accept(&listener).await;
        let beginning = Some((BEGINNING, Box::pin(sleep(BEGINS_WITHIN))));
        Some((Ok(Connection { stream, beginning, _permit: permit }), (listener, places)))
    })
}

/// The next connection. An error is one of a single connection, or passes.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are small, and waited for.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) => {
                warn!(%error, "the external scaler could not take a connection");
                sleep(PAUSE).await;
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let Some((left, deadline)) = &mut self.beginning else { return read };
        if let Poll::Ready(Ok(())) = &read {
            *left = left.saturating_sub(buf.filled().len() - before);
            if *left == 0 {
                self.beginning = None;
            }
        } else if read.is_pending() && deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn who_does_not_begin_loses_its_place_and_who_has_begun_keeps_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = Box::pin(incoming(listener));
        let (mut slow, mut quick) =
            (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        slow.write_all(&[b'P'; BEGINNING - 1]).await.unwrap();
        quick.write_all(&[b'P'; BEGINNING]).await.unwrap();
        let mut taken = [incoming.next().await.unwrap().unwrap(), incoming.next().await.unwrap().unwrap()];
        let mut bytes = [0; 2 * BEGINNING];
        for (connection, count) in taken.iter_mut().zip([BEGINNING - 1, BEGINNING]) {
            let mut read = 0;
            while read < count {
                read += connection.read(&mut bytes).await.unwrap();
            }
            assert_eq!(read, count);
        }
        tokio::time::pause();
        let error = taken[0].read(&mut bytes).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let rest = tokio::time::timeout(10 * BEGINS_WITHIN, taken[1].read(&mut bytes)).await;
        assert!(rest.is_err(), "it may be silent for as long as it answers pings");
    }
}
