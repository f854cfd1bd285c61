//! The idempotency key of a send, and the digests by which a repeated send is known.
//!
//! Digests are stored: another way to make them is a new format version.

use axum::http::HeaderMap;
use capstan_api::idempotency::HEADER;
use capstan_api::{ErrorCode, IdempotencyKey};
use capstan_core::{ContentType, Idempotency, SendItem};
use xxhash_rust::xxh3::{Xxh3, xxh3_128_with_seed};

use super::attributes::is_trace;
use super::refused::Refused;

const _: () = {
    use capstan_api::limits as wire;
    use capstan_core::limits as core;
    assert!(wire::IDEMPOTENCY_WINDOW_SECONDS * 1000 == core::SEND_WINDOW_MS);
    assert!(wire::IDEMPOTENCY_KEYS_MAX == core::SENDS_MAX);
    assert!(wire::IDEMPOTENCY_KEYS_ALL_MAX == core::SENDS_ALL_MAX);
};

/// Reads the header `Idempotency-Key`.
///
/// # Errors
/// When it is no key, or is there twice with two keys.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Refused> {
    let mut found: Option<IdempotencyKey> = None;
    for value in headers.get_all(HEADER) {
        let key = IdempotencyKey::from_header(value.as_bytes()).map_err(|problem| wrong(&problem))?;
        if found.as_ref().is_some_and(|other| *other != key) {
            return Err(wrong(&"is there more than once, with different keys"));
        }
        found = Some(key);
    }
    Ok(found)
}

fn wrong(problem: &dyn std::fmt::Display) -> Refused {
    Refused::in_header(ErrorCode::JsonBodyInvalid, HEADER, format!("header {HEADER}: {problem}"))
}

/// What a repetition of a send of these messages has, too, in the store of an incarnation.
///
/// This guards against accidents alone. The hash is no cryptographic one, and message ids tell its seed: whoever looks for
/// them can find two keys, or two contents, that are taken for one. That costs nobody but themselves a message; who
/// knows another producer's key can name it as it is.
pub(super) fn of(key: &IdempotencyKey, items: &[SendItem], incarnation: u64) -> Idempotency {
    let mut content = Xxh3::with_seed(incarnation);
    for item in items {
        add(&mut content, item);
    }
    let key = xxh3_128_with_seed(key.as_str().as_bytes(), incarnation);
    Idempotency { key, content: content.digest128() }
}

/// Every field, with its length, so that no two lists of messages are the same bytes. All but the trace: whoever repeats a
/// request may begin a new span for it.
fn add(content: &mut Xxh3, item: &SendItem) {
    let SendItem { delay, content_type, attributes, body } = item;
    // No delay is that long.
    content.update(&delay.unwrap_or(u64::MAX).to_le_bytes());
    content.update(&[match content_type {
        ContentType::Json => 0,
        ContentType::Text => 1,
        ContentType::Bytes => 2,
        ContentType::V8 => 3,
    }]);
    let attributes = || attributes.iter().filter(|(name, _)| !is_trace(name));
    content.update(&(attributes().count() as u64).to_le_bytes());
    for text in attributes().flat_map(|(name, value)| [name, value]) {
        add_bytes(content, text.as_bytes());
    }
    add_bytes(content, body);
}

fn add_bytes(content: &mut Xxh3, bytes: &[u8]) {
    content.update(&(bytes.len() as u64).to_le_bytes());
    content.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(body: &str) -> SendItem {
        let attributes = vec![("tenant".to_owned(), "blue".to_owned())];
        SendItem { delay: None, content_type: ContentType::Json, attributes, body: body.into() }
    }

    fn content(items: &[SendItem]) -> u128 {
        of(&IdempotencyKey::new("a").unwrap(), items, 7).content
    }

    #[test]
    fn a_key_that_is_there_twice_is_one_unless_it_is_another() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, value.parse().unwrap());
            }
            key(&headers)
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["a-1", "\"a-1\""]), Ok(Some(IdempotencyKey::new("a-1").unwrap())));
        for (wrong, says) in
            [(&["a", "b"][..], "more than once"), (&[""], "1 to 128"), (&["a b"], "visible ASCII")]
        {
            let refused = read(wrong).unwrap_err();
            assert_eq!(refused.header.as_deref(), Some(HEADER));
            assert!(refused.message.contains(says), "{wrong:?}: {}", refused.message);
        }
    }

    #[test]
    fn whatever_differs_is_another_content_but_for_the_trace() {
        let same = content(&[item("1")]);
        let with = |change: fn(&mut SendItem)| {
            let mut item = item("1");
            change(&mut item);
            content(&[item])
        };
        let others = [
            with(|item| item.delay = Some(0)),
            with(|item| item.content_type = ContentType::Text),
            with(|item| item.attributes[0].1.push('x')),
            with(|item| item.attributes.clear()),
            with(|item| item.body = b"2".to_vec()),
            content(&[item("1"), item("1")]),
            content(&[item("11")]),
            content(&[]),
        ];
        let all: std::collections::BTreeSet<u128> = others.into_iter().chain([same]).collect();
        assert_eq!(all.len(), others.len() + 1);
        let traced = with(|item| item.attributes.push(("traceparent".to_owned(), "00-1".to_owned())));
        assert_eq!(traced, same);
    }

    /// They are compared with stored ones of an earlier version.
    #[test]
    fn digests_stay_what_they_are() {
        let Idempotency { key, content } =
            of(&IdempotencyKey::new("k-1").unwrap(), &[item("1"), item("2")], 7);
        assert_eq!(key, 0xef48_8860_c515_22a2_089e_f70a_69f3_920e);
        assert_eq!(content, 0xf18b_1e58_d940_ec93_63e4_6fc0_dc2d_9e2a);
    }
}
