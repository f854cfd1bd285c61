//! A faked data plane: it answers for every Broker as a broker without messages does, unless a test says otherwise.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use capstan_api::control::{DECLARATION_PATH, Declaration, Declared, STATE_PATH};
use capstan_crds::Key;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What one Broker was told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// The last declaration.
    pub(crate) declaration: Declaration,
    /// How often it was told one.
    pub(crate) declared: u64,
    /// How often it was asked what it knows.
    pub(crate) asked: u64,
}

type All = Arc<Mutex<BTreeMap<Key, Told>>>;
/// What becomes of each answer before it is given.
type Edit = Box<dyn Fn(&mut Value) + Send>;

/// What a test has the brokers do.
#[derive(Default)]
struct Script {
    edit: Option<Edit>,
    refuses: bool,
}

#[derive(Clone, Default)]
struct Shared {
    all: All,
    script: Arc<Mutex<Script>>,
}

/// All brokers.
pub(crate) struct Plane {
    address: SocketAddr,
    shared: Shared,
    server: JoinHandle<()>,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shared) = (listener.local_addr().unwrap(), Shared::default());
        let app = Router::new()
            .route(STATE_PATH, get(state))
            .route(DECLARATION_PATH, put(declare))
            .layer(DefaultBodyLimit::disable())
            .with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared, server }
    }

    /// Where the operator finds a Broker. Who is asked comes as the name and password of the request.
    pub(crate) fn url(&self) -> String {
        format!("http://{{namespace}}:{{broker}}@{}", self.address)
    }

    /// What each Broker was told.
    pub(crate) fn told(&self) -> BTreeMap<Key, Told> {
        self.shared.all.lock().unwrap().clone()
    }

    /// How often each Broker was asked what it knows.
    pub(crate) fn asked(&self) -> BTreeMap<Key, u64> {
        self.shared.all.lock().unwrap().iter().map(|(key, told)| (key.clone(), told.asked)).collect()
    }

    /// From now on brokers say what `edit` makes of what they would say.
    pub(crate) fn say(&self, edit: impl Fn(&mut Value) + Send + 'static) {
        self.shared.script.lock().unwrap().edit = Some(Box::new(edit));
    }

    /// Whether brokers refuse what they are told.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.shared.script.lock().unwrap().refuses = refuses;
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn broker(headers: &HeaderMap) -> Result<Key, StatusCode> {
    let names = || {
        let text = headers.get("authorization")?.to_str().ok()?.strip_prefix("Basic ")?;
        let text = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
        let (namespace, name) = text.split_once(':')?;
        Some(Key::new(namespace, name))
    };
    names().ok_or(StatusCode::UNAUTHORIZED)
}

fn incarnation(broker: &Key) -> String {
    format!("of-{}", broker.name)
}

async fn state(State(shared): State<Shared>, headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
    let broker = broker(&headers)?;
    let declaration = {
        let mut all = shared.all.lock().unwrap();
        let told = all.entry(broker.clone()).or_default();
        told.asked += 1;
        told.declaration.clone()
    };
    // A broker's own order.
    let mut names: Vec<_> = declaration.queues.iter().map(|queue| (&queue.namespace, &queue.name)).collect();
    names.sort();
    let queue = |(namespace, name)| {
        json!({"namespace": namespace, "name": name, "retained": false, "ready": 0, "delayed": 0, "leased": 0,
            "dead": 0, "bytes": 0})
    };
    let queues: Vec<Value> = names.into_iter().map(queue).collect();
    let mut answer = json!({"incarnation": incarnation(&broker), "revision": declaration.revision, "version": "0.1.0",
        "storage": {"capacity_bytes": 10_u64 << 30, "available_bytes": 9_u64 << 30}, "queues": queues});
    if let Some(edit) = &shared.script.lock().unwrap().edit {
        edit(&mut answer);
    }
    Ok(Json(answer))
}

async fn declare(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Json(declaration): Json<Declaration>,
) -> Result<Json<Declared>, StatusCode> {
    let broker = broker(&headers)?;
    if shared.script.lock().unwrap().refuses {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let revision = declaration.revision.clone();
    let mut all = shared.all.lock().unwrap();
    let told = all.entry(broker.clone()).or_default();
    told.declared += 1;
    told.declaration = declaration;
    Ok(Json(Declared { incarnation: incarnation(&broker), revision }))
}
