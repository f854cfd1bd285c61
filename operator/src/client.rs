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
use tracing::error;

use crate::metrics::Metrics;
use crate::request::Asked;

/// Bytes of a refusal that are read; the API server's are far shorter.
const REFUSAL_BYTES_MAX: usize = 256 << 10;
/// A missing right is said this often.
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
        self.metrics.forbidden(asked);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(&asked).is_some_and(|at| at.elapsed() < SAID_AGAIN) {
            return;
        }
        said.insert(asked, Instant::now());
        let Asked { verb, resource } = asked;
        error!(
            verb,
            resource,
            refusal = message,
            "the operator's account lacks a right: upgrade the chart capstan, or grant it (docs/rights.md)"
        );
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
