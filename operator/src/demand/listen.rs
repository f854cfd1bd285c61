//! The event stream of one Broker: a long poll after the other.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use capstan_api::control::Changes;
use capstan_api::{ClientError, ControlClient};
use tokio::time::{Instant, sleep, timeout};

/// How long a Broker waits for something to change before it answers that nothing did.
pub(super) const WAIT: Duration = Duration::from_secs(5);
/// How long an answer may take beyond that: ten thousand queues are some megabytes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests begin at least so far apart, however often something changes.
const APART: Duration = Duration::from_millis(200);
/// How often a Broker is read that has no event stream yet: its version is older than the operator's.
const READ_EVERY: Duration = Duration::from_secs(5);
/// Pauses after failures double from the first to the last of these.
const BACKOFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// Who is told.
pub(super) trait Listener: Send + Sync {
    /// The Broker answered.
    fn learn(&self, changes: &Changes);
    /// The Broker did not, because of `problem`.
    fn failed(&self, problem: &str);
}

/// Asks a Broker again and again, until it is dropped.
pub(super) async fn listen(client: &ControlClient, listener: &impl Listener) -> Infallible {
    let (mut version, mut failures) = (String::new(), 0_u32);
    loop {
        let began = Instant::now();
        let pause = match ask(client, &version).await {
            Ok((changes, apart)) => {
                failures = 0;
                listener.learn(&changes);
                version = changes.version;
                apart.saturating_sub(began.elapsed())
            }
            Err(problem) => {
                listener.failed(&problem);
                failures = failures.saturating_add(1);
                backoff(failures, rand::random())
            }
        };
        sleep(pause).await;
    }
}

/// What changed after `version`, and how long after this question the next may come.
async fn ask(client: &ControlClient, version: &str) -> Result<(Changes, Duration), String> {
    match client.changes(version, WAIT).within(WAIT + ANSWER_TIMEOUT).await? {
        Ok(changes) => Ok((changes, APART)),
        Err(ClientError::Refused { status: 404, .. } | ClientError::Malformed { status: 404, .. }) => {
            let state = client.state().within(ANSWER_TIMEOUT).await?.map_err(|error| error.to_string())?;
            let changes = Changes { version: String::new(), whole: true, queues: state.queues };
            Ok((changes, READ_EVERY))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// A limit of time whose excess is told as other failures are.
trait Within: Future + Sized {
    async fn within(self, limit: Duration) -> Result<Self::Output, String> {
        timeout(limit, self).await.map_err(|_| format!("no answer within {} s", limit.as_secs()))
    }
}

impl<F: Future> Within for F {}

/// How long to wait after so many failures in a row: half of it by chance, since all operators see a Broker go at once.
fn backoff(failures: u32, chance: f64) -> Duration {
    let [first, last] = BACKOFF;
    let whole = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(last);
    whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::extract::{Query, State};
    use axum::http::StatusCode;
    use axum::response::{IntoResponse, Response};
    use axum::routing::get;
    use axum::{Json, Router};
    use capstan_api::control::{CHANGES_PATH, STATE_PATH};
    use serde_json::json;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    /// A Broker that answers each question by the next of its answers, and waits when there is none.
    type Script = Arc<Mutex<Vec<(&'static str, u16)>>>;

    struct Told(mpsc::UnboundedSender<Result<Changes, String>>);

    impl Listener for Told {
        fn learn(&self, changes: &Changes) {
            self.0.send(Ok(changes.clone())).unwrap();
        }

        fn failed(&self, problem: &str) {
            self.0.send(Err(problem.to_owned())).unwrap();
        }
    }

    #[derive(serde::Deserialize)]
    struct Asked {
        since: String,
        wait_ms: u64,
    }

    async fn changes(State(script): State<Script>, Query(asked): Query<Asked>) -> Response {
        assert_eq!(u128::from(asked.wait_ms), WAIT.as_millis());
        let next = script.lock().unwrap().pop();
        let Some((since, status)) = next else { return std::future::pending().await };
        assert_eq!(asked.since, since);
        if status != 200 {
            return StatusCode::from_u16(status).unwrap().into_response();
        }
        Json(json!({"version": format!("{since}+"), "whole": since.is_empty(), "queues": []})).into_response()
    }

    async fn state() -> Response {
        Json(json!({"incarnation": "1", "revision": "1", "version": "1", "queues": []})).into_response()
    }

    /// What the listener is told by a Broker with this script.
    async fn told(answers: &[(&'static str, u16)]) -> Vec<Result<Changes, String>> {
        let script: Script = Arc::new(Mutex::new(answers.iter().rev().copied().collect()));
        let router = Router::new().route(CHANGES_PATH, get(changes)).route(STATE_PATH, get(state));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = ControlClient::new(&format!("http://{}", socket.local_addr().unwrap())).unwrap();
        tokio::spawn(async move { axum::serve(socket, router.with_state(script)).await });
        let (sender, mut receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move { listen(&client, &Told(sender)).await });
        let mut told = Vec::new();
        for _ in answers {
            told.push(receiver.recv().await.unwrap());
        }
        told
    }

    #[tokio::test]
    async fn each_question_names_the_version_of_the_last_answer() {
        let told = told(&[("", 200), ("+", 200), ("++", 503), ("++", 200)]).await;
        let versions: Vec<_> =
            told.iter().map(|told| told.as_ref().ok().map(|c| c.version.clone())).collect();
        assert_eq!(versions, [Some("+".into()), Some("++".into()), None, Some("+++".into())]);
        assert!(told[0].as_ref().unwrap().whole && !told[1].as_ref().unwrap().whole);
    }

    #[tokio::test]
    async fn a_broker_without_an_event_stream_is_read() {
        let told = told(&[("", 404)]).await;
        let changes = told[0].as_ref().unwrap();
        assert!(changes.whole && changes.version.is_empty(), "asked for everything again: {changes:?}");
    }

    #[test]
    fn pauses_grow_up_to_a_limit() {
        let whole: Vec<_> = (1..=7).map(|failures| backoff(failures, 1.0).as_millis()).collect();
        assert_eq!(whole, [200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff(u32::MAX, 0.0), BACKOFF[1] / 2);
    }
}
