//! Bodies of messages as the wire has them, and as people read them.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use capstan_api::message::ContentType;
use serde::Serialize;
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

/// The body in a line of JSON, under the name that says what it is.
#[derive(Debug, Serialize)]
pub(super) enum Body {
    /// `json` as it was sent, digit by digit and key by key.
    #[serde(rename = "body")]
    Json(Box<RawValue>),
    /// A string for `text`, base64 for `bytes` and `v8`.
    #[serde(rename = "body")]
    Text(String),
    /// Base64 of what is no JSON although its content type says so.
    #[serde(rename = "body_base64")]
    Unreadable(String),
}

impl Body {
    /// The body of a message as the broker answers it.
    pub(super) fn new(content_type: ContentType, body: String) -> Self {
        match content_type {
            ContentType::Json => decoded(&body).map_or(Self::Unreadable(body), Self::Json),
            ContentType::Text | ContentType::Bytes | ContentType::V8 => Self::Text(body),
        }
    }
}

fn decoded(body: &str) -> Option<Box<RawValue>> {
    let text = String::from_utf8(STANDARD.decode(body).ok()?).ok()?;
    // Between tokens a line's end is a blank like any other, and within strings JSON has none.
    RawValue::from_string(text.replace(['\n', '\r'], " ")).ok()
}

/// The body on one line.
pub(super) fn shown(content_type: ContentType, body: String) -> String {
    match Body::new(content_type, body) {
        Body::Json(json) => preview(json.get()),
        Body::Text(text) if content_type == ContentType::Text => preview(&text),
        Body::Text(base64) | Body::Unreadable(base64) => {
            preview(&format!("{} (base64) {base64}", content_type.as_str()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(content_type: ContentType, body: &[u8]) -> String {
        serde_json::to_string(&Body::new(content_type, STANDARD.encode(body))).unwrap()
    }

    #[test]
    fn json_is_written_as_it_was_sent() {
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        for body in [
            r#"{"a":12345678901234567890123,"f":1.10,"dup":1,"dup":2}"#,
            r#"{ "z" : 1e400, "a" : "\ud800" }"#,
            r#""\u00e4\/""#,
            deep.as_str(),
        ] {
            assert_eq!(written(ContentType::Json, body.as_bytes()), format!("{{\"body\":{body}}}"));
        }
        assert_eq!(written(ContentType::Json, b"[1,\r\n2]"), r#"{"body":[1,  2]}"#, "on one line");
    }

    #[test]
    fn what_is_no_json_is_marked() {
        for body in [&b"{"[..], b"\"\xff\"", b""] {
            let base64 = STANDARD.encode(body);
            assert_eq!(written(ContentType::Json, body), format!("{{\"body_base64\":\"{base64}\"}}"));
        }
        assert_eq!(
            written(ContentType::Bytes, b"{"),
            r#"{"body":"ew=="}"#,
            "its content type says what it is"
        );
    }
}
