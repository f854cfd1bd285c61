//! One call of the application.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use capstan_api::Name;
use capstan_api::workload::Endpoint;
use reqwest::{Client, Response, header};
use tokio::time::Instant;

use crate::gate::CONNECT_TIMEOUT;
use crate::request::Body;
use crate::verdict::{Answer, Outcome};

/// Most bytes of an answer's body that are read.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// The header that names the queue.
const QUEUE_HEADER: &str = "capstan-queue";
/// Idle connections are kept so long and no longer: a server that closes one while a request is on its way makes that
/// request look like a failed one, and common servers close theirs after two seconds or more.
const IDLE_CONNECTION: Duration = Duration::from_secs(1);

/// The client for the application: on localhost, so no proxy; and what it answers is a verdict, so no redirects.
pub(crate) fn client() -> reqwest::Result<Client> {
    let builder = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    builder.connect_timeout(CONNECT_TIMEOUT).pool_idle_timeout(IDLE_CONNECTION).build()
}

/// POSTs `body` to the application at `address` and reads its answer.
pub(crate) async fn post(
    client: &Client,
    address: SocketAddr,
    endpoint: &Endpoint,
    queue: &Name,
    body: Body,
) -> Outcome {
    let limit = Duration::from_millis(endpoint.timeout_ms);
    let url = format!("http://{address}{}", endpoint.path);
    let request = client
        .post(url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(QUEUE_HEADER, queue.as_str())
        .body(reqwest::Body::wrap(body));
    let deadline = Instant::now() + limit;
    let answer = match tokio::time::timeout_at(deadline, request.send()).await {
        Ok(Ok(response)) => read(response, deadline).await,
        Ok(Err(error)) => Err(Some(error)),
        Err(_) => Err(None),
    };
    match answer {
        Ok(answer) => Outcome::Answer(answer),
        Err(Some(error)) if error.is_connect() || error.is_builder() => Outcome::Unreachable(cause(&error)),
        Err(Some(error)) => Outcome::Broken(cause(&error)),
        Err(None) => Outcome::TimedOut(limit),
    }
}

/// Reads an answer; an error without a cause says that `deadline` came first.
async fn read(mut response: Response, deadline: Instant) -> Result<Answer, Option<reqwest::Error>> {
    let headers = response.headers();
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let retry_after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let mut answer = Answer {
        status: response.status().as_u16(),
        retry_after: retry_after.and_then(|text| read_retry_after(text, SystemTime::now())),
        json: is_json(content_type),
        ..Answer::default()
    };
    loop {
        let error = match tokio::time::timeout_at(deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                let room = ANSWER_BYTES_MAX - answer.body.len();
                answer.body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                answer.too_long = chunk.len() > room;
                if answer.too_long {
                    return Ok(answer);
                }
                continue;
            }
            Ok(Ok(None)) => return Ok(answer),
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        // Half a body may be half a verdict. A refusal stands by its status alone.
        if (200..=299).contains(&answer.status) {
            return Err(error);
        }
        answer.body.clear();
        return Ok(answer);
    }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// Reads `Retry-After`: seconds or a date.
pub(crate) fn read_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let date =
        || httpdate::parse_http_date(text).ok().map(|date| date.duration_since(now).unwrap_or_default());
    text.parse().ok().map(Duration::from_secs).or_else(date)
}

/// The innermost cause: what the system said.
pub(crate) fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Tue, 24 Nov 2026 15:00:00 GMT").unwrap();
        for (text, seconds) in [
            ("7", Some(7)),
            ("Tue, 24 Nov 2026 15:00:30 GMT", Some(30)),
            ("Tue, 24 Nov 2026 14:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(read_retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn json_is_told_by_its_content_type() {
        for (text, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/problem+json", true),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(is_json(text), json, "{text}");
        }
    }
}
