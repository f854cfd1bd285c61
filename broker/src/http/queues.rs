//! Reading queues and their consumers in Cloudflare's form; changing them is `kubectl apply`'s business.

use axum::extract::State;
use axum::http::{Method, Uri};
use axum::response::Response;
use axum::{Extension, Json};
use capstan_api::ErrorCode;
use capstan_api::control::ConsumerPolicy;
use capstan_api::envelope::{Envelope, ResultInfo};
use capstan_api::message::Metrics;
use capstan_port::connections::Connection;
use capstan_port::path::{InPath, InQuery};
use serde_json::{Value, json};

use super::queue::{Names, check_account};
use super::refused::Refused;
use super::{AppState, metrics_of};
use crate::directory::Entry;

/// The queues of a namespace; `name` filters, and may be given several times. Without `per_page` all are on page 1.
pub(super) async fn list(
    State(state): State<AppState>,
    InPath(namespace): InPath<String>,
    Extension(connection): Extension<Connection>,
    InQuery(query): InQuery<Vec<(String, String)>>,
) -> Result<Response, Refused> {
    check_account(&namespace)?;
    let page = counted(&query, "page")?.unwrap_or(1);
    let per_page = counted(&query, "per_page")?;
    let names: Vec<String> =
        query.into_iter().filter(|(key, _)| key == "name").map(|(_, name)| name).collect();
    let turn = state.lists.turn().await?;
    let directory = state.engine.directory();
    turn.write_json(&connection, move || {
        let wanted = |entry: &&Entry| {
            !entry.retained && (names.is_empty() || names.iter().any(|n| n == entry.policy.name.as_str()))
        };
        let queues: Vec<Value> = directory.of_namespace(&namespace).filter(wanted).map(shown).collect();
        serde_json::to_vec(&paged(queues, page, per_page))
    })
    .await
}

/// A parameter that counts from 1.
fn counted(query: &[(String, String)], name: &str) -> Result<Option<u32>, Refused> {
    let Some((_, text)) = query.iter().find(|(key, _)| key == name) else {
        return Ok(None);
    };
    let number = text.parse().ok().filter(|number| *number > 0);
    let refused = || {
        let message = format!("the query: {name}: must be a whole number of at least 1, is {text:.80?}");
        Refused::new(ErrorCode::JsonBodyInvalid, message)
    };
    number.map(Some).ok_or_else(refused)
}

/// One queue.
pub(super) async fn get(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
) -> Result<Json<Envelope<Value>>, Refused> {
    Ok(Json(Envelope::success(shown(state.find(names)?.entry()))))
}

/// The consumers of a queue: none or one.
pub(super) async fn consumers(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
) -> Result<Json<Envelope<Vec<Value>>>, Refused> {
    let found = state.find(names)?;
    let entry = found.entry();
    let consumers = entry.policy.consumer.iter().map(|consumer| shown_consumer(entry, consumer)).collect();
    Ok(Json(whole(consumers)))
}

/// One consumer of a queue.
pub(super) async fn consumer(
    State(state): State<AppState>,
    InPath((namespace, queue, name)): InPath<(String, String, String)>,
) -> Result<Json<Envelope<Value>>, Refused> {
    let found = state.find((namespace, queue))?;
    let entry = found.entry();
    let consumer = entry.policy.consumer.as_ref().filter(|consumer| consumer.name.as_str() == name);
    let consumer = consumer.ok_or_else(|| {
        let message = format!("queue {:?} has no consumer of that name", found.name());
        Refused::new(ErrorCode::ConsumerNotFound, message)
    })?;
    Ok(Json(Envelope::success(shown_consumer(entry, consumer))))
}

/// A queue's backlog.
pub(super) async fn metrics(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
) -> Result<Json<Envelope<Metrics>>, Refused> {
    let found = state.find(names)?;
    let backlog = state.engine.backlog(found.id).await?;
    Ok(Json(Envelope::success(metrics_of(Some(backlog)))))
}

/// What every change of a queue or consumer answers.
pub(super) async fn managed_elsewhere(method: Method, uri: Uri) -> Refused {
    if ![Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(&method) {
        return super::not_allowed(method, uri).await;
    }
    let message = "queues and consumers are managed by kubectl apply: change the Queue or Consumer resource";
    Refused::new(ErrorCode::ManagedElsewhere, message)
}

fn whole(result: Vec<Value>) -> Envelope<Vec<Value>> {
    paged(result, 1, None)
}

fn paged(all: Vec<Value>, page: u32, per_page: Option<u32>) -> Envelope<Vec<Value>> {
    let total_count = count(&all);
    let per_page = per_page.unwrap_or(total_count.max(1));
    let total_pages = total_count.div_ceil(per_page).max(1);
    let size = per_page as usize;
    let result: Vec<Value> =
        all.into_iter().skip((page as usize - 1).saturating_mul(size)).take(size).collect();
    let info = ResultInfo { page, per_page, count: count(&result), total_count, total_pages };
    Envelope { result_info: Some(info), ..Envelope::success(result) }
}

fn count(list: &[Value]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

/// A queue in Cloudflare's form.
pub(super) fn shown(entry: &Entry) -> Value {
    let policy = &entry.policy;
    let consumers: Vec<Value> =
        policy.consumer.iter().map(|consumer| shown_consumer(entry, consumer)).collect();
    json!({
        "queue_id": policy.name,
        "queue_name": policy.name,
        "created_on": timestamp(entry.times.created_at),
        "modified_on": timestamp(entry.times.modified_at),
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

/// A time in the form of the API, RFC 3339 in milliseconds.
pub(super) fn timestamp(millis: u64) -> String {
    let time = i64::try_from(millis).ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    time.map(|time| format!("{time:.3}")).unwrap_or_default()
}

fn shown_consumer(entry: &Entry, consumer: &ConsumerPolicy) -> Value {
    let policy = &entry.policy;
    let dead_letter_queue = consumer.dead_letter_queue.as_ref().map_or("", |name| name.as_str());
    let mut shown = json!({
        "consumer_id": consumer.name,
        "created_on": timestamp(entry.times.consumer_at),
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
            "max_concurrency": consumer.max_concurrency,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_queue_is_on_one_page() {
        let page = |page, per_page| {
            let envelope = paged((1..=5).map(Value::from).collect(), page, per_page);
            let info = envelope.result_info.unwrap();
            let (count, total) = (info.count, (info.total_count, info.total_pages));
            assert_eq!(envelope.result.as_ref().unwrap().len(), count as usize);
            (envelope.result.unwrap().iter().filter_map(Value::as_u64).sum::<u64>(), total)
        };
        assert_eq!((page(1, None), page(2, None)), ((15, (5, 1)), (0, (5, 1))));
        let pages = [page(1, Some(2)), page(2, Some(2)), page(3, Some(2)), page(4, Some(2))];
        assert_eq!(pages, [(3, (5, 3)), (7, (5, 3)), (5, (5, 3)), (0, (5, 3))]);
        assert_eq!(page(u32::MAX, Some(u32::MAX)), (0, (5, 1)));
    }
}
