//! The client of the API server: every request is counted, and a right that is missing is said, whoever asked.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use kube::Client;
use kube::client::{Body, ClientBuilder, DynBody};
use tokio::time::Instant;
use tower::layer::layer_fn;
use tower::{BoxError, Service};
use tracing::{error, info};

use crate::metrics::Metrics;
use crate::request::Asked;

/// Bytes of a refusal that are read; the API server's are far shorter.
const REFUSAL_BYTES_MAX: usize = 256 << 10;
/// A missing right is said this often. One that the operator does without is said once.
const SAID_AGAIN: Duration = Duration::from_secs(60);

type Answer = Response<Box<DynBody>>;

/// Makes the client of a cluster.
pub(crate) fn build(cluster: kube::Config, metrics: &Arc<Metrics>) -> kube::Result<Client> {
    let missing = Arc::new(Missing { metrics: Arc::clone(metrics), said: Mutex::default() });
    let layer =
        layer_fn(|inner| Counted { inner, metrics: Arc::clone(metrics), missing: Arc::clone(&missing) });
    Ok(ClientBuilder::try_from(cluster)?.with_layer(&layer).build())
}

/// A service whose requests are counted.
struct Counted<S> {
    inner: S,
    metrics: Arc<Metrics>,
    missing: Arc<Missing>,
}

impl<S> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Answer, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let asked = Asked::of(request.method(), request.uri().path(), request.uri().query());
        let (metrics, missing) = (Arc::clone(&self.metrics), Arc::clone(&self.missing));
        let (answer, start) = (self.inner.call(request), Instant::now());
        Box::pin(async move {
            let answer = answer.await;
            let status = answer.as_ref().ok().map(Response::status);
            metrics.request(asked, status, start.elapsed());
            match answer {
                Ok(refused) if refused.status() == StatusCode::FORBIDDEN => missing.look(refused).await,
                other => other,
            }
        })
    }
}

/// The rights that were found missing.
struct Missing {
    metrics: Arc<Metrics>,
    /// When each was said last; as many as there are rights.
    said: Mutex<HashMap<Asked, Instant>>,
}

impl Missing {
    /// Says which right is missing, if that is why a request was refused: there are quotas and policies too. The answer stays whole.
    async fn look(&self, refused: Answer) -> Result<Answer, BoxError> {
        let (head, body) = refused.into_parts();
        let body = read(body).await?;
        let message = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
        let message = message["message"].as_str().unwrap_or_default();
        if let Some(asked) = Asked::of_refusal(message) {
            self.say(asked, message);
        }
        Ok(Response::from_parts(head, whole(body)))
    }

    fn say(&self, asked: Asked, message: &str) {
        let is_dispensable = asked.is_dispensable();
        if !is_dispensable {
            self.metrics.forbidden(asked);
        }
        if !self.is_due(asked, is_dispensable) {
            return;
        }
        let Asked { verb, resource } = asked;
        if is_dispensable {
            info!(
                verb,
                resource,
                refusal = message,
                "the operator does without a right that it was not granted"
            );
            return;
        }
        error!(
            verb,
            resource,
            refusal = message,
            "the operator's account lacks a right: upgrade the chart capstan, or grant it (docs/rights.md)"
        );
    }

    /// Whether it is to be said now.
    fn is_due(&self, asked: Asked, is_dispensable: bool) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(&asked).is_some_and(|at| is_dispensable || at.elapsed() < SAID_AGAIN) {
            return false;
        }
        said.insert(asked, Instant::now());
        true
    }
}

async fn read(mut body: Box<DynBody>) -> Result<Bytes, BoxError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        bytes.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| data));
        if bytes.len() > REFUSAL_BYTES_MAX {
            return Err(format!("the API server's refusal has more than {REFUSAL_BYTES_MAX} bytes").into());
        }
    }
    Ok(bytes.into())
}

fn whole(body: Bytes) -> Box<DynBody> {
    Box::new(Full::new(body).map_err(|never| match never {}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(resource: &str, group: &str) -> String {
        format!(
            "it is forbidden: User \"u\" cannot get resource \"{resource}\" in API group \"{group}\" at the cluster scope"
        )
    }

    fn asked(resource: &str, group: &str) -> Asked {
        Asked::of_refusal(&refusal(resource, group)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_that_is_needed_is_said_again_and_one_that_is_not_once() {
        let missing = Missing { metrics: Arc::new(Metrics::new().unwrap()), said: Mutex::default() };
        let (needed, other) = (asked("services", ""), asked("nodes", ""));
        assert!(!needed.is_dispensable() && other.is_dispensable());
        assert!(asked("storageclasses", "storage.k8s.io").is_dispensable());
        let mut said = Vec::new();
        for _ in 0..4 {
            said.push([missing.is_due(needed, false), missing.is_due(other, true)]);
            tokio::time::advance(SAID_AGAIN / 2).await;
        }
        assert_eq!(said, [[true, true], [false, false], [true, false], [false, false]]);
    }

    #[test]
    fn what_the_operator_does_without_is_not_counted() {
        let missing = Missing { metrics: Arc::new(Metrics::new().unwrap()), said: Mutex::default() };
        for (resource, group) in [("services", ""), ("nodes", ""), ("storageclasses", "storage.k8s.io")] {
            missing.say(asked(resource, group), &refusal(resource, group));
        }
        let (load, world) = (crate::work::Load::default(), crate::world::World::default());
        let text = String::from_utf8(missing.metrics.write(&load, &world).unwrap()).unwrap();
        let counted: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("capstan_operator_forbidden_total{") && !line.ends_with(" 0"))
            .collect();
        assert_eq!(counted, [r#"capstan_operator_forbidden_total{resource="services",verb="get"} 1"#]);
    }
}
