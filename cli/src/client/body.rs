//! Bodies of messages as the wire has them, and as people read them.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use capstan_api::message::ContentType;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::output::preview;

const CONTENT_TYPE: &str = "CF-Content-Type";

/// JSON as it was written.
///
/// # Errors
/// Says what is wrong, and what to do about it.
pub(crate) fn raw_json(text: &str) -> Result<Box<RawValue>, String> {
    RawValue::from_string(text.trim().to_owned()).map_err(|error| {
        format!(
            "{:?} is not JSON: {error}; quote it for the shell, or use --text to send it as it is",
            preview(text)
        )
    })
}

/// A text as a JSON string.
pub(super) fn raw_text(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::value::to_raw_value(text).map_err(|error| error.to_string())
}

/// What a message's metadata says of its body.
pub(super) fn content_type(metadata: &BTreeMap<String, String>) -> ContentType {
    metadata.get(CONTENT_TYPE).and_then(|text| ContentType::parse(text)).unwrap_or_default()
}

/// The body as JSON: the value of `json`, a string for `text`, base64 for what is neither.
pub(super) fn value(content_type: ContentType, body: String) -> Value {
    match content_type {
        ContentType::Json => {
            let decoded = STANDARD.decode(&body).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            decoded.unwrap_or(Value::String(body))
        }
        ContentType::Text | ContentType::Bytes | ContentType::V8 => Value::String(body),
    }
}

/// The body on one line.
pub(super) fn shown(content_type: ContentType, body: String) -> String {
    match value(content_type, body) {
        Value::String(text) if content_type == ContentType::Text => preview(&text),
        Value::String(base64) if content_type != ContentType::Json => {
            preview(&format!("{} (base64) {base64}", content_type.as_str()))
        }
        value => preview(&value.to_string()),
    }
}
