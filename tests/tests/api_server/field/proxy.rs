//! A proxy between the operator and the API server: it counts requests, fails some, and can go away as a server does.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderName;
use axum::response::Response;
use futures::StreamExt;
use kube::client::Body as ApiBody;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::fault::{Faults, Met, broken, expired, refusal};
use super::{Call, Count, Fault};

/// Bodies of the operator are small.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Headers that are about one connection, or that the proxy's own client sets.
const OWN_HEADERS: [HeaderName; 5] = [
    axum::http::header::HOST,
    axum::http::header::AUTHORIZATION,
    axum::http::header::CONNECTION,
    axum::http::header::CONTENT_LENGTH,
    axum::http::header::TRANSFER_ENCODING,
];
/// A port is free again a moment after its listener ended.
const BIND_PAUSE: Duration = Duration::from_millis(20);
const BIND_TRIES: usize = 500;

/// A proxy. It has threads of its own, so that it goes away with its connections.
pub(crate) struct Proxy {
    address: SocketAddr,
    kubeconfig: Kubeconfig,
    shared: Arc<Shared>,
    runtime: Mutex<Option<Runtime>>,
}

#[derive(Default)]
struct Shared {
    count: Mutex<Count>,
    faults: Mutex<Faults>,
    /// Counts the moments at which all watches end, and hanging requests too.
    cuts: watch::Sender<u64>,
}

#[derive(Clone)]
struct Handler {
    upstream: Client,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Starts one that reaches the API server as `kubeconfig` does.
    pub(crate) fn start(kubeconfig: &str) -> Self {
        let (kubeconfig, shared) = (Kubeconfig::from_yaml(kubeconfig).unwrap(), Arc::default());
        let (address, runtime) = serve((Ipv4Addr::LOCALHOST, 0).into(), &kubeconfig, &shared);
        Self { address, kubeconfig, shared, runtime: Mutex::new(Some(runtime)) }
    }

    /// A kubeconfig that leads here. The proxy has the account, since a token is sent over TLS only.
    pub(crate) fn kubeconfig(&self, original: &str) -> String {
        let mut config: serde_json::Value = serde_json::from_str(original).unwrap();
        config["clusters"][0]["cluster"] = serde_json::json!({"server": format!("http://{}", self.address)});
        config["users"][0]["user"] = serde_json::json!({});
        config.to_string()
    }

    /// Goes away, with all connections, until it is opened again.
    pub(crate) fn close(&self) {
        self.runtime.lock().unwrap().take().expect("it listens").shutdown_background();
    }

    /// Listens again, at the same address.
    pub(crate) fn open(&self) {
        let (_, runtime) = serve(self.address, &self.kubeconfig, &self.shared);
        *self.runtime.lock().unwrap() = Some(runtime);
    }

    /// What was asked so far.
    pub(crate) fn count(&self) -> Count {
        self.shared.count.lock().unwrap().clone()
    }

    /// The next `times` requests for which `applies` holds fail.
    pub(crate) fn fail(
        &self,
        fault: Fault,
        times: usize,
        applies: impl Fn(&Call) -> bool + Send + 'static,
    ) -> Met {
        self.shared.faults.lock().unwrap().add(fault, times, applies)
    }

    /// Nothing fails any more, and what hangs ends.
    pub(crate) fn heal(&self) {
        self.shared.faults.lock().unwrap().clear();
        self.cut_watches();
    }

    /// Ends all watches, as the API server does now and then.
    pub(crate) fn cut_watches(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.get_mut().unwrap().take() {
            runtime.shutdown_background();
        }
    }
}

/// Listens, on threads that go with the listener and all its connections.
fn serve(address: SocketAddr, config: &Kubeconfig, shared: &Arc<Shared>) -> (SocketAddr, Runtime) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (config, shared) = (config.clone(), Arc::clone(shared));
    let (tell, told) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        let listener = bind(address).await;
        let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
        // What the API server says is for the operator.
        config.default_retry = false;
        let upstream = Client::try_from(config).unwrap();
        let _ = tell.send(listener.local_addr().unwrap());
        let app = Router::new().fallback(forward).with_state(Handler { upstream, shared });
        axum::serve(listener, app).await.unwrap();
    });
    (told.recv().expect("the proxy listens"), runtime)
}

async fn bind(address: SocketAddr) -> TcpListener {
    for _ in 0..BIND_TRIES {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => println!("{address}: {error}"),
        }
        tokio::time::sleep(BIND_PAUSE).await;
    }
    panic!("{address} is not free");
}

async fn forward(State(handler): State<Handler>, request: Request) -> Response {
    let call = Call::of(request.method(), request.uri());
    let mut cuts = handler.shared.cuts.subscribe();
    handler.shared.count.lock().unwrap().add(call.clone());
    let fault = handler.shared.faults.lock().unwrap().take(&call);
    match fault {
        Some(Fault::Answer(code, retry_after)) => return refusal(code, retry_after),
        Some(Fault::Expired) => return expired(),
        Some(Fault::Hang) => {
            let _ = cuts.changed().await;
            return broken();
        }
        Some(Fault::Lost | Fault::LostLate(_)) | None => {}
    }
    let answer = match handler.upstream.send(upstream(request).await).await {
        Ok(answer) => answer,
        Err(error) => {
            println!("the API server gave no answer: {error}");
            return broken();
        }
    };
    if let Some(Fault::LostLate(pause)) = fault {
        tokio::time::sleep(pause).await;
    }
    if matches!(fault, Some(Fault::Lost | Fault::LostLate(_))) {
        return broken();
    }
    let (mut parts, body) = answer.into_parts();
    OWN_HEADERS.iter().for_each(|name| _ = parts.headers.remove(name));
    let body = Body::new(body);
    if call.verb != "watch" {
        return Response::from_parts(parts, body);
    }
    let ended = async move { _ = cuts.changed().await };
    Response::from_parts(parts, Body::from_stream(body.into_data_stream().take_until(Box::pin(ended))))
}

async fn upstream(request: Request) -> axum::http::Request<ApiBody> {
    let (mut parts, body) = request.into_parts();
    OWN_HEADERS.iter().for_each(|name| _ = parts.headers.remove(name));
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await.unwrap_or_default();
    axum::http::Request::from_parts(parts, ApiBody::from(body))
}
