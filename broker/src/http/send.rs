//! `POST messages` and `POST messages/batch`.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue};
use capstan_api::envelope::Envelope;
use capstan_api::idempotency::HEADER;
use capstan_api::message::{ContentType, Metadata, Send, SendBatch, Sent};
use capstan_api::{ErrorCode, IdempotencyKey, limits};
use capstan_core::{Command, Reply, SendItem};
use capstan_port::path::InPath;

use super::at::At;
use super::attributes::Common;
use super::body::Body;
use super::queue::{Found, Names};
use super::refused::{Refused, of_core};
use super::{AppState, delay, encoding, idempotency, metrics_of};

/// With the send's key, as it came: so that its client knows that this broker minds keys.
type Answer = Result<(Option<[(&'static str, HeaderValue); 1]>, Json<Envelope<Sent>>), Refused>;

/// Takes one message.
pub(super) async fn one(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
    headers: HeaderMap,
    request: Request,
) -> Answer {
    let (found, body) = read(&state, names, request).await?;
    let (common, key) = (Common::of(&headers)?, idempotency::key(&headers)?);
    let message: Send = body.read()?;
    // From here on the engine counts its bytes.
    drop(body);
    let item = item(&found, message, &common, At::BODY)?;
    store(&state, &found, vec![item], key, &headers).await
}

/// Takes up to 100 messages, all or none.
pub(super) async fn batch(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
    headers: HeaderMap,
    request: Request,
) -> Answer {
    let (found, body) = read(&state, names, request).await?;
    let (common, key) = (Common::of(&headers)?, idempotency::key(&headers)?);
    let batch: SendBatch = body.read()?;
    drop(body);
    let count = batch.messages.len();
    let most = limits::BATCH_COUNT_MAX;
    if !(1..=most).contains(&count) {
        // They are not counted to their end.
        let more = if count > most { " or more" } else { "" };
        let message = format!("messages: a batch holds 1 to {most} messages, this one {count}{more}");
        return Err(Refused::at(ErrorCode::BatchCountOutOfBounds, "/messages", message));
    }
    let batch_delay = delay::millis(batch.delay_seconds.as_ref(), ErrorCode::BatchDelayInvalid, At::BODY)?;
    let mut items = Vec::with_capacity(count);
    for (index, message) in batch.messages.into_iter().enumerate() {
        let mut item = item(&found, message, &common, At::message(index))?;
        item.delay = item.delay.or(batch_delay);
        items.push(item);
    }
    check_size(&found, &items)?;
    store(&state, &found, items, key, &headers).await
}

/// The queue, and the body that it may take.
async fn read(state: &AppState, names: Names, request: Request) -> Result<(Found, Body), Refused> {
    let found = state.find(names);
    let limit = found.as_ref().map_or(limits::REQUEST_BYTES_MAX, |found| {
        limits::send_bytes_max(found.entry().policy.max_message_bytes)
    });
    // Read in any case: a client that is cut off while it writes may never read the answer.
    let body = Body::within(limit, request.into_body(), &state.budgets.sends).await;
    Ok((found?, body?))
}

async fn store(
    state: &AppState,
    found: &Found,
    items: Vec<SendItem>,
    key: Option<IdempotencyKey>,
    headers: &HeaderMap,
) -> Answer {
    let echo = headers.get(HEADER).filter(|_| key.is_some()).map(|value| [(HEADER, value.clone())]);
    let idempotency = key.map(|key| idempotency::of(&key, &items, state.tokens.incarnation));
    let command = Command::Send(capstan_core::Send { queue: found.id, items, idempotency });
    let outcome = state.engine.apply(command, Some(found.id)).await?;
    match outcome.reply {
        Reply::Sent(ids) => {
            let metadata = Metadata { metrics: metrics_of(outcome.backlog) };
            let ids = ids.iter().map(ToString::to_string).collect();
            Ok((echo, Json(Envelope::success(Sent { metadata, ids }))))
        }
        Reply::Refused(refusal) => Err(of_core(refusal, found.name())),
        _ => Err(super::unexpected()),
    }
}

/// Checks one message; `at` is its place in the body, `common` what the request's headers say of all of them.
fn item(found: &Found, message: Send, common: &Common, at: At) -> Result<SendItem, Refused> {
    let content_type = content_type(message.content_type.as_deref(), at)?;
    let delay = delay::millis(message.delay_seconds.as_ref(), ErrorCode::MessageMetadataInvalid, at)?;
    let attributes = common.with(message.attributes, at)?;
    let body = encoding::stored(content_type, &message.body, at)?;
    let limit = found.entry().policy.max_message_bytes;
    if body.len() > limit as usize {
        let message = format!("body: message length of {} bytes exceeds limit of {limit}", body.len());
        return Err(Refused::at(ErrorCode::MessageSizeOutOfBounds, format!("{at}/body"), message));
    }
    Ok(SendItem { delay, content_type: encoding::to_core(content_type), attributes, body })
}

fn content_type(text: Option<&str>, at: At) -> Result<ContentType, Refused> {
    let Some(text) = text else {
        return Ok(ContentType::default());
    };
    ContentType::parse(text).ok_or_else(|| {
        let message = "content_type: must be one of json, text, bytes, v8".to_owned();
        Refused::at(ErrorCode::MessageMetadataInvalid, format!("{at}/content_type"), message)
    })
}

/// A batch may always hold two of the queue's largest messages.
fn check_size(found: &Found, items: &[SendItem]) -> Result<(), Refused> {
    let bytes: usize = items.iter().map(|item| item.body.len()).sum();
    let limit = limits::batch_bytes_max(found.entry().policy.max_message_bytes);
    if bytes > limit {
        let message = format!("messages: batch size of {bytes} bytes exceeds limit of {limit} bytes");
        return Err(Refused::at(ErrorCode::BatchSizeOutOfBounds, "/messages", message));
    }
    Ok(())
}
