//! Reading queues and their consumers in Cloudflare's form; changing them is `kubectl apply`'s business.

use axum::Json;
use axum::extract::State;
use capstan_api::ErrorCode;
use capstan_api::control::{ConsumerPolicy, QueuePolicy};
use capstan_api::envelope::{Envelope, ResultInfo};
use capstan_api::message::Metrics;
use serde_json::{Value, json};

use super::place::{InPath, InQuery};
use super::queue::Names;
use super::refused::Refused;
use super::{AppState, metrics_of};
use crate::directory::Entry;

/// The queues of a namespace; `name` filters, and may be given several times.
pub(super) async fn list(
    State(state): State<AppState>,
    InPath(namespace): InPath<String>,
    InQuery(query): InQuery<Vec<(String, String)>>,
) -> Json<Envelope<Vec<Value>>> {
    let names: Vec<&str> =
        query.iter().filter(|(key, _)| key == "name").map(|(_, name)| name.as_str()).collect();
    let directory = state.engine.directory();
    let wanted =
        |entry: &&Entry| !entry.retained && (names.is_empty() || names.contains(&entry.policy.name.as_str()));
    let queues: Vec<Value> =
        directory.of_namespace(&namespace).filter(wanted).map(|e| shown(&e.policy)).collect();
    Json(whole(queues))
}

/// One queue.
pub(super) async fn get(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
) -> Result<Json<Envelope<Value>>, Refused> {
    Ok(Json(Envelope::success(shown(&state.find(names)?.entry()?.policy))))
}

/// The consumers of a queue: none or one.
pub(super) async fn consumers(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
) -> Result<Json<Envelope<Vec<Value>>>, Refused> {
    let found = state.find(names)?;
    let policy = &found.entry()?.policy;
    let consumers = policy.consumer.iter().map(|consumer| shown_consumer(policy, consumer)).collect();
    Ok(Json(whole(consumers)))
}

/// One consumer of a queue.
pub(super) async fn consumer(
    State(state): State<AppState>,
    InPath((namespace, queue, name)): InPath<(String, String, String)>,
) -> Result<Json<Envelope<Value>>, Refused> {
    let found = state.find((namespace, queue))?;
    let policy = &found.entry()?.policy;
    let consumer = policy.consumer.as_ref().filter(|consumer| consumer.name.as_str() == name);
    let consumer = consumer.ok_or_else(|| {
        let message = format!("queue {:?} has no consumer of that name", found.name());
        Refused::new(ErrorCode::ConsumerNotFound, message)
    })?;
    Ok(Json(Envelope::success(shown_consumer(policy, consumer))))
}

/// A queue's backlog.
pub(super) async fn metrics(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
) -> Result<Json<Envelope<Metrics>>, Refused> {
    let found = state.find(names)?;
    // A peek of nothing costs nothing and carries the backlog.
    let look = capstan_core::Command::Peek(capstan_core::Peek { queue: found.id, count: 0, bytes: 0 });
    let outcome = state.engine.apply(look, Some(found.id)).await?;
    Ok(Json(Envelope::success(metrics_of(outcome.backlog))))
}

/// What every change of a queue or consumer answers.
pub(super) async fn managed_elsewhere() -> Refused {
    let message = "queues and consumers are managed by kubectl apply: change the Queue or Consumer resource";
    Refused::new(ErrorCode::ManagedElsewhere, message)
}

fn whole(result: Vec<Value>) -> Envelope<Vec<Value>> {
    let count = u32::try_from(result.len()).unwrap_or(u32::MAX);
    let info = ResultInfo { page: 1, per_page: count.max(1), count, total_count: count, total_pages: 1 };
    Envelope { result_info: Some(info), ..Envelope::success(result) }
}

fn shown(policy: &QueuePolicy) -> Value {
    let consumers: Vec<Value> =
        policy.consumer.iter().map(|consumer| shown_consumer(policy, consumer)).collect();
    json!({
        "queue_id": policy.name,
        "queue_name": policy.name,
        "producers": [],
        "producers_total_count": 0,
        "consumers_total_count": consumers.len(),
        "consumers": consumers,
        "settings": {
            "delivery_delay": policy.delivery_delay_ms / 1000,
            "delivery_paused": policy.delivery_paused,
            "message_retention_period": policy.retention_ms / 1000,
        },
    })
}

fn shown_consumer(policy: &QueuePolicy, consumer: &ConsumerPolicy) -> Value {
    let dead_letter_queue = consumer.dead_letter_queue.as_ref().map_or("", |name| name.as_str());
    let mut shown = json!({
        "consumer_id": consumer.name,
        "queue_name": policy.name,
        "dead_letter_queue": dead_letter_queue,
    });
    let (own, settings) = if let Some(push) = &consumer.push {
        let own =
            json!({ "type": "worker", "script": push.workload.name, "script_name": push.workload.name });
        let settings = json!({
            "batch_size": push.max_batch_size,
            "max_retries": consumer.max_retries,
            "max_wait_time_ms": push.max_wait_ms,
            "max_concurrency": null,
            "retry_delay": consumer.retry_delay_ms / 1000,
        });
        (own, settings)
    } else {
        let settings = json!({
            "batch_size": capstan_api::limits::PULL_BATCH_DEFAULT,
            "max_retries": consumer.max_retries,
            "retry_delay": consumer.retry_delay_ms / 1000,
            "visibility_timeout_ms": consumer.visibility_timeout_ms,
        });
        (json!({ "type": "http_pull" }), settings)
    };
    if let (Some(shown), Value::Object(own)) = (shown.as_object_mut(), own) {
        shown.extend(own);
        shown.insert("settings".to_owned(), settings);
    }
    shown
}
