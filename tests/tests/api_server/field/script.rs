//! What the faked data plane says of queues and pods, as a test wants it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use capstan_crds::Key;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::plane::{All, broker, names_of};

/// What becomes of an answer before it is given.
type Edit = Box<dyn Fn(&mut Value) + Send>;

/// Everything that is said beyond what was declared.
pub(crate) struct Script {
    /// What becomes of each state.
    pub(super) edit: Option<Edit>,
    /// Brokers refuse what they are told.
    pub(super) refuses: bool,
    /// What is said of queues, over the state of an empty one.
    queues: BTreeMap<Key, Value>,
    /// Messages that pods have.
    leased: BTreeMap<String, u64>,
    /// The Broker whose messages those are, where not every one says so.
    leased_by: Option<Key>,
    /// The pods that were to be leased nothing more, each time that was said.
    retired: Vec<Vec<String>>,
    /// Nothing is said of pods.
    is_mute: bool,
    /// Since when nothing is answered but errors.
    silent: Option<Instant>,
    /// For how long that had been so when a poll was last not answered.
    unanswered: Duration,
    version: watch::Sender<u64>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            edit: None,
            refuses: false,
            queues: BTreeMap::new(),
            leased: BTreeMap::new(),
            leased_by: None,
            retired: Vec::new(),
            is_mute: false,
            silent: None,
            unanswered: Duration::ZERO,
            version: watch::channel(1).0,
        }
    }
}

impl Script {
    /// Says something of a queue from now on.
    pub(crate) fn say(&mut self, queue: Key, what: Value) {
        self.queues.insert(queue, what);
        self.changed();
    }

    /// Pods have so many messages from now on; those that are not named have none.
    pub(crate) fn lease(&mut self, pods: &[(&str, u64)]) {
        self.leased = pods.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    }

    /// Only this Broker knows what pods have.
    pub(crate) fn leased_by(&mut self, broker: Key) {
        self.leased_by = Some(broker);
    }

    /// Says nothing more of pods, or does again.
    pub(crate) fn be_mute(&mut self, is_mute: bool) {
        self.is_mute = is_mute;
    }

    /// Falls silent, or speaks again.
    pub(crate) fn be_silent(&mut self, is_silent: bool) {
        self.silent = is_silent.then(Instant::now);
        self.changed();
    }

    /// How long it had been silent when it was last asked.
    pub(crate) fn unanswered(&self) -> Duration {
        self.unanswered
    }

    /// The pods that were to be leased nothing more, each time that was said.
    pub(crate) fn retired(&self) -> &[Vec<String>] {
        &self.retired
    }

    /// What is said of a queue.
    pub(super) fn of(&self, queue: &Key) -> Value {
        let mut state = json!({"namespace": queue.namespace, "name": queue.name, "retained": false, "ready": 0,
            "delayed": 0, "leased": 0, "dead": 0, "bytes": 0});
        if let (Some(state), Some(Value::Object(more))) = (state.as_object_mut(), self.queues.get(queue)) {
            state.extend(more.clone());
        }
        state
    }

    pub(super) fn check(&mut self) -> Result<(), StatusCode> {
        if let Some(since) = self.silent {
            self.unanswered = since.elapsed();
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        Ok(())
    }

    fn check_pods(&mut self) -> Result<(), StatusCode> {
        self.check()?;
        if self.is_mute { Err(StatusCode::SERVICE_UNAVAILABLE) } else { Ok(()) }
    }

    /// A declaration, or another word of a test.
    pub(super) fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }
}

/// What a subscriber has seen.
#[derive(serde::Deserialize)]
pub(super) struct Seen {
    #[serde(default)]
    since: String,
    #[serde(default)]
    wait_ms: u64,
}

/// The long poll: everything, whenever anything changed.
pub(super) async fn changes(
    State(all): State<All>,
    headers: HeaderMap,
    Query(seen): Query<Seen>,
) -> Result<Json<Value>, StatusCode> {
    let broker = broker(&headers)?;
    let mut version = {
        let mut all = all.lock().unwrap();
        all.script.check()?;
        all.script.version.subscribe()
    };
    let known: u64 = seen.since.parse().unwrap_or_default();
    let news = version.wait_for(|version| *version != known);
    let _ = tokio::time::timeout(Duration::from_millis(seen.wait_ms), news).await;
    let mut all = all.lock().unwrap();
    all.script.check()?;
    let version = (*all.script.version.borrow()).to_string();
    let queues: Vec<Value> = names_of(&all, &broker).iter().map(|queue| all.script.of(queue)).collect();
    Ok(Json(json!({"version": version, "whole": true, "queues": queues})))
}

/// The pods of a workload.
pub(super) async fn pods(
    State(all): State<All>,
    headers: HeaderMap,
    _: Path<(String, String, String)>,
) -> Result<Json<Value>, StatusCode> {
    let broker = broker(&headers)?;
    let mut all = all.lock().unwrap();
    all.script.check_pods()?;
    Ok(Json(shown(&all.script, &broker, &[])))
}

/// Takes which pods are to be leased nothing more.
pub(super) async fn retire(
    State(all): State<All>,
    headers: HeaderMap,
    _: Path<(String, String, String)>,
    Json(said): Json<capstan_api::control::Retiring>,
) -> Result<Json<Value>, StatusCode> {
    let broker = broker(&headers)?;
    let mut all = all.lock().unwrap();
    all.script.check_pods()?;
    let answer = shown(&all.script, &broker, &said.pods);
    all.script.retired.push(said.pods);
    Ok(Json(answer))
}

fn shown(script: &Script, broker: &Key, retiring: &[String]) -> Value {
    if script.leased_by.as_ref().is_some_and(|by| by != broker) {
        return json!({"pods": [], "leased_elsewhere": 0});
    }
    let pod = |(name, leased): (&String, &u64)| json!({"name": name, "leased": leased, "waiting": 1, "retiring": retiring.contains(name)});
    let pods: Vec<Value> = script.leased.iter().map(pod).collect();
    json!({"pods": pods, "leased_elsewhere": 0})
}
