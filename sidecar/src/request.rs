//! Writes a batch down as the request that the application gets: piece by piece, as the connection takes it.
//!
//! JSON can be six times as large as the text in it. Only the text is kept while a call is open, so that memory is bounded by
//! the bytes of a batch, whatever they are.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use capstan_api::message::{Attributes, ContentType, Metrics, Pulled, PulledMessage};
use http_body::{Frame, SizeHint};
use serde::Serialize;
use serde_json::value::RawValue;

/// Where a pulled message names the content type of its body.
const CONTENT_TYPE: &str = "CF-Content-Type";
/// A piece ends with the message that fills it.
const PIECE: usize = 64 * 1024;
const BETWEEN: &[u8] = b",";
const END: &[u8] = b"]}";

/// A batch ready to be handed over; the bodies are in `body` alone.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The request's JSON.
    pub(crate) body: Body,
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

/// The body of a request, of a length that is known before it is written: many applications take no other.
#[derive(Debug)]
pub(crate) struct Body {
    /// What is written already of the next piece: the beginning, at first.
    begun: Vec<u8>,
    views: std::vec::IntoIter<View>,
    /// Bytes to come.
    left: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    id: String,
    timestamp_ms: u64,
    attempts: u32,
    content_type: &'static str,
    body: Value,
    attributes: Attributes,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Json(Box<RawValue>),
}

/// What is before the messages.
#[derive(Serialize)]
struct Head<'a> {
    queue: &'a str,
    metadata: Metadata,
}

#[derive(Serialize)]
struct Metadata {
    metrics: Backlog,
}

/// The backlog of the queue when the batch was leased, this batch included.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Backlog {
    backlog_count: u64,
    backlog_bytes: u64,
    oldest_message_timestamp_ms: u64,
}

impl From<Metrics> for Backlog {
    fn from(metrics: Metrics) -> Self {
        let Metrics { backlog_count, backlog_bytes, oldest_message_timestamp_ms } = metrics;
        Self { backlog_count, backlog_bytes, oldest_message_timestamp_ms }
    }
}

/// Prepares the messages that were pulled from `queue`.
///
/// # Errors
/// None that real input can cause: strings and raw JSON can always be written.
pub(crate) fn prepare(queue: &str, pulled: Pulled) -> Result<Prepared, serde_json::Error> {
    let Pulled { messages, metadata, .. } = pulled;
    let head = Head { queue, metadata: Metadata { metrics: metadata.metrics.into() } };
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
    Ok(Prepared { body: Body::new(&head, views)?, leased, unreadable })
}

fn read_body(content_type: Option<&str>, body: String) -> Result<(ContentType, Value), String> {
    let content_type = match content_type {
        None => ContentType::default(),
        Some(text) => {
            ContentType::parse(text).ok_or_else(|| format!("content type {text:?} is not known"))?
        }
    };
    let value = match content_type {
        ContentType::Text | ContentType::Bytes | ContentType::V8 => Value::Text(body),
        ContentType::Json => {
            let bytes = STANDARD.decode(body).map_err(|error| format!("the body is no base64: {error}"))?;
            let text = String::from_utf8(bytes).map_err(|_| "the body is no UTF-8".to_owned())?;
            Value::Json(RawValue::from_string(text).map_err(|error| format!("the body is no JSON: {error}"))?)
        }
    };
    Ok((content_type, value))
}

impl Body {
    fn new(head: &Head<'_>, views: Vec<View>) -> serde_json::Result<Self> {
        let mut begun = serde_json::to_vec(head)?;
        // The messages follow within it.
        begun.pop();
        begun.extend_from_slice(b",\"messages\":[");
        if views.is_empty() {
            begun.extend_from_slice(END);
        }
        let mut length = Length::default();
        for view in &views {
            serde_json::to_writer(&mut length, view)?;
        }
        // Behind each stands what separates it from the next, or the end.
        let behind = views.len().saturating_sub(1) * BETWEEN.len() + END.len();
        let left = begun.len() + length.0 + if views.is_empty() { 0 } else { behind };
        Ok(Self { begun, views: views.into_iter(), left: left as u64 })
    }

    /// The next piece; none when all is written.
    fn next(&mut self) -> Option<Bytes> {
        let mut piece = std::mem::take(&mut self.begun);
        while piece.len() < PIECE
            && let Some(view) = self.views.next()
        {
            // It was counted, so it can be written.
            let _ = serde_json::to_writer(&mut piece, &view);
            let more = !self.views.as_slice().is_empty();
            piece.extend_from_slice(if more { BETWEEN } else { END });
        }
        self.left = self.left.saturating_sub(piece.len() as u64);
        (!piece.is_empty()).then(|| piece.into())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.get_mut().next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Counts bytes in place of writing them.
#[derive(Default)]
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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

    const HEAD: &str = concat!(
        r#"{"queue":"orders","metadata":{"metrics":{"backlogCount":12,"backlogBytes":345,"#,
        r#""oldestMessageTimestampMs":1795473420076}},"messages":["#
    );

    fn pulled(messages: Vec<PulledMessage>) -> Pulled {
        let metrics =
            Metrics { backlog_count: 12, backlog_bytes: 345, oldest_message_timestamp_ms: 1_795_473_420_076 };
        let metadata = capstan_api::message::Metadata { metrics };
        Pulled { message_backlog_count: 12, messages, metadata }
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
        let prepared = prepare("orders", pulled(messages)).unwrap();
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
        let expected = format!("{HEAD}{}]}}", expected.join(","));
        assert_eq!(written(prepared.body), expected, "numbers keep their digits");
        assert_eq!(prepared.leased.iter().map(|one| one.lease_id.as_str()).collect::<Vec<_>>().len(), 4);
        assert!(prepared.unreadable.is_empty());
        assert_eq!(written(prepare("orders", pulled(Vec::new())).unwrap().body), format!("{HEAD}]}}"));
    }

    /// All pieces, which are as long together as was said.
    fn written(mut body: Body) -> String {
        let (said, mut all) = (body.left, Vec::new());
        while let Some(piece) = body.next() {
            assert!(!piece.is_empty());
            all.extend_from_slice(&piece);
        }
        assert_eq!((all.len() as u64, body.left), (said, 0));
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn a_large_batch_is_written_in_pieces_and_read_as_one() {
        let text = "\u{1}\"ü".repeat(5000);
        let messages: Vec<PulledMessage> = (0..20).map(|n| message(&n.to_string(), "text", &text)).collect();
        let mut prepared = prepare("orders", pulled(messages)).unwrap();
        let first = prepared.body.next().unwrap();
        assert!((PIECE..4 * PIECE).contains(&first.len()), "{}", first.len());
        let all = String::from_utf8(first.to_vec()).unwrap() + &written(prepared.body);
        let read: serde_json::Value = serde_json::from_str(&all).unwrap();
        let messages = read["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 20);
        for (n, one) in messages.iter().enumerate() {
            assert_eq!((&one["id"], &one["body"]), (&n.to_string().into(), &text.as_str().into()));
        }
    }

    #[test]
    fn what_cannot_be_read_is_set_apart() {
        let messages = vec![
            message("1", "json", "%%"),
            message("2", "json", &STANDARD.encode("{")),
            message("3", "xml", "<a/>"),
            message("4", "text", "fine"),
        ];
        let prepared = prepare("orders", pulled(messages)).unwrap();
        assert_eq!(prepared.leased.len(), 1);
        let reasons: Vec<&str> = prepared.unreadable.iter().map(|(_, why)| why.as_str()).collect();
        assert!(
            reasons[0].contains("base64") && reasons[1].contains("no JSON") && reasons[2].contains("xml")
        );
    }
}
