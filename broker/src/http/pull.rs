//! `POST messages/pull` and `POST messages/peek`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::{Extension, Json};
use capstan_api::ErrorCode;
use capstan_api::envelope::Envelope;
use capstan_api::limits;
use capstan_api::message::{Cancelled, Peek, Peeked, PeekedMessage, Pull};
use capstan_api::number::Whole;
use capstan_api::workload::{OBJECT_NAME_MAX, POD_HEADER, WORKLOAD_HEADER};
use capstan_core::{Command, Holder, Message, Reply};
use capstan_port::connections::Connection;
use capstan_port::path::InPath;

use super::body::Body;
use super::queue::{Found, Names};
use super::refused::{Refused, of_core};
use super::token::Tokens;
use super::{AppState, answer, encoding, metrics_of, pulled};
use crate::engine::{Outcome, Owner, Puller};

/// Leases messages; waits for them if asked to.
pub(super) async fn pull(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let found = state.find(names)?;
    let pull: Pull = body.read()?;
    // It may wait for long.
    drop(body);
    let puller = check_consumer(&found, &headers)?;
    let wait = field("wait_ms", pull.wait_ms, 0, limits::WAIT_MS_MAX)?.unwrap_or(0);
    let idle = field("idle_ms", pull.idle_ms, 0, limits::IDLE_MS_MAX)?.unwrap_or(wait);
    let command = command(&found, &pull)?;
    let open = state.pulls.open(found.id, &headers)?;
    let outcome = tokio::select! {
        biased;
        outcome = state.engine.pull(command, puller, wait, idle) => outcome?,
        () = open.called_off() => Outcome::nothing(None),
    };
    match outcome.reply {
        Reply::Delivered(delivered) => {
            let metrics = metrics_of(outcome.backlog);
            let written = pulled::write(&delivered, &metrics, state.tokens);
            let bytes = written.map_err(|error| answer::unwritten(&error))?;
            Ok(answer::counted(bytes, outcome.held, &connection))
        }
        Reply::Refused(refusal) => Err(of_core(refusal, found.name())),
        _ => Err(super::unexpected()),
    }
}

/// Lets open pulls answer at once, with what they have just leased or with nothing.
pub(super) async fn cancel(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
    headers: HeaderMap,
) -> Result<Json<Envelope<Cancelled>>, Refused> {
    let found = state.find(names)?;
    Ok(Json(Envelope::success(Cancelled { cancelled: state.pulls.call_off(found.id, &headers)? })))
}

fn command(found: &Found, pull: &Pull) -> Result<capstan_core::Pull, Refused> {
    let longest = limits::VISIBILITY_TIMEOUT_MS_MAX;
    let count = batch_size(pull.batch_size)?;
    let lease = field("visibility_timeout_ms", pull.visibility_timeout_ms, 1, longest)?;
    let older = field("visibility_timeout", pull.visibility_timeout, 1, longest)?;
    let bytes = field("batch_bytes", pull.batch_bytes, 1, u64::MAX)?.unwrap_or(u64::MAX);
    // A pull is for up to so much: one that asks for more gets what one answer carries.
    let bytes = bytes.min(limits::PULL_BYTES_MAX);
    Ok(capstan_core::Pull { queue: found.id, count, bytes, lease: lease.or(older), holder: Holder::UNKNOWN })
}

/// A push consumer's queue is pulled by the sidecars of its workload and by no one else; the pod of one is remembered.
fn check_consumer(found: &Found, headers: &HeaderMap) -> Result<Option<Puller>, Refused> {
    let policy = &found.entry().policy;
    let Some(consumer) = &policy.consumer else {
        return Ok(None);
    };
    let Some(push) = &consumer.push else { return Ok(None) };
    let workload = headers.get(WORKLOAD_HEADER).and_then(|value| value.to_str().ok());
    if workload == Some(push.workload.to_string().as_str()) {
        let owner = || Owner { namespace: policy.namespace.clone(), workload: push.workload.clone() };
        return Ok(pod(headers)?.map(|pod| Puller { owner: owner(), pod }));
    }
    let message = format!(
        "messages cannot be pulled unless http_pull mode is enabled: Consumer {} hands queue {:?} to {}; \
         remove its targetRef to pull",
        consumer.name,
        found.name(),
        push.workload
    );
    Err(Refused::new(ErrorCode::PullDisabled, message))
}

fn pod(headers: &HeaderMap) -> Result<Option<String>, Refused> {
    let Some(value) = headers.get(POD_HEADER) else {
        return Ok(None);
    };
    let pod = value.to_str().ok().filter(|pod| (1..=OBJECT_NAME_MAX).contains(&pod.len()));
    pod.map(|pod| Some(pod.to_owned())).ok_or_else(|| {
        let message =
            format!("header {POD_HEADER}: a pod's name is 1 to {OBJECT_NAME_MAX} characters of ASCII");
        Refused::in_header(ErrorCode::JsonBodyInvalid, POD_HEADER, message)
    })
}

/// Shows the oldest messages; nothing is leased.
pub(super) async fn peek(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
    Extension(connection): Extension<Connection>,
    body: Body,
) -> Result<Response, Refused> {
    let found = state.find(names)?;
    let peek: Peek = body.read()?;
    let count = batch_size(peek.batch_size)?;
    let command = Command::Peek(capstan_core::Peek { queue: found.id, count, bytes: limits::PULL_BYTES_MAX });
    let outcome = state.engine.apply(command, None).await?;
    match outcome.reply {
        Reply::Peeked(peeked) => {
            let messages = peeked.into_iter().map(|one| shown(one, &found, state.tokens)).collect();
            let written = serde_json::to_vec(&Envelope::success(Peeked { messages }));
            let bytes = written.map_err(|error| answer::unwritten(&error))?;
            Ok(answer::counted(bytes, outcome.held, &connection))
        }
        Reply::Refused(refusal) => Err(of_core(refusal, found.name())),
        _ => Err(super::unexpected()),
    }
}

fn shown(peeked: capstan_core::Peeked, found: &Found, tokens: Tokens) -> PeekedMessage {
    let capstan_core::Peeked { seq, attempts, state, message, .. } = peeked;
    let mut metadata = metadata(&message);
    metadata.insert("capstan-state".to_owned(), state.to_owned());
    let Message { id, sent_at, content_type, attributes, body, .. } = *message;
    PeekedMessage {
        id: id.to_string(),
        body: encoding::shown(encoding::from_core(content_type), body),
        attempts,
        timestamp_ms: sent_at,
        reference: tokens.reference(found.id, seq),
        metadata,
        attributes: attributes.into_iter().collect(),
    }
}

/// What a message says of itself, beside its attributes.
pub(super) fn metadata(message: &Message) -> BTreeMap<String, String> {
    let content_type = encoding::from_core(message.content_type).as_str();
    let mut metadata = BTreeMap::from([
        ("CF-Content-Type".to_owned(), content_type.to_owned()),
        ("CF-sourceMessageSource".to_owned(), "api".to_owned()),
    ]);
    if let Some(origin) = &message.origin {
        let queue = origin.label.split_once('/').map_or(origin.label.as_str(), |(_, queue)| queue);
        for (name, value) in [
            ("queue", queue.to_owned()),
            ("attempts", origin.attempts.to_string()),
            ("reason", origin.reason.clone()),
            ("timestamp-ms", origin.moved_at.to_string()),
        ] {
            metadata.insert(format!("capstan-dead-letter-{name}"), value);
        }
    }
    metadata
}

fn batch_size(size: Option<Whole>) -> Result<usize, Refused> {
    let most = limits::BATCH_COUNT_MAX as u64;
    let Some(Whole(size)) = size else {
        return Ok(limits::PULL_BATCH_DEFAULT.into());
    };
    if !(1..=most).contains(&size) {
        let message = format!("batch_size: is {size}, but must be 1 to {most}");
        return Err(Refused::at(ErrorCode::BatchCountOutOfBounds, "/batch_size", message));
    }
    Ok(usize::try_from(size).unwrap_or(limits::BATCH_COUNT_MAX))
}

/// A number of the body within its bounds.
pub(super) fn field(name: &str, value: Option<Whole>, least: u64, most: u64) -> Result<Option<u64>, Refused> {
    let Some(Whole(value)) = value else {
        return Ok(None);
    };
    if !(least..=most).contains(&value) {
        let message = format!("{name}: is {value}, but must be {least} to {most}");
        return Err(Refused::at(ErrorCode::JsonBodyInvalid, format!("/{name}"), message));
    }
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_says_its_name_or_nothing_and_no_nonsense() {
        let read = |name: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(POD_HEADER, name.parse().unwrap());
            pod(&headers)
        };
        assert_eq!(pod(&HeaderMap::new()), Ok(None));
        for good in ["shop-1", &"x".repeat(OBJECT_NAME_MAX)] {
            assert_eq!(read(good), Ok(Some(good.to_owned())));
        }
        for bad in ["", &"x".repeat(OBJECT_NAME_MAX + 1), "ü"] {
            let refused = read(bad).unwrap_err();
            assert_eq!(
                (refused.code, refused.header.as_deref()),
                (ErrorCode::JsonBodyInvalid, Some(POD_HEADER))
            );
            assert!(refused.message.contains("253"), "{refused:?}");
        }
    }
}
