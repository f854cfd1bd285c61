//! Writes the answer to a pull, message by message into one buffer: nearly all of it is base64, which needs no escaping.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use capstan_api::message::{Attributes, ContentType, Metrics};
use capstan_core::{Delivered, Message};
use serde::Serialize;

use super::encoding;
use super::pull::metadata;
use super::token::Tokens;

/// What a message takes beside its body.
const ROOM: usize = 320;

/// An [`Envelope`](capstan_api::envelope::Envelope) of a [`Pulled`](capstan_api::message::Pulled).
///
/// # Errors
/// As serde_json; strings and maps of strings have none.
pub(super) fn write(
    delivered: &[Delivered],
    metrics: &Metrics,
    tokens: Tokens,
) -> serde_json::Result<Vec<u8>> {
    let bodies: usize = delivered.iter().map(|one| one.message.body.len() * 4 / 3 + ROOM).sum();
    let mut out = Vec::with_capacity(bodies + ROOM);
    out.extend_from_slice(
        b"{\"success\":true,\"errors\":[],\"messages\":[],\"result\":{\"message_backlog_count\":",
    );
    value(&mut out, &metrics.backlog_count)?;
    out.extend_from_slice(b",\"messages\":[");
    for (index, one) in delivered.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        message(&mut out, one, tokens)?;
    }
    out.extend_from_slice(b"],\"metadata\":{\"metrics\":");
    value(&mut out, metrics)?;
    out.extend_from_slice(b"}}}");
    Ok(out)
}

fn message(out: &mut Vec<u8>, delivered: &Delivered, tokens: Tokens) -> serde_json::Result<()> {
    let Delivered { lease, attempt, message, .. } = delivered;
    let Message { id, sent_at, content_type, attributes, body, origin, .. } = &**message;
    let content_type = encoding::from_core(*content_type);
    out.extend_from_slice(b"{\"id\":\"");
    out.extend_from_slice(id.to_string().as_bytes());
    out.extend_from_slice(b"\",\"body\":");
    if content_type == ContentType::Text {
        value(out, &String::from_utf8_lossy(body))?;
    } else {
        base64(out, body);
    }
    out.extend_from_slice(b",\"attempts\":");
    value(out, attempt)?;
    out.extend_from_slice(b",\"timestamp_ms\":");
    value(out, sent_at)?;
    out.extend_from_slice(b",\"lease_id\":\"");
    out.extend_from_slice(tokens.lease(*lease).as_bytes());
    out.extend_from_slice(b"\",\"metadata\":");
    if origin.is_some() {
        value(out, &metadata(message))?;
    } else {
        out.extend_from_slice(b"{\"CF-Content-Type\":\"");
        out.extend_from_slice(content_type.as_str().as_bytes());
        out.extend_from_slice(b"\",\"CF-sourceMessageSource\":\"api\"}");
    }
    if !attributes.is_empty() {
        out.extend_from_slice(b",\"attributes\":");
        value(out, &attributes.iter().cloned().collect::<Attributes>())?;
    }
    out.push(b'}');
    Ok(())
}

fn value<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> serde_json::Result<()> {
    serde_json::to_writer(out, value)
}

fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, b'=');
    // There is room for all of it.
    let written = out.get_mut(start..).and_then(|room| STANDARD.encode_slice(bytes, room).ok());
    debug_assert_eq!(written, Some(out.len() - start));
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use capstan_api::envelope::Envelope;
    use capstan_api::message::{Metadata, Pulled, PulledMessage};
    use capstan_core::{Lease, MessageId, Origin, QueueId, Seq};
    use proptest::prelude::*;

    use super::*;

    fn delivered() -> impl Strategy<Value = Delivered> {
        let types = prop::sample::select(vec![
            capstan_core::ContentType::Json,
            capstan_core::ContentType::Text,
            capstan_core::ContentType::Bytes,
            capstan_core::ContentType::V8,
        ]);
        let origin = prop::option::of(
            ("shop/[a-z]{0,5}", any::<u32>(), ".{0,9}", any::<u64>())
                .prop_map(|(label, attempts, reason, moved_at)| Origin { label, attempts, reason, moved_at }),
        );
        let attributes = prop::collection::btree_map("[a-z]{1,5}", ".{0,9}", 0..3);
        let numbers = (any::<u128>(), any::<u64>(), any::<u64>(), any::<u32>());
        (types, origin, attributes, ".{0,40}", numbers).prop_map(
            |(content_type, origin, attributes, body, (id, sent_at, nonce, attempt))| {
                let (attributes, body) = (attributes.into_iter().collect(), body.into_bytes());
                let (stored_at, due, id) = (0, 0, MessageId(id));
                let message = Message { id, sent_at, stored_at, due, content_type, attributes, body, origin };
                let lease = Lease { queue: QueueId(1), seq: Seq(nonce / 2), nonce };
                Delivered { lease, attempt, until: 0, message: Box::new(message) }
            },
        )
    }

    /// The same by the types that clients read it with.
    fn expected(one: &Delivered, tokens: Tokens) -> PulledMessage {
        let message = &one.message;
        PulledMessage {
            id: message.id.to_string(),
            body: encoding::shown(encoding::from_core(message.content_type), message.body.clone()),
            attempts: one.attempt,
            timestamp_ms: message.sent_at,
            lease_id: tokens.lease(one.lease),
            metadata: metadata(message),
            attributes: message.attributes.iter().cloned().collect(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_what_the_types_write(all in prop::collection::vec(delivered(), 0..4), count: u64) {
            let tokens = Tokens { incarnation: 7 };
            let metrics =
                Metrics { backlog_count: count, backlog_bytes: 5, oldest_message_timestamp_ms: 6 };
            let written = write(&all, &metrics, tokens).unwrap();
            let messages = all.iter().map(|one| expected(one, tokens)).collect();
            let pulled =
                Pulled { message_backlog_count: count, messages, metadata: Metadata { metrics } };
            let typed = serde_json::to_string(&Envelope::success(pulled)).unwrap();
            prop_assert_eq!(String::from_utf8(written).unwrap(), typed);
        }
    }
}
