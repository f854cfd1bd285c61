//! A broker by script: hands out the messages it is given, and writes down what it is asked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use capstan_api::ErrorCode;
use capstan_api::envelope::Envelope;
use capstan_api::message::{
    Extend, Extended, Metadata, Metrics, Pull, Pulled, PulledMessage, Settle, Settled,
};
use capstan_api::workload::{POD_HEADER, PodReport, WORKLOAD_HEADER, WorkloadConsumer, WorkloadConsumers};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::soon;

/// What the broker knows and has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) consumers: Vec<WorkloadConsumer>,
    pub(crate) revision: u64,
    pub(crate) ready: VecDeque<PulledMessage>,
    /// All pulls, answered or not.
    pub(crate) pulls: Vec<(Duration, Pull)>,
    /// Pulls that wait now.
    pub(crate) waiting: usize,
    pub(crate) settles: Vec<Settle>,
    pub(crate) extends: Vec<Extend>,
    /// What the sidecar said of the application.
    pub(crate) reports: Vec<PodReport>,
    /// So many reports are refused with 503.
    pub(crate) refuse_reports: usize,
    /// Reports that came to a path that is none, as in an older broker.
    pub(crate) reports_lost: usize,
    pub(crate) has_no_reports: bool,
    /// So many settles are refused with 503.
    pub(crate) refuse_settles: usize,
    /// So many settles are taken, but their answer never arrives.
    pub(crate) lose_settles: usize,
    /// So many extends are refused with 503.
    pub(crate) refuse_extends: usize,
}

impl Seen {
    /// Ids of the messages whose leases are in `list`, over all settles.
    pub(crate) fn settled(&self, list: impl Fn(&Settle) -> Vec<String>) -> Vec<String> {
        self.settles
            .iter()
            .flat_map(list)
            .map(|lease| lease.trim_start_matches("lease-").to_owned())
            .collect()
    }

    pub(crate) fn acked(&self) -> Vec<String> {
        self.settled(|settle| settle.acks.iter().map(|lease| lease.lease_id.clone()).collect())
    }

    pub(crate) fn retried(&self) -> Vec<String> {
        self.settled(|settle| settle.retries.iter().map(|retry| retry.lease_id.clone()).collect())
    }

    pub(crate) fn released(&self) -> Vec<String> {
        self.settled(|settle| settle.releases.iter().map(|lease| lease.lease_id.clone()).collect())
    }
}

#[derive(Clone)]
pub(crate) struct Broker {
    seen: Arc<watch::Sender<Seen>>,
    port: u16,
    began: tokio::time::Instant,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (seen, port) =
            (Arc::new(watch::Sender::new(Seen::default())), listener.local_addr().unwrap().port());
        let broker = Self { seen, port, began: tokio::time::Instant::now() };
        let queue = "/client/v4/accounts/shop/queues/{queue}/messages";
        let router = Router::new()
            .route("/capstan/v1/namespaces/{namespace}/workloads/{kind}/{name}/consumers", get(consumers))
            .route("/capstan/v1/namespaces/{namespace}/workloads/{kind}/{name}/pods/{pod}", put(report))
            .route(&format!("{queue}/pull"), post(pull))
            .route(&format!("{queue}/ack"), post(settle))
            .route(&format!("{queue}/extend"), post(extend))
            .with_state(broker.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        broker
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Seen)) {
        self.seen.send_modify(change);
    }

    pub(crate) fn declare(&self, consumers: Vec<WorkloadConsumer>) {
        self.change(|seen| {
            seen.consumers = consumers;
            seen.revision += 1;
        });
    }

    /// Makes messages ready, with ids as given and bodies `{"id": …}`.
    pub(crate) fn send(&self, ids: &[&str]) {
        self.change(|seen| seen.ready.extend(ids.iter().map(|id| message(id))));
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&Seen) -> T) -> T {
        read(&self.seen.borrow())
    }

    /// Waits until the condition holds.
    pub(crate) async fn until(&self, what: &str, condition: impl FnMut(&Seen) -> bool) {
        let mut seen = self.seen.subscribe();
        soon(what, seen.wait_for(condition)).await.unwrap();
    }
}

pub(crate) fn message(id: &str) -> PulledMessage {
    let body = serde_json::json!({ "id": id });
    PulledMessage {
        id: id.to_owned(),
        body: STANDARD.encode(body.to_string()),
        attempts: 1,
        timestamp_ms: 1_795_473_420_076,
        lease_id: format!("lease-{id}"),
        metadata: BTreeMap::from([("CF-Content-Type".to_owned(), "json".to_owned())]),
        attributes: BTreeMap::new(),
    }
}

fn refused() -> Response {
    let envelope = Envelope::failure(ErrorCode::ShuttingDown, "scripted", None);
    (StatusCode::SERVICE_UNAVAILABLE, Json(envelope)).into_response()
}

async fn consumers(
    State(broker): State<Broker>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Json<WorkloadConsumers> {
    let mut seen = broker.seen.subscribe();
    let wait = Duration::from_millis(query["wait_ms"].parse().unwrap());
    let changed = seen.wait_for(|seen| seen.revision.to_string() != query["revision"]);
    drop(tokio::time::timeout(wait, changed).await);
    let seen = broker.seen.borrow();
    Json(WorkloadConsumers { revision: seen.revision.to_string(), consumers: seen.consumers.clone() })
}

async fn pull(State(broker): State<Broker>, headers: HeaderMap, Json(pull): Json<Pull>) -> Response {
    assert_eq!(
        (&headers[WORKLOAD_HEADER], &headers[POD_HEADER]),
        (&"Deployment/shop".parse().unwrap(), &"shop-1".parse().unwrap())
    );
    let (size, idle) = (pull.batch_size.unwrap().0, Duration::from_millis(pull.idle_ms.unwrap().0));
    broker.change(|seen| {
        seen.pulls.push((broker.began.elapsed(), pull));
        seen.waiting += 1;
    });
    // Dropped when the connection is: then nothing is leased.
    let waiting = Waiting(broker.clone());
    let mut seen = broker.seen.subscribe();
    drop(tokio::time::timeout(idle, seen.wait_for(|seen| !seen.ready.is_empty())).await);
    let mut messages = Vec::new();
    broker.change(|seen| {
        let count = seen.ready.len().min(usize::try_from(size).unwrap());
        messages = seen.ready.drain(..count).collect();
    });
    drop(waiting);
    let metadata = Metadata { metrics: Metrics::default() };
    Json(Envelope::success(Pulled { message_backlog_count: 0, messages, metadata })).into_response()
}

struct Waiting(Broker);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.change(|seen| seen.waiting -= 1);
    }
}

async fn settle(
    State(broker): State<Broker>,
    Path(queue): Path<String>,
    Json(settle): Json<Settle>,
) -> Response {
    assert_eq!(queue, "orders");
    let (mut refuse, mut lose) = (false, false);
    broker.change(|seen| {
        refuse = seen.refuse_settles > 0;
        seen.refuse_settles = seen.refuse_settles.saturating_sub(1);
        lose = !refuse && seen.lose_settles > 0;
        if refuse {
            return;
        }
        seen.lose_settles = seen.lose_settles.saturating_sub(1);
        // What is released is ready again at once.
        let released =
            settle.releases.iter().map(|lease| message(lease.lease_id.trim_start_matches("lease-")));
        seen.ready.extend(released);
        seen.settles.push(settle);
    });
    if refuse {
        return refused();
    }
    if lose {
        // An answer that is no answer: the request took effect, and the sidecar cannot know.
        return StatusCode::BAD_GATEWAY.into_response();
    }
    Json(Envelope::success(Settled::default())).into_response()
}

async fn report(
    State(broker): State<Broker>,
    Path(path): Path<[String; 4]>,
    Json(report): Json<PodReport>,
) -> Response {
    assert_eq!(path, ["shop", "Deployment", "shop", "shop-1"]);
    let (mut refuse, mut unknown) = (false, false);
    broker.change(|seen| {
        unknown = seen.has_no_reports;
        if unknown {
            seen.reports_lost += 1;
            return;
        }
        refuse = seen.refuse_reports > 0;
        seen.refuse_reports = seen.refuse_reports.saturating_sub(1);
        if !refuse {
            seen.reports.push(report);
        }
    });
    if unknown {
        let envelope = Envelope::failure(ErrorCode::NoRoute, "scripted", None);
        return (StatusCode::NOT_FOUND, Json(envelope)).into_response();
    }
    if refuse { refused() } else { Json(serde_json::json!({})).into_response() }
}

async fn extend(State(broker): State<Broker>, Json(extend): Json<Extend>) -> Response {
    let mut refuse = false;
    let count = u32::try_from(extend.extends.len()).unwrap();
    broker.change(|seen| {
        refuse = seen.refuse_extends > 0;
        seen.refuse_extends = seen.refuse_extends.saturating_sub(1);
        seen.extends.push(extend);
    });
    if refuse {
        return refused();
    }
    Json(Envelope::success(Extended { extend_count: count, ..Extended::default() })).into_response()
}
