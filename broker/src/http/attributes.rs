//! The attributes of a send: those that its messages name, and those of its headers for each that does not.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use capstan_api::message::Attributes;
use capstan_api::{ErrorCode, limits};

use super::at::At;
use super::refused::Refused;

/// Headers of W3C Trace Context that become attributes, so that a consumer continues the producer's trace.
const TRACE_PARENT: &str = "traceparent";
const TRACE_STATE: &str = "tracestate";
/// What follows in a header's name is an attribute's.
const PREFIX: &str = "capstan-attr-";

/// What the headers of a request say of each of its messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Common(Attributes);

impl Common {
    /// Reads the trace's headers, and `capstan-attr-NAME`, which wins over them.
    ///
    /// # Errors
    /// When a header is no attribute, or is there twice and says two things.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refused> {
        let mut attributes = trace(headers)?;
        for header in headers.keys() {
            let Some(name) = header.as_str().strip_prefix(PREFIX) else { continue };
            check_name(name).map_err(|problem| wrong(header.as_str(), &problem))?;
            let [first, others @ ..] = &texts(headers, header)?[..] else { continue };
            if others.iter().any(|other| other != first) {
                return Err(wrong(header.as_str(), "is there more than once, with different values"));
            }
            attributes.insert(name.to_owned(), (*first).to_owned());
        }
        Ok(Self(attributes))
    }

    /// A message's `own` attributes, and those of the headers that it does not name itself; `at` is its place.
    ///
    /// # Errors
    /// When they are too many, or too large together, or a name is none.
    pub(super) fn with(&self, own: Option<Attributes>, at: At) -> Result<Vec<(String, String)>, Refused> {
        let mut all = own.unwrap_or_default();
        for name in all.keys() {
            check_name(name).map_err(|problem| wrong_at(at, &problem))?;
        }
        let own = all.len();
        for (name, value) in &self.0 {
            all.entry(name.clone()).or_insert_with(|| value.clone());
        }
        check_size(&all).map_err(|problem| match self.longest() {
            Some(header) if own == 0 => wrong(&header, &problem),
            Some(_) => wrong_at(at, &format!("{problem}; those of the request's headers count")),
            None => wrong_at(at, &problem),
        })?;
        Ok(all.into_iter().collect())
    }

    /// The header with the longest value.
    fn longest(&self) -> Option<String> {
        let (name, _) = self.0.iter().max_by_key(|(_, value)| value.len())?;
        Some(if is_trace(name) { name.clone() } else { format!("{PREFIX}{name}") })
    }
}

/// Whether an attribute tells of a trace.
pub(super) fn is_trace(name: &str) -> bool {
    [TRACE_PARENT, TRACE_STATE].contains(&name)
}

/// The headers of the trace, as W3C Trace Context has them read: parts of a state are one list, in their order; two
/// different parents are none, and then the state is of no use.
fn trace(headers: &HeaderMap) -> Result<Attributes, Refused> {
    let [parents, states] =
        [TRACE_PARENT, TRACE_STATE].map(|name| texts(headers, &HeaderName::from_static(name)));
    let (parents, states) = (parents?, states?);
    if parents.windows(2).any(|pair| pair[0] != pair[1]) {
        return Ok(Attributes::new());
    }
    let parent = parents.first().map(|parent| (TRACE_PARENT.to_owned(), (*parent).to_owned()));
    let states: Vec<&str> = states.into_iter().filter(|state| !state.is_empty()).collect();
    let state = (!states.is_empty()).then(|| (TRACE_STATE.to_owned(), states.join(",")));
    Ok(parent.into_iter().chain(state).collect())
}

/// The values of a header, in the order in which they came.
fn texts<'a>(headers: &'a HeaderMap, header: &HeaderName) -> Result<Vec<&'a str>, Refused> {
    let text = |value: &'a HeaderValue| {
        let problem = "its value must be visible ASCII; other text can be sent in attributes";
        value.to_str().map_err(|_| wrong(header.as_str(), problem))
    };
    headers.get_all(header).iter().map(text).collect()
}

fn check_name(name: &str) -> Result<(), String> {
    let most = limits::ATTRIBUTE_NAME_MAX;
    let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    if (1..=most).contains(&name.len()) && name.bytes().all(token) {
        return Ok(());
    }
    Err(format!("a name is 1 to {most} of a-z, 0-9, '-', '_' and '.', unlike {name:.80?}"))
}

fn check_size(attributes: &Attributes) -> Result<(), String> {
    let most = limits::ATTRIBUTES_MAX;
    if attributes.len() > most {
        return Err(format!("at most {most} attributes are taken, and there are more"));
    }
    let bytes: usize = attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
    let bytes_max = limits::ATTRIBUTE_BYTES_MAX;
    if bytes > bytes_max {
        return Err(format!("{bytes} bytes of attributes' names and values, at most {bytes_max} are taken"));
    }
    Ok(())
}

fn wrong(header: &str, problem: &str) -> Refused {
    Refused::in_header(ErrorCode::MessageMetadataInvalid, header, format!("header {header}: {problem}"))
}

fn wrong_at(at: At, problem: &str) -> Refused {
    let message = format!("attributes: {problem}");
    Refused::at(ErrorCode::MessageMetadataInvalid, format!("{at}/attributes"), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(lines: &[(&str, &str)]) -> Result<Attributes, Refused> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        Common::of(&headers).map(|common| common.0)
    }

    fn attributes(pairs: &[(&str, &str)]) -> Attributes {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_header_that_is_there_more_than_once_is_read_by_its_kind() {
        const A: &str = "00-aa-01-01";
        const B: &str = "00-bb-02-01";
        type Lines = &'static [(&'static str, &'static str)];
        let rows: [(Lines, Lines); 8] = [
            (
                &[("tracestate", "a=1,b=2"), ("tracestate", ""), ("tracestate", "c=3")],
                &[("tracestate", "a=1,b=2,c=3")],
            ),
            (&[("tracestate", "b=1"), ("tracestate", "a=1")], &[("tracestate", "b=1,a=1")]),
            (&[("tracestate", "")], &[]),
            (&[("traceparent", A), ("traceparent", A)], &[("traceparent", A)]),
            (&[("traceparent", A), ("traceparent", B), ("tracestate", "a=1")], &[]),
            (&[("capstan-attr-a", "1"), ("Capstan-Attr-A", "1")], &[("a", "1")]),
            (&[("capstan-attr-traceparent", B), ("traceparent", A)], &[("traceparent", B)]),
            (&[("traceparent", A), ("traceparent", B), ("capstan-attr-a", "1")], &[("a", "1")]),
        ];
        for (lines, expected) in rows {
            assert_eq!(common(lines), Ok(attributes(expected)), "{lines:?}");
        }
        let refused = common(&[("capstan-attr-a", "1"), ("capstan-attr-a", "2")]).unwrap_err();
        assert_eq!(refused.code, ErrorCode::MessageMetadataInvalid);
        assert_eq!(refused.header.as_deref(), Some("capstan-attr-a"));
        assert!(refused.message.contains("more than once"), "{refused:?}");
    }

    #[test]
    fn what_is_too_much_is_looked_for_where_it_came_from() {
        let large = |bytes: usize| "x".repeat(bytes);
        let headers = Common(attributes(&[("short", "x"), ("long", &large(3_000))]));
        let own = |bytes: usize| Some(attributes(&[("own", &large(bytes))]));
        assert_eq!(headers.with(own(1_000), At::BODY).unwrap().len(), 3);
        let mixed = headers.with(own(1_100), At::message(3)).unwrap_err();
        assert_eq!(mixed.pointer.as_deref(), Some("/messages/3/attributes"));
        assert!(mixed.message.contains("request's headers") && mixed.message.contains("4096"), "{mixed:?}");
        let replaced = Some(attributes(&[("long", &large(4_000))]));
        assert_eq!(headers.with(replaced, At::BODY).unwrap().len(), 2, "the header's does not count");

        let headers = Common(attributes(&[("short", "x"), ("long", &large(4_093))]));
        let alone = headers.with(None, At::message(3)).unwrap_err();
        assert_eq!((alone.pointer, alone.header.as_deref()), (None, Some("capstan-attr-long")));
        let headers = Common(attributes(&[("tracestate", &large(4_100))]));
        assert_eq!(headers.with(None, At::BODY).unwrap_err().header.as_deref(), Some(TRACE_STATE));

        let refused = Common::default().with(own(4_100), At::BODY).unwrap_err();
        assert_eq!((refused.pointer.as_deref(), refused.header.is_none()), (Some("/attributes"), true));
        assert!(!refused.message.contains("header"), "{refused:?}");
    }
}
