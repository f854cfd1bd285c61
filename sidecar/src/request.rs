//! Writes a batch down as the request that the application gets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use capstan_api::message::{Attributes, ContentType, PulledMessage};
use serde::Serialize;
use serde_json::value::RawValue;

/// Where a pulled message names the content type of its body.
const CONTENT_TYPE: &str = "CF-Content-Type";

/// A batch ready to be handed over; the bodies are in `body` alone.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The request's JSON.
    pub(crate) body: Vec<u8>,
    /// The messages in it, in order.
    pub(crate) leased: Vec<Leased>,
    /// Messages that cannot be written down, and why. A broker does not make such.
    pub(crate) unreadable: Vec<(Leased, String)>,
}

/// A leased message without its body.
#[derive(Debug, Clone)]
pub(crate) struct Leased {
    pub(crate) id: String,
    pub(crate) attempts: u32,
    pub(crate) lease_id: String,
}

#[derive(Serialize)]
struct Request<'a> {
    queue: &'a str,
    messages: Vec<View>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    id: String,
    timestamp_ms: u64,
    attempts: u32,
    content_type: &'static str,
    body: Box<RawValue>,
    attributes: Attributes,
}

/// Prepares `messages` of `queue`.
///
/// # Errors
/// None that real input can cause: strings and raw JSON can always be written.
pub(crate) fn prepare(queue: &str, messages: Vec<PulledMessage>) -> Result<Prepared, serde_json::Error> {
    let mut views = Vec::with_capacity(messages.len());
    let (mut leased, mut unreadable) = (Vec::with_capacity(messages.len()), Vec::new());
    for message in messages {
        let PulledMessage { id, body, attempts, timestamp_ms, lease_id, metadata, attributes } = message;
        let one = Leased { id: id.clone(), attempts, lease_id };
        match read_body(metadata.get(CONTENT_TYPE).map(String::as_str), body) {
            Ok((content_type, body)) => {
                let content_type = content_type.as_str();
                views.push(View { id, timestamp_ms, attempts, content_type, body, attributes });
                leased.push(one);
            }
            Err(why) => unreadable.push((one, why)),
        }
    }
    let body = serde_json::to_vec(&Request { queue, messages: views })?;
    Ok(Prepared { body, leased, unreadable })
}

fn read_body(content_type: Option<&str>, body: String) -> Result<(ContentType, Box<RawValue>), String> {
    let content_type = match content_type {
        None => ContentType::default(),
        Some(text) => {
            ContentType::parse(text).ok_or_else(|| format!("content type {text:?} is not known"))?
        }
    };
    let value = match content_type {
        ContentType::Text | ContentType::Bytes | ContentType::V8 => {
            serde_json::value::to_raw_value(&body).map_err(|error| error.to_string())?
        }
        ContentType::Json => {
            let bytes = STANDARD.decode(body).map_err(|error| format!("the body is no base64: {error}"))?;
            let text = String::from_utf8(bytes).map_err(|_| "the body is no UTF-8".to_owned())?;
            RawValue::from_string(text).map_err(|error| format!("the body is no JSON: {error}"))?
        }
    };
    Ok((content_type, value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn message(id: &str, content_type: &str, body: &str) -> PulledMessage {
        PulledMessage {
            id: id.to_owned(),
            body: body.to_owned(),
            attempts: 2,
            timestamp_ms: 1_795_473_420_076,
            lease_id: format!("lease-{id}"),
            metadata: BTreeMap::from([(CONTENT_TYPE.to_owned(), content_type.to_owned())]),
            attributes: BTreeMap::from([("traceparent".to_owned(), "00-1-2-01".to_owned())]),
        }
    }

    #[test]
    fn each_content_type_is_written_in_its_form() {
        let json = STANDARD.encode(r#"{"n": 1.10, "big": 12345678901234567890123}"#);
        let messages = vec![
            message("1", "json", &json),
            message("2", "text", "say \"hi\"\n"),
            message("3", "bytes", "AAEC"),
            message("4", "v8", "/w8="),
        ];
        let prepared = prepare("orders", messages).unwrap();
        let common = r#""timestampMs":1795473420076,"attempts":2,"contentType""#;
        let end = r#""attributes":{"traceparent":"00-1-2-01"}}"#;
        let expected = [
            format!(
                r#"{{"id":"1",{common}:"json","body":{{"n": 1.10, "big": 12345678901234567890123}},{end}"#
            ),
            format!(r#"{{"id":"2",{common}:"text","body":"say \"hi\"\n",{end}"#),
            format!(r#"{{"id":"3",{common}:"bytes","body":"AAEC",{end}"#),
            format!(r#"{{"id":"4",{common}:"v8","body":"/w8=",{end}"#),
        ];
        let expected = format!(r#"{{"queue":"orders","messages":[{}]}}"#, expected.join(","));
        assert_eq!(String::from_utf8(prepared.body).unwrap(), expected, "numbers keep their digits");
        assert_eq!(prepared.leased.iter().map(|one| one.lease_id.as_str()).collect::<Vec<_>>().len(), 4);
        assert!(prepared.unreadable.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_set_apart() {
        let messages = vec![
            message("1", "json", "%%"),
            message("2", "json", &STANDARD.encode("{")),
            message("3", "xml", "<a/>"),
            message("4", "text", "fine"),
        ];
        let prepared = prepare("orders", messages).unwrap();
        assert_eq!(prepared.leased.len(), 1);
        let reasons: Vec<&str> = prepared.unreadable.iter().map(|(_, why)| why.as_str()).collect();
        assert!(
            reasons[0].contains("base64") && reasons[1].contains("no JSON") && reasons[2].contains("xml")
        );
    }
}
