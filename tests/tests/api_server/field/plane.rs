//! A faked data plane: it answers for every Broker as a broker without messages does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use capstan_api::control::{CHANGES_PATH, DECLARATION_PATH, Declaration, Declared, QueuePolicy, STATE_PATH};
use capstan_crds::Key;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::script::{self, Script};

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

/// What all brokers were told, and what they say beyond that.
#[derive(Default)]
pub(super) struct Known {
    told: BTreeMap<Key, Told>,
    pub(super) script: Script,
}

pub(super) type All = Arc<Mutex<Known>>;

/// All brokers.
pub(crate) struct Plane {
    address: SocketAddr,
    all: All,
    server: JoinHandle<()>,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, all) = (listener.local_addr().unwrap(), All::default());
        let app = Router::new()
            .route(STATE_PATH, get(state))
            .route(DECLARATION_PATH, put(declare))
            .route(CHANGES_PATH, get(script::changes))
            .route(
                "/control/v1/namespaces/{namespace}/workloads/{kind}/{name}/pods",
                get(script::pods).put(script::retire),
            )
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&all));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, all, server }
    }

    /// Where the operator finds a Broker. Who is asked comes as the name and password of the request.
    pub(crate) fn url(&self) -> String {
        format!("http://{{namespace}}:{{broker}}@{}", self.address)
    }

    /// What each Broker was told.
    pub(crate) fn told(&self) -> BTreeMap<Key, Told> {
        self.all.lock().unwrap().told.clone()
    }

    /// Changes what is said, or looks at what was heard.
    pub(crate) fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.all.lock().unwrap().script)
    }

    /// From now on brokers say what `edit` makes of what they would say.
    pub(crate) fn say(&self, edit: impl Fn(&mut Value) + Send + 'static) {
        self.script(|script| script.edit = Some(Box::new(edit)));
    }

    /// Whether brokers refuse what they are told.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.script(|script| script.refuses = refuses);
    }

    /// How often each Broker was asked what it knows.
    pub(crate) fn asked(&self) -> BTreeMap<Key, u64> {
        self.all.lock().unwrap().told.iter().map(|(key, told)| (key.clone(), told.asked)).collect()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(super) fn broker(headers: &HeaderMap) -> Result<Key, StatusCode> {
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

async fn state(State(all): State<All>, headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
    let broker = broker(&headers)?;
    let (revision, queues) = {
        let mut all = all.lock().unwrap();
        all.script.check()?;
        let told = all.told.entry(broker.clone()).or_default();
        told.asked += 1;
        let revision = told.declaration.revision.clone();
        let queues: Vec<Value> = names_of(&all, &broker).iter().map(|queue| all.script.of(queue)).collect();
        (revision, queues)
    };
    let mut answer = json!({"incarnation": incarnation(&broker), "revision": revision, "version": "0.1.0",
        "storage": {"capacity_bytes": 10_u64 << 30, "available_bytes": 9_u64 << 30}, "queues": queues});
    if let Some(edit) = &all.lock().unwrap().script.edit {
        edit(&mut answer);
    }
    Ok(Json(answer))
}

/// The queues of a broker, in its own order.
pub(super) fn names_of(all: &Known, broker: &Key) -> Vec<Key> {
    let declared = all.told.get(broker).map(|told| &told.declaration.queues);
    let key = |queue: &QueuePolicy| Key::new(queue.namespace.as_str(), queue.name.as_str());
    let mut names: Vec<Key> = declared.into_iter().flatten().map(key).collect();
    names.sort();
    names
}

async fn declare(
    State(all): State<All>,
    headers: HeaderMap,
    Json(declaration): Json<Declaration>,
) -> Result<Json<Declared>, StatusCode> {
    let broker = broker(&headers)?;
    let revision = declaration.revision.clone();
    let mut all = all.lock().unwrap();
    all.script.check()?;
    if all.script.refuses {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let told = all.told.entry(broker.clone()).or_default();
    told.declared += 1;
    told.declaration = declaration;
    all.script.changed();
    Ok(Json(Declared { incarnation: incarnation(&broker), revision }))
}
