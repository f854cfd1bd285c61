//! The gateway's paths: what the application asks, as the broker wants it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use capstan_api::{ErrorCode, Name, client, idempotency, limits};
use capstan_port::body::{BodyError, Held};
use capstan_port::path::{self, InPath};
use capstan_port::{Refused, no_route, not_allowed};

use super::metrics::{Open, Outcome};
use super::passing::{GivenUp, pass};
use super::upstream::Outgoing;
use super::{KEY, Shared};

/// What of a send is passed on beside its body. The broker makes attributes of all but the first two.
const SEND_HEADERS: [&str; 4] = ["content-type", idempotency::HEADER, "traceparent", "tracestate"];
/// How the names of headers begin that become attributes.
const ATTRIBUTE: &str = "capstan-attr-";

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/queues/{queue}/messages", post(one))
        .route("/queues/{queue}/messages/batch", post(batch))
        .route("/queues/{queue}/metrics", get(metrics))
        .fallback(no_route)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), not_of_a_page))
        .with_state(shared)
}

/// Refuses what a page in a browser asks: on a developer's machine any page that is open reaches localhost.
async fn not_of_a_page(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if !request.headers().contains_key(header::ORIGIN) {
        return next.run(request).await;
    }
    Open::begin(&shared.metrics).end(Outcome::Refused);
    let text = "the gateway takes nothing of pages in a browser: send from the application, without the header origin\n";
    (StatusCode::FORBIDDEN, text).into_response()
}

type Asked = (State<Arc<Shared>>, InPath<String>, HeaderMap);

async fn one((State(shared), InPath(queue), headers): Asked, body: Body) -> Response {
    send(&shared, &queue, "messages", &headers, body).await
}

async fn batch((State(shared), InPath(queue), headers): Asked, body: Body) -> Response {
    send(&shared, &queue, "messages/batch", &headers, body).await
}

async fn send(shared: &Arc<Shared>, queue: &str, action: &str, headers: &HeaderMap, body: Body) -> Response {
    let open = Open::begin(&shared.metrics);
    let limit = limits::send_bytes_max(limits::MESSAGE_BYTES_MAX).min(shared.budget.most());
    // Read in any case: a client that is cut off while it writes may never read the answer.
    let held = Held::read(limit, body, &shared.budget).await;
    let held = match held {
        Ok(held) => held,
        Err(BodyError::Overloaded) => {
            open.end(Outcome::Full);
            return full(shared).into_response();
        }
        Err(error) => return refused(open, error.into()),
    };
    match queue_of(queue) {
        Ok(queue) => {
            let (headers, own_key) = keyed(passed_on(headers));
            let outgoing = outgoing(shared, Method::POST, &queue, action, headers, held.bytes().clone());
            answer(shared, open, Outgoing { own_key, ..outgoing }).await
        }
        Err(error) => refused(open, error),
    }
}

async fn metrics((State(shared), InPath(queue), _): Asked) -> Response {
    let open = Open::begin(&shared.metrics);
    match queue_of(&queue) {
        Ok(queue) => {
            let empty = (HeaderMap::new(), Bytes::new());
            answer(&shared, open, outgoing(&shared, Method::GET, &queue, "metrics", empty.0, empty.1)).await
        }
        Err(error) => refused(open, error),
    }
}

fn queue_of(text: &str) -> Result<Name, Refused> {
    path::name("queue id", text)
}

fn outgoing(
    shared: &Shared,
    method: Method,
    queue: &Name,
    action: &str,
    headers: HeaderMap,
    body: Bytes,
) -> Outgoing {
    let url = shared.upstream.url(&client::queue_path(&shared.namespace, queue, action));
    Outgoing { method, url, headers, body, own_key: false }
}

/// Passes a request on, and answers what the broker does.
async fn answer(shared: &Shared, open: Open, mut outgoing: Outgoing) -> Response {
    match pass(shared, &mut outgoing).await {
        Ok(answer) => {
            let taken = answer.status.is_success();
            open.end(if taken { Outcome::Answered } else { Outcome::Refused });
            answer.into_response()
        }
        Err(given_up) => {
            open.end(Outcome::Unanswered);
            unanswered(&given_up, &outgoing, shared.upstream.minds_keys())
        }
    }
}

fn refused(open: Open, refused: Refused) -> Response {
    open.end(Outcome::Refused);
    refused.into_response()
}

fn full(shared: &Shared) -> Refused {
    let most = shared.budget.most();
    let message = format!(
        "the gateway holds {most} bytes of sends already, while the broker is away or busy; nothing was stored: \
         try again after Retry-After"
    );
    Refused::new(ErrorCode::GatewayFull, message)
}

/// Says what became of the request, and by which key it can be sent again.
fn unanswered(given_up: &GivenUp, outgoing: &Outgoing, minds_keys: bool) -> Response {
    let has_key = outgoing.headers.contains_key(KEY);
    let message = match (&outgoing.method, given_up.may_have_taken) {
        (&Method::GET, _) => format!("{given_up}; try again"),
        (_, false) => format!("{given_up}; nothing was stored: send it again"),
        (_, true) if !has_key => {
            format!("{given_up}; it may have been stored: sent again, it is then stored twice")
        }
        (_, true) => format!(
            "{given_up}; it may have been stored: send it again with this answer's Idempotency-Key, within {} s, \
             and it is stored once{}",
            given_up.key_seconds(),
            if minds_keys { "" } else { ", unless the broker is too old to mind keys" }
        ),
    };
    let mut response = Refused::new(ErrorCode::BrokerAway, message).into_response();
    if let Some(key) = outgoing.headers.get(KEY) {
        response.headers_mut().insert(KEY, key.clone());
    }
    response
}

/// The headers that mean something to the broker; several of one name in their order.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::new();
    let means = |name: &HeaderName| {
        let name = name.as_str();
        SEND_HEADERS.contains(&name) || name.starts_with(ATTRIBUTE)
    };
    for (name, value) in headers.iter().filter(|(name, _)| means(name)) {
        passed.append(name.clone(), value.clone());
    }
    passed
}

/// Gives a send a key unless the application did, and says whether it did. All tries have the same.
fn keyed(mut headers: HeaderMap) -> (HeaderMap, bool) {
    let key = uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string();
    // A UUID has nothing that a header cannot have.
    let own = if let (false, Ok(key)) = (headers.contains_key(KEY), HeaderValue::try_from(key)) {
        headers.insert(KEY, key);
        true
    } else {
        false
    };
    (headers, own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_means_something_is_passed_on_in_its_order() {
        let kept = [
            ("content-type", "text/plain"),
            ("traceparent", "00-1"),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
            ("capstan-attr-tenant", "x"),
            ("capstan-attr-tenant", "x"),
            ("idempotency-key", "mine"),
        ];
        let more = [("authorization", "secret"), ("host", "localhost"), ("content-length", "7")];
        let all = headers(&[&kept[..], &more[..]].concat());
        assert_eq!(passed_on(&all), headers(&kept));
    }

    #[test]
    fn a_send_has_a_key_of_its_own_unless_it_brings_one() {
        let (brought, own) = keyed(headers(&[("idempotency-key", "mine")]));
        assert_eq!(brought.get_all(KEY).iter().collect::<Vec<_>>(), ["mine"]);
        assert!(!own);
        let keys = [keyed(HeaderMap::new()), keyed(HeaderMap::new())];
        assert!(keys.iter().all(|(_, own)| *own));
        let keys = keys.map(|(headers, _)| headers[KEY].to_str().unwrap().to_owned());
        assert_ne!(keys[0], keys[1]);
        for key in keys {
            assert_eq!(uuid::Uuid::parse_str(&key).unwrap().get_version_num(), 4, "{key}");
        }
    }
}
