//! Connections of a port: how many there may be, how long each may keep silent, and how they end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use capstan_api::ErrorCode;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A connection may be idle, or write at the head of a request, for so long. Common clients keep an idle connection for
/// 90 s at most: shorter, and a request would meet a connection that is just being closed.
pub const SILENCE_MAX: Duration = Duration::from_secs(100);
/// An answer of which the client takes nothing for so long is given up.
const UNREAD_MAX: Duration = Duration::from_secs(60);
/// What [`Port::buffer_bytes`] is where memory is no concern.
pub const BUFFER_BYTES: usize = 64 << 10;
/// What a connection too many gets before it is closed. Some clients wait for ever when it is only closed: Node's `fetch`, with
/// many requests at once.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n\
    content-length: 142\r\n\r\n{\"success\":false,\"errors\":[{\"code\":10250,\"message\":\"too many connections are open; try again after \
    Retry-After\"}],\"messages\":[],\"result\":null}";
/// A pause after connections could not be accepted, for want of descriptors perhaps.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How many connections a port has.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    /// Of these, what is for clients on this machine alone.
    kept: usize,
    open: AtomicUsize,
    refused: AtomicU64,
}

/// What a handler knows of the connection of its request: how to end it.
#[derive(Debug, Clone, Default)]
pub struct Connection(pub CancellationToken);

/// An open connection; counted until it is dropped.
struct Place(Arc<Connections>);

impl Connections {
    /// None yet, of at most `most`.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { most, kept: 0, open: AtomicUsize::new(0), refused: AtomicU64::new(0) }
    }

    /// Keeps `kept` of them for clients at a loopback address, so that others cannot keep these away.
    #[must_use]
    pub const fn keeping(self, kept: usize) -> Self {
        Self { kept, ..self }
    }

    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many may be open.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.most
    }

    /// Connections that were closed at once, since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let kept = if peer.to_canonical().is_loopback() { 0 } else { self.kept };
        if self.open.fetch_add(1, Ordering::Relaxed) < self.most.saturating_sub(kept) {
            return Some(Place(Arc::clone(self)));
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.refused.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bounds of a port.
#[derive(Clone)]
pub struct Port {
    /// Counts its connections, and says how many there may be.
    pub connections: Arc<Connections>,
    /// How long a connection may be idle, or write at the head of a request; [`SILENCE_MAX`] suits most.
    pub silence: Duration,
    /// Longest head of a request, and what is buffered of an answer: at least 8,192, and [`BUFFER_BYTES`] suits most.
    pub buffer_bytes: usize,
    /// Is told the code of each refusal, which the answer has as an extension.
    pub refused: Arc<dyn Fn(ErrorCode) + Send + Sync>,
}

/// Serves `router`, whose handlers may take [`ConnectInfo`] of the client's address, until `ending`, and then until what is
/// open is answered. A connection too many is answered 503 and closed at once: one that waited would hide from its client
/// that there is no place.
pub async fn serve(listener: TcpListener, router: Router, port: Port, ending: CancellationToken) {
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = ending.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(place) = port.connections.enter(peer.ip()) {
                    let client = (stream, peer, place);
                    tasks.spawn(connection(client, router.clone(), port.clone(), ending.clone()));
                } else {
                    // As much as its empty buffer takes, which is all; nothing is waited for.
                    let _ = stream.try_write(FULL);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                let _: Option<()> = ending.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn connection(
    (stream, peer, _place): (TcpStream, SocketAddr, Place),
    router: Router,
    port: Port,
    ending: CancellationToken,
) {
    prepare(&stream);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(port.silence).max_buf_size(port.buffer_bytes);
    let own = Connection::default();
    let cut = own.0.clone();
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(own.clone());
        request.extensions_mut().insert(ConnectInfo(peer));
        let (answer, refused) = (router.call(request), Arc::clone(&port.refused));
        async move {
            let answer = answer.await;
            if let Ok(Some(code)) = answer.as_ref().map(|answer| answer.extensions().get::<ErrorCode>()) {
                refused(*code);
            }
            answer
        }
    });
    let served = http.serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = cut.cancelled() => return,
        () = ending.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

fn prepare(stream: &TcpStream) {
    // Answers are small and waited for.
    let direct = stream.set_nodelay(true);
    let taken = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(UNREAD_MAX));
    if let Err(error) = direct.and(taken) {
        tracing::debug!(%error, "a connection's options cannot be set");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    async fn start(most: usize, silence: Duration) -> (std::net::SocketAddr, Arc<Connections>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(Connections::new(most)));
        let router = Router::new().route("/", get(|| async { "here" }));
        let port = Port {
            connections: Arc::clone(&connections),
            silence,
            buffer_bytes: BUFFER_BYTES,
            refused: Arc::new(|_| {}),
        };
        tokio::spawn(serve(listener, router, port, CancellationToken::new()));
        (address, connections)
    }

    /// What comes until the port closes.
    async fn rest(stream: &mut TcpStream) -> Vec<u8> {
        let mut text = Vec::new();
        // A reset is an end too.
        let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut text)).await.expect("it is closed");
        text
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_and_an_idle_connection_are_closed() {
        let (address, connections) = start(10, Duration::from_millis(200)).await;
        for text in ["", "GET / HTTP/1.1\r\nhost: x\r\n", "GET / HTTP/1.1\r\nhost: x\r\n\r\n"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            let answered = rest(&mut stream).await.ends_with(b"here");
            assert_eq!(answered, text.ends_with("\r\n\r\n"), "{text:?}");
        }
        tokio::time::timeout(SOON, async {
            while connections.open() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("none is open");
    }

    #[test]
    fn places_that_are_kept_are_for_this_machine() {
        let connections = Arc::new(Connections::new(3).keeping(1));
        let [other, own, mapped] =
            ["10.0.0.1", "127.0.0.1", "::ffff:127.0.0.1"].map(|ip| ip.parse().unwrap());
        let others = [connections.enter(other), connections.enter(other)];
        assert!(others.iter().all(Option::is_some) && connections.enter(other).is_none());
        let place = connections.enter(own);
        assert!(place.is_some() && connections.enter(own).is_none());
        drop(place);
        assert!(connections.enter(mapped).is_some());
        assert_eq!((connections.open(), connections.refused()), (2, 2));
    }

    #[tokio::test]
    async fn a_connection_too_many_is_closed_and_the_others_are_served() {
        let (address, connections) = start(1, SOON).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        let ask = async |stream: &mut TcpStream| {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut byte = [0; 4096];
            let read = tokio::time::timeout(SOON, stream.read(&mut byte)).await.unwrap().unwrap();
            assert!(byte[..read].starts_with(b"HTTP/1.1 200"));
        };
        ask(&mut first).await;
        let mut second = TcpStream::connect(address).await.unwrap();
        let answer = String::from_utf8(rest(&mut second).await).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let length = format!("\r\ncontent-length: {}", body.len());
        assert!(head.starts_with("HTTP/1.1 503 ") && head.ends_with(&length), "{answer}");
        let envelope: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(envelope["errors"][0]["code"], ErrorCode::GatewayFull.code());
        assert_eq!((connections.open(), connections.refused()), (1, 1));
        ask(&mut first).await;
    }
}
