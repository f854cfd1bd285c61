//! An application by script: answers as it is told, and writes down what it gets.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

use super::soon;

/// One answer; the default is 200 without a body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: Option<u16>,
    pub(crate) body: &'static str,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) retry_after: Option<&'static str>,
    /// Answer only when the test says so.
    pub(crate) hold: bool,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    pub(crate) fn body(body: &'static str) -> Self {
        Self { body, ..Self::default() }
    }

    pub(crate) fn held() -> Self {
        Self { hold: true, ..Self::default() }
    }
}

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) replies: VecDeque<Reply>,
    pub(crate) requests: Vec<Request>,
    /// Requests that are held now.
    pub(crate) held: usize,
    /// Most requests that were held at once.
    pub(crate) held_most: usize,
    /// So many of the held requests may be answered.
    pub(crate) let_go: usize,
}

#[derive(Clone)]
pub(crate) struct App {
    seen: Arc<watch::Sender<Seen>>,
    listening: Arc<AbortHandle>,
    pub(crate) port: u16,
}

impl App {
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), replies)
    }

    pub(crate) fn on(listener: TcpListener, replies: impl IntoIterator<Item = Reply>) -> Self {
        let seen = Seen { replies: replies.into_iter().collect(), ..Seen::default() };
        let (seen, port) = (Arc::new(watch::Sender::new(seen)), listener.local_addr().unwrap().port());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&seen));
        let listening = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { seen, listening: Arc::new(listening.abort_handle()), port }
    }

    /// Listens no more: when this returns, connections are refused. Open requests go on.
    pub(crate) async fn stop_listening(&self) {
        self.listening.abort();
        let port = self.port;
        let refused =
            async { while capstan_sidecar::loopback::connect(port, super::PATIENCE).await.is_ok() {} };
        soon("connections are refused", refused).await;
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Seen)) {
        self.seen.send_modify(change);
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&Seen) -> T) -> T {
        read(&self.seen.borrow())
    }

    pub(crate) fn let_go(&self, count: usize) {
        self.change(|seen| seen.let_go += count);
    }

    pub(crate) async fn until(&self, what: &str, condition: impl FnMut(&Seen) -> bool) {
        let mut seen = self.seen.subscribe();
        soon(what, seen.wait_for(condition)).await.unwrap();
    }
}

async fn answer(
    State(seen): State<Arc<watch::Sender<Seen>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    // As frameworks do with what their parser does not read.
    let Ok(body) = serde_json::from_slice(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut reply = Reply::default();
    seen.send_modify(|seen| {
        reply = seen.replies.pop_front().unwrap_or_default();
        seen.requests.push(Request { method, path: uri.to_string(), headers, body });
    });
    if reply.hold {
        hold(&seen).await;
    }
    let mut response = reply.body.into_response();
    if let Some(content_type) = reply.content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type.parse().unwrap());
    }
    *response.status_mut() = reply.status.unwrap_or(200).try_into().unwrap();
    if let Some(seconds) = reply.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.parse().unwrap());
    }
    response
}

async fn hold(seen: &watch::Sender<Seen>) {
    seen.send_modify(|seen| {
        seen.held += 1;
        seen.held_most = seen.held_most.max(seen.held);
    });
    let _held = Held(seen);
    let mut changes = seen.subscribe();
    loop {
        changes.wait_for(|seen| seen.let_go > 0).await.unwrap();
        let mut mine = false;
        seen.send_modify(|seen| {
            mine = seen.let_go > 0;
            seen.let_go = seen.let_go.saturating_sub(1);
        });
        if mine {
            return;
        }
    }
}

struct Held<'a>(&'a watch::Sender<Seen>);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|seen| seen.held -= 1);
    }
}

/// A port on which nobody listens. Nobody else gets it while the socket is kept, but whoever asks for it can listen.
pub(crate) fn silent() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v6().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("[::]:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// An application that reads a request and closes the connection, when it is told to. Connections without a byte are
/// nobody's request.
pub(crate) async fn breaking(when: watch::Receiver<bool>) -> (u16, watch::Receiver<usize>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (count, counted) = watch::channel(0);
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut when = when.clone();
            if stream.read(&mut [0; 65_536]).await.unwrap_or(0) > 0 {
                count.send_modify(|count| *count += 1);
                when.wait_for(|now| *now).await.unwrap();
            }
        }
    });
    (port, counted, task)
}

/// An application that answers each request with these bytes, whatever it is, and says no more; it reads little of it.
pub(crate) async fn raw(answer: &'static [u8]) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if stream.read(&mut [0; 1024]).await.unwrap_or(0) > 0 {
                stream.write_all(answer).await.unwrap();
                open.push(stream);
            }
        }
    });
    (port, task)
}
