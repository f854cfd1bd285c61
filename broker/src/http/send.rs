//! `POST messages` and `POST messages/batch`.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use capstan_api::ErrorCode;
use capstan_api::envelope::Envelope;
use capstan_api::limits;
use capstan_api::message::{Attributes, ContentType, Metadata, Send, SendBatch, Sent};
use capstan_api::number::Whole;
use capstan_core::{Command, Reply, SendItem};

use super::at::At;
use super::body::SendBody;
use super::place::InPath;
use super::queue::{Found, Names};
use super::refused::{Refused, of_core};
use super::{AppState, encoding, metrics_of};

/// Headers of W3C Trace Context that become attributes, so that a consumer continues the producer's trace.
const TRACE_PARENT: &str = "traceparent";
const TRACE_STATE: &str = "tracestate";
/// What follows in a header's name is an attribute's.
const ATTRIBUTE_PREFIX: &str = "capstan-attr-";

type Answer = Result<Json<Envelope<Sent>>, Refused>;

/// Takes one message.
pub(super) async fn one(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
    headers: HeaderMap,
    SendBody(body): SendBody,
) -> Answer {
    let found = state.find(names)?;
    let common = attributes_of(&headers)?;
    let message: Send = body.read()?;
    // From here on the engine counts its bytes.
    drop(body);
    let item = item(&found, message, &common, At::BODY)?;
    store(&state, &found, vec![item]).await
}

/// Takes up to 100 messages, all or none.
pub(super) async fn batch(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
    headers: HeaderMap,
    SendBody(body): SendBody,
) -> Answer {
    let found = state.find(names)?;
    let common = attributes_of(&headers)?;
    let batch: SendBatch = body.read()?;
    drop(body);
    let count = batch.messages.len();
    if !(1..=limits::BATCH_COUNT_MAX).contains(&count) {
        let message =
            format!("messages: a batch holds 1 to {} messages, this one {count}", limits::BATCH_COUNT_MAX);
        return Err(Refused::at(ErrorCode::BatchCountOutOfBounds, "/messages", message));
    }
    let batch_delay = delay(batch.delay_seconds, ErrorCode::BatchDelayInvalid, At::BODY)?;
    let mut items = Vec::with_capacity(count);
    for (index, message) in batch.messages.into_iter().enumerate() {
        let mut item = item(&found, message, &common, At::message(index))?;
        item.delay = item.delay.or(batch_delay);
        items.push(item);
    }
    check_size(&found, &items)?;
    store(&state, &found, items).await
}

async fn store(state: &AppState, found: &Found, items: Vec<SendItem>) -> Answer {
    let command = Command::Send(capstan_core::Send { queue: found.id, items });
    let outcome = state.engine.apply(command, Some(found.id)).await?;
    match outcome.reply {
        Reply::Sent(ids) => {
            let metadata = Metadata { metrics: metrics_of(outcome.backlog) };
            let ids = ids.iter().map(ToString::to_string).collect();
            Ok(Json(Envelope::success(Sent { metadata, ids })))
        }
        Reply::Refused(refusal) => Err(of_core(refusal, found.name())),
        _ => Err(super::unexpected()),
    }
}

/// Checks one message; `at` is its place in the body, `common` what the request's headers say of all of them.
fn item(found: &Found, message: Send, common: &Attributes, at: At) -> Result<SendItem, Refused> {
    let content_type = content_type(message.content_type.as_deref(), at)?;
    let delay = delay(message.delay_seconds, ErrorCode::MessageMetadataInvalid, at)?;
    let attributes = attributes(message.attributes.unwrap_or_default(), common, at)?;
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

/// A delay in milliseconds.
fn delay(seconds: Option<Whole>, code: ErrorCode, at: At) -> Result<Option<u64>, Refused> {
    let Some(Whole(seconds)) = seconds else {
        return Ok(None);
    };
    if seconds > limits::DELAY_SECONDS_MAX.into() {
        let message = format!("delay_seconds: is {seconds}, but must be 0 to {}", limits::DELAY_SECONDS_MAX);
        return Err(Refused::at(code, format!("{at}/delay_seconds"), message));
    }
    Ok(Some(seconds * 1000))
}

/// Attributes in the request's headers: the trace's, and `capstan-attr-NAME`.
fn attributes_of(headers: &HeaderMap) -> Result<Attributes, Refused> {
    let mut attributes = Attributes::new();
    for (header, value) in headers {
        let name = match header.as_str() {
            name @ (TRACE_PARENT | TRACE_STATE) => name,
            header => match header.strip_prefix(ATTRIBUTE_PREFIX) {
                Some(name) => name,
                None => continue,
            },
        };
        let value = value.to_str().map_err(|_| {
            let message = format!(
                "header {header}: its value must be visible ASCII; other text can be sent in attributes"
            );
            Refused::new(ErrorCode::MessageMetadataInvalid, message)
        })?;
        attributes.insert(name.to_owned(), value.to_owned());
    }
    Ok(attributes)
}

/// A message's own attributes, and those of the headers that it does not name itself.
fn attributes(
    mut attributes: Attributes,
    common: &Attributes,
    at: At,
) -> Result<Vec<(String, String)>, Refused> {
    for (name, value) in common {
        attributes.entry(name.clone()).or_insert_with(|| value.clone());
    }
    let wrong = |problem: String| {
        let message = format!("attributes: {problem}");
        Err(Refused::at(ErrorCode::MessageMetadataInvalid, format!("{at}/attributes"), message))
    };
    if attributes.len() > limits::ATTRIBUTES_MAX {
        return wrong(format!("{} of them, at most {} are taken", attributes.len(), limits::ATTRIBUTES_MAX));
    }
    let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    for name in attributes.keys() {
        if name.is_empty() || name.len() > limits::ATTRIBUTE_NAME_MAX || !name.bytes().all(token) {
            let most = limits::ATTRIBUTE_NAME_MAX;
            return wrong(format!("a name is 1 to {most} of a-z, 0-9, '-', '_' and '.', unlike {name:.80?}"));
        }
    }
    let bytes: usize = attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > limits::ATTRIBUTE_BYTES_MAX {
        return wrong(format!("{bytes} bytes of names and values, at most {}", limits::ATTRIBUTE_BYTES_MAX));
    }
    Ok(attributes.into_iter().collect())
}

/// A batch may always hold two of the queue's largest messages.
fn check_size(found: &Found, items: &[SendItem]) -> Result<(), Refused> {
    let bytes: usize = items.iter().map(|item| item.body.len()).sum();
    let limit = limits::BATCH_BYTES_DEFAULT.max(2 * found.entry().policy.max_message_bytes as usize);
    if bytes > limit {
        let message = format!("messages: batch size of {bytes} bytes exceeds limit of {limit} bytes");
        return Err(Refused::at(ErrorCode::BatchSizeOutOfBounds, "/messages", message));
    }
    Ok(())
}
