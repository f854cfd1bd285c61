//! Any bytes and any JSON, through the reader of every request: no panic, and each refusal names what is wrong.

use capstan_api::control::Declaration;
use capstan_api::message::{Extend, Peek, Pull, Purge, Remove, Send, SendBatch, Settle};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::*;
use crate::policy;

/// Every field that a request or a declaration has, and some that none has.
const FIELDS: &[&str] = &[
    "body",
    "content_type",
    "delay_seconds",
    "attributes",
    "messages",
    "batch_size",
    "visibility_timeout_ms",
    "visibility_timeout",
    "batch_bytes",
    "wait_ms",
    "idle_ms",
    "acks",
    "retries",
    "releases",
    "lease_id",
    "reason",
    "extends",
    "refs",
    "ref",
    "delete_messages_permanently",
    "revision",
    "declarer",
    "resource",
    "purged_by",
    "queues",
    "namespace",
    "name",
    "retention_ms",
    "delivery_delay_ms",
    "max_message_bytes",
    "max_messages",
    "max_bytes",
    "delivery_paused",
    "consumer",
    "push",
    "max_retries",
    "retry_delay_ms",
    "retry_backoff",
    "factor",
    "max_delay_ms",
    "dead_letter_queue",
    "workload",
    "kind",
    "endpoint",
    "port",
    "path",
    "timeout_ms",
    "max_batch_size",
    "max_batch_bytes",
    "max_wait_ms",
    "concurrency_per_pod",
    "max_concurrency",
    "",
    "a/b",
    "~",
    "unknown",
];
/// Documents that are taken, to be damaged.
const TAKEN: &[&str] = &[
    r#"{"body":{"n":1},"content_type":"json","delay_seconds":5.0,"attributes":{"traceparent":"00-1"}}"#,
    r#"{"messages":[{"body":"x","content_type":"text"},{"body":1}],"delay_seconds":0}"#,
    r#"{"batch_size":10,"visibility_timeout_ms":30000,"wait_ms":100,"idle_ms":1,"batch_bytes":9}"#,
    r#"{"acks":[{"lease_id":"a"}],"retries":[{"lease_id":"b","delay_seconds":1,"reason":"x"}],"releases":[]}"#,
    r#"{"revision":"1","declarer":"b","queues":[{"namespace":"shop","name":"orders","retention_ms":345600000,
        "resource":"a","purged_by":"b","consumer":{"name":"orders","max_retries":3,"visibility_timeout_ms":30000,
        "retry_backoff":{"factor":2,"max_delay_ms":1000}}}]}"#,
];

fn scalars() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["json", "text", "orders", "Deployment", "/", "-"]).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ]
}

fn json() -> impl Strategy<Value = Value> {
    scalars().prop_recursive(5, 60, 6, |inner| {
        let fields = prop::collection::vec((prop::sample::select(FIELDS), inner.clone()), 0..6);
        let object = fields.prop_map(|fields| {
            Value::Object(
                fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>(),
            )
        });
        prop_oneof![object, prop::collection::vec(inner, 0..4).prop_map(Value::from)]
    })
}

/// A taken document, cut or with a few bytes replaced.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (prop::sample::select(TAKEN), changes, any::<prop::sample::Index>()).prop_map(|(text, changes, end)| {
        let mut bytes = text.as_bytes().to_vec();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        bytes.truncate(end.index(2 * text.len()));
        bytes
    })
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    Body::of(bytes.to_vec()).read()
}

/// What every reader makes of the bytes.
fn refusals(bytes: &[u8]) -> Vec<Refused> {
    let declared = read::<Declaration>(bytes).and_then(|declaration| {
        let checked = policy::declaration(&declaration).map(drop);
        checked.map_err(|error| Refused::at(ErrorCode::JsonBodyInvalid, error.pointer(), error.to_string()))
    });
    let all = [
        declared,
        read::<Send>(bytes).map(drop),
        read::<SendBatch>(bytes).map(drop),
        read::<Pull>(bytes).map(drop),
        read::<Peek>(bytes).map(drop),
        read::<Settle>(bytes).map(drop),
        read::<Extend>(bytes).map(drop),
        read::<Purge>(bytes).map(drop),
        read::<Remove>(bytes).map(drop),
    ];
    all.into_iter().filter_map(Result::err).collect()
}

#[test]
fn the_taken_documents_are_taken() {
    assert!(TAKEN.iter().all(|text| refusals(text.as_bytes()).len() < 9));
    assert!(read::<Declaration>(TAKEN[4].as_bytes()).is_ok_and(|one| policy::declaration(&one).is_ok()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_refusal_of_json_points_at_a_place_that_is_there(document in json()) {
        for refused in refusals(document.to_string().as_bytes()) {
            prop_assert_eq!(refused.code, ErrorCode::JsonBodyInvalid, "{:?}", refused);
            match &refused.pointer {
                // What is missing belongs into an object that is there.
                Some(pointer) if refused.message.contains("missing field `") => {
                    let parent = pointer.rsplit_once('/').map(|(parent, _)| parent);
                    prop_assert!(document.pointer(pointer).is_none(), "{:?}", refused);
                    let found = parent.and_then(|parent| document.pointer(parent));
                    prop_assert!(found.is_some_and(Value::is_object), "{:?}", refused);
                }
                // A bound may be broken by what is not there, in a place that is.
                Some(pointer) => prop_assert!(document.pointer(pointer).is_some(), "{:?}", refused),
                None => {
                    let named = ["must be an object", "expected an object"];
                    prop_assert!(named.iter().any(|part| refused.message.contains(part)), "{:?}", refused);
                }
            }
        }
    }

    #[test]
    fn damaged_documents_are_read_without_panic(bytes in damaged()) {
        for refused in refusals(&bytes) {
            let expected = [ErrorCode::JsonBodyInvalid, ErrorCode::JsonBodyMalformed];
            prop_assert!(expected.contains(&refused.code) && !refused.message.is_empty(), "{:?}", refused);
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let blank = bytes.trim_ascii().is_empty();
        for refused in refusals(&bytes) {
            prop_assert!(blank || !refused.message.is_empty());
        }
    }
}
