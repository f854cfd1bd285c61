//! Bodies between the wire and the store.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use capstan_api::ErrorCode;
use capstan_api::message::ContentType;
use serde_json::value::RawValue;

use super::at::At;
use super::json;
use super::refused::Refused;

/// The bytes to store for a sent body; `at` is its message's place.
pub(super) fn stored(content_type: ContentType, body: &RawValue, at: At) -> Result<Vec<u8>, Refused> {
    match content_type {
        ContentType::Json => json::check(body, at).map(|()| body.get().as_bytes().to_vec()),
        ContentType::Text => string(content_type, body, at).map(String::into_bytes),
        ContentType::Bytes | ContentType::V8 => {
            let text = string(content_type, body, at)?;
            STANDARD.decode(text).map_err(|error| {
                let message =
                    format!("body: a {} body is base64 with padding: {error}", content_type.as_str());
                Refused::at(ErrorCode::MessageMetadataInvalid, format!("{at}/body"), message)
            })
        }
    }
}

fn string(content_type: ContentType, body: &RawValue, at: At) -> Result<String, Refused> {
    let Ok(text) = serde_json::from_str(body.get()) else {
        if body.get().starts_with('"') {
            // A string, but none that can be read.
            json::check(body, at)?;
        }
        let message =
            format!("body: a message of content type {} has a string as body", content_type.as_str());
        return Err(Refused::at(ErrorCode::MessageMetadataInvalid, format!("{at}/body"), message));
    };
    Ok(text)
}

/// The body as pull and peek show it.
pub(super) fn shown(content_type: ContentType, body: Vec<u8>) -> String {
    match content_type {
        ContentType::Text => String::from_utf8(body)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        ContentType::Json | ContentType::Bytes | ContentType::V8 => STANDARD.encode(body),
    }
}

pub(super) const fn to_core(content_type: ContentType) -> capstan_core::ContentType {
    match content_type {
        ContentType::Json => capstan_core::ContentType::Json,
        ContentType::Text => capstan_core::ContentType::Text,
        ContentType::Bytes => capstan_core::ContentType::Bytes,
        ContentType::V8 => capstan_core::ContentType::V8,
    }
}

pub(super) const fn from_core(content_type: capstan_core::ContentType) -> ContentType {
    match content_type {
        capstan_core::ContentType::Json => ContentType::Json,
        capstan_core::ContentType::Text => ContentType::Text,
        capstan_core::ContentType::Bytes => ContentType::Bytes,
        capstan_core::ContentType::V8 => ContentType::V8,
    }
}
