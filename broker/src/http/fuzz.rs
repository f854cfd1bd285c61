//! A door for `cargo fuzz`: the readers of requests and tokens.

use capstan_api::control::{Declaration, Retiring};
use capstan_api::message::{Extend, Peek, Pull, Purge, Remove, Send, SendBatch, Settle};
use capstan_core::QueueId;

use super::at::At;
use super::body::Body;
use super::encoding;
use super::token::Tokens;
use crate::policy;

/// Reads a body as each request there is.
pub fn request(bytes: &[u8]) {
    let body = Body::of(bytes.to_vec());
    if let Ok(declaration) = body.read::<Declaration>() {
        let _ = policy::declaration(&declaration).map_err(|error| error.pointer());
    }
    if let Ok(send) = body.read::<Send>() {
        let content_type = send.content_type.as_deref().unwrap_or("json");
        if let Some(content_type) = capstan_api::message::ContentType::parse(content_type)
            && let Ok(stored) = encoding::stored(content_type, &send.body, At::BODY)
        {
            let _ = encoding::shown(content_type, stored);
        }
    }
    let _ = (body.read::<SendBatch>(), body.read::<Pull>(), body.read::<Peek>(), body.read::<Settle>());
    let _ = (body.read::<Extend>(), body.read::<Purge>(), body.read::<Remove>(), body.read::<Retiring>());
}

/// Reads a lease id and a ref.
///
/// # Panics
/// When one that is taken is not the one that is written.
pub fn token(bytes: &[u8]) {
    let (tokens, text) = (Tokens { incarnation: 7 }, String::from_utf8_lossy(bytes));
    if let Some(lease) = tokens.read_lease(&text) {
        assert_eq!(tokens.lease(lease), text);
    }
    if let Some(seq) = tokens.read_reference(QueueId(1), &text) {
        assert_eq!(tokens.reference(QueueId(1), seq), text);
    }
}
