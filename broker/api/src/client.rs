//! The HTTP client that Capstan's own programs use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{RequestBuilder, Response, Url, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::envelope::Envelope;
use crate::error::ErrorEntry;
use crate::idempotency::{self, IdempotencyKey};
use crate::message::{
    Cancelled, Extend, Extended, ListedQueue, Metrics, PULL_HEADER, Peek, Peeked, Pull, Pulled, Purge,
    Remove, Removed, Send, SendBatch, Sent, Settle, Settled,
};
use crate::name::Name;
use crate::workload::{POD_HEADER, PodReport, WORKLOAD_HEADER, Workload, WorkloadConsumers};

/// How long a request may take beside the time it asks the broker to wait.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);
/// How long a pull that was called off may take to answer.
const CANCEL_MAX: Duration = Duration::from_secs(2);
/// When to call it off once more.
const CANCEL_AGAIN: Duration = Duration::from_millis(100);
/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Of answers to pulls that are larger, a client reads one at a time: while one is read, it is in memory twice, and escapes can make
/// it several times as large as its messages.
const LARGE: u64 = 1024 * 1024;

/// Why a request had no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is no URL, or more than a host and a port.
    #[error("{0:?} is not a broker's address: write http://HOST[:PORT] and nothing behind it")]
    Address(String),
    /// No answer arrived: whether the request took effect is unknown.
    #[error("no answer from the broker: {}", chain(.0))]
    Transport(#[from] reqwest::Error),
    /// The broker refused.
    #[error("refused with status {status}: {}", describe(.errors))]
    Refused { status: u16, errors: Vec<ErrorEntry>, retry_after: Option<Duration> },
    /// The answer is not what the protocol says.
    #[error("the answer (status {status}) is not what a broker answers: {reason}")]
    Malformed { status: u16, reason: String },
}

impl ClientError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Transport(_) => true,
            Self::Refused { status, .. } | Self::Malformed { status, .. } => *status == 429 || *status >= 500,
            Self::Address(_) => false,
        }
    }

    /// Whether the broker knows no such path: it may be of an older version.
    #[must_use]
    pub fn is_no_route(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. } | Self::Malformed { status: 404, .. })
    }

    /// The first code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Refused { errors, .. } => errors.first().map(|e| e.code),
            _ => None,
        }
    }
}

fn describe(errors: &[ErrorEntry]) -> String {
    let texts: Vec<String> = errors.iter().map(|e| format!("{} ({})", e.message, e.code)).collect();
    texts.join("; ")
}

/// reqwest's own text stops at "error sending request"; the cause is what helps.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A client of the data plane. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    identity: Option<(Workload, String)>,
    large: Arc<Semaphore>,
}

impl Client {
    /// A client of the broker at `address`, such as `http://capstan-default.shop.svc`.
    ///
    /// # Errors
    /// [`ClientError::Address`] when `address` is no http URL.
    pub fn new(address: &str) -> Result<Self, ClientError> {
        let large = Arc::new(Semaphore::new(1));
        Ok(Self { http: http()?, base: base(address)?, identity: None, large })
    }

    /// The same client, as the sidecar of a pod of `workload`.
    #[must_use]
    pub fn with_identity(self, workload: Workload, pod: impl Into<String>) -> Self {
        Self { identity: Some((workload, pod.into())), ..self }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Transport`] the message may have been stored.
    pub async fn send(&self, namespace: &Name, queue: &Name, message: &Send) -> Result<Sent, ClientError> {
        self.post(namespace, queue, "messages", message, Duration::ZERO).await
    }

    /// Sends up to 100 messages, all or none.
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Transport`] the messages may have been stored.
    pub async fn send_batch(
        &self,
        namespace: &Name,
        queue: &Name,
        batch: &SendBatch,
    ) -> Result<Sent, ClientError> {
        self.post(namespace, queue, "messages/batch", batch, Duration::ZERO).await
    }

    /// Sends one message that is stored once, however often this is called with the same key and message within
    /// [`crate::limits::IDEMPOTENCY_WINDOW_SECONDS`].
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Transport`] call again.
    pub async fn send_once(
        &self,
        namespace: &Name,
        queue: &Name,
        message: &Send,
        key: &IdempotencyKey,
    ) -> Result<Sent, ClientError> {
        self.post_once(namespace, queue, "messages", message, key).await
    }

    /// Sends up to 100 messages, all or none, that are stored once, as by [`Client::send_once`].
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Transport`] call again.
    pub async fn send_batch_once(
        &self,
        namespace: &Name,
        queue: &Name,
        batch: &SendBatch,
        key: &IdempotencyKey,
    ) -> Result<Sent, ClientError> {
        self.post_once(namespace, queue, "messages/batch", batch, key).await
    }

    /// Leases messages.
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Transport`] the broker releases what it leased, or the lease ends by time.
    pub async fn pull(&self, namespace: &Name, queue: &Name, pull: &Pull) -> Result<Pulled, ClientError> {
        let request = self.request(namespace, queue, "messages/pull", waits(pull))?;
        Ok(self.pulled(request.json(pull)).await?.0)
    }

    /// Leases messages as [`Client::pull`] does. When `stop` resolves first, the broker is asked to answer at once, and what
    /// it leased in that moment comes all the same: a connection that is merely closed loses it. The instant is when the
    /// answer began to arrive: the leases began just before, and the answer may have waited since, for another large one.
    ///
    /// While a large answer is read, nothing is asked: what would be leased would wait too.
    ///
    /// # Errors
    /// [`ClientError`], as [`Client::pull`].
    pub async fn pull_until(
        &self,
        namespace: &Name,
        queue: &Name,
        pull: &Pull,
        stop: impl Future<Output = ()>,
    ) -> Result<(Pulled, Instant), ClientError> {
        let mut stop = std::pin::pin!(stop);
        tokio::select! {
            biased;
            () = &mut stop => return Ok((Pulled::default(), Instant::now())),
            turn = self.large.acquire() => drop(turn),
        }
        let token = format!("{:032x}", rand::random::<u128>());
        let request = self.request(namespace, queue, "messages/pull", waits(pull))?;
        let request = request.header(PULL_HEADER, &token).json(pull);
        let mut answer = std::pin::pin!(self.pulled(request));
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            () = stop => {}
        }
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            // A broker that does not know the pull, or cannot be reached.
            () = self.cancel(namespace, queue, &token) => Ok((Pulled::default(), Instant::now())),
        }
    }

    /// Sends a pull and reads its answer; and when that began to arrive.
    async fn pulled(&self, request: RequestBuilder) -> Result<(Pulled, Instant), ClientError> {
        let response = request.send().await?;
        let arrived = Instant::now();
        let is_large = response.content_length().is_some_and(|length| length > LARGE);
        // Never closed; and what is not counted is read all the same.
        let _turn = if is_large { self.large.acquire().await.ok() } else { None };
        Ok((enveloped(response).await?, arrived))
    }

    /// Asks the broker to answer a pull, again and again; returns when that is of no use.
    async fn cancel(&self, namespace: &Name, queue: &Name, token: &str) {
        let again = async {
            loop {
                let request = self.request(namespace, queue, "messages/pull/cancel", Duration::ZERO)?;
                let answer = request.header(PULL_HEADER, token).send().await?;
                enveloped::<Cancelled>(answer).await?;
                // The pull may have been overtaken by this.
                tokio::time::sleep(CANCEL_AGAIN).await;
            }
        };
        let _: Result<Result<(), ClientError>, _> = tokio::time::timeout(CANCEL_MAX, again).await;
    }

    /// Acknowledges, retries and releases leased messages.
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Transport`] the same request may be sent again.
    pub async fn settle(
        &self,
        namespace: &Name,
        queue: &Name,
        settle: &Settle,
    ) -> Result<Settled, ClientError> {
        self.post(namespace, queue, "messages/ack", settle, Duration::ZERO).await
    }

    /// Removes all messages of a queue; they cannot be brought back.
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Transport`] the queue may have been purged.
    pub async fn purge(&self, namespace: &Name, queue: &Name) -> Result<(), ClientError> {
        let purge = Purge { delete_messages_permanently: true };
        let _: serde_json::Value = self.post(namespace, queue, "purge", &purge, Duration::ZERO).await?;
        Ok(())
    }

    /// Removes the messages that a peek has named.
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Transport`] the same request may be sent again.
    pub async fn remove(
        &self,
        namespace: &Name,
        queue: &Name,
        remove: &Remove,
    ) -> Result<Removed, ClientError> {
        self.post(namespace, queue, "messages/purge", remove, Duration::ZERO).await
    }

    /// Prolongs leases.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn extend(
        &self,
        namespace: &Name,
        queue: &Name,
        extend: &Extend,
    ) -> Result<Extended, ClientError> {
        self.post(namespace, queue, "messages/extend", extend, Duration::ZERO).await
    }

    /// Reads the oldest messages without leasing them.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn peek(&self, namespace: &Name, queue: &Name, peek: &Peek) -> Result<Peeked, ClientError> {
        self.post(namespace, queue, "messages/peek", peek, Duration::ZERO).await
    }

    /// Reads a queue's backlog.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn metrics(&self, namespace: &Name, queue: &Name) -> Result<Metrics, ClientError> {
        let url = self.url(&queue_path(namespace, queue, "metrics"))?;
        enveloped(self.http.get(url).timeout(REQUEST_TIMEOUT).send().await?).await
    }

    /// Lists the queues of a namespace, by name; none when there is no such namespace.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn queues(&self, namespace: &Name) -> Result<Vec<ListedQueue>, ClientError> {
        let url = self.url(&format!("/client/v4/accounts/{namespace}/queues"))?;
        enveloped(self.http.get(url).timeout(REQUEST_TIMEOUT).send().await?).await
    }

    /// Reads the Consumers of a workload; waits up to `wait` while they are still those of `revision`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn workload_consumers(
        &self,
        namespace: &Name,
        workload: &Workload,
        revision: &str,
        wait: Duration,
    ) -> Result<WorkloadConsumers, ClientError> {
        let (kind, name) = (workload.kind.as_str(), &workload.name);
        let mut url =
            self.url(&format!("/capstan/v1/namespaces/{namespace}/workloads/{kind}/{name}/consumers"))?;
        url.query_pairs_mut()
            .append_pair("revision", revision)
            .append_pair("wait_ms", &wait.as_millis().to_string());
        plain(self.http.get(url).timeout(REQUEST_TIMEOUT + wait).send().await?).await
    }

    /// Tells the broker what the sidecar of a pod knows of its application.
    ///
    /// # Errors
    /// [`ClientError`]; saying it again is always safe.
    pub async fn report(
        &self,
        namespace: &Name,
        workload: &Workload,
        pod: &str,
        report: &PodReport,
    ) -> Result<(), ClientError> {
        let (kind, name) = (workload.kind.as_str(), &workload.name);
        let path = format!("/capstan/v1/namespaces/{namespace}/workloads/{kind}/{name}/pods/{pod}");
        let request = self.http.put(self.url(&path)?).timeout(REQUEST_TIMEOUT).json(report);
        let _: serde_json::Value = plain(request.send().await?).await?;
        Ok(())
    }

    async fn post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        namespace: &Name,
        queue: &Name,
        action: &str,
        body: &B,
        wait: Duration,
    ) -> Result<T, ClientError> {
        enveloped(self.request(namespace, queue, action, wait)?.json(body).send().await?).await
    }

    async fn post_once<B: Serialize + Sync>(
        &self,
        namespace: &Name,
        queue: &Name,
        action: &str,
        body: &B,
        key: &IdempotencyKey,
    ) -> Result<Sent, ClientError> {
        let request = self.request(namespace, queue, action, Duration::ZERO)?;
        let request = request.header(idempotency::HEADER, key.to_header());
        enveloped(request.json(body).send().await?).await
    }

    fn request(
        &self,
        namespace: &Name,
        queue: &Name,
        action: &str,
        wait: Duration,
    ) -> Result<RequestBuilder, ClientError> {
        let url = self.url(&queue_path(namespace, queue, action))?;
        Ok(self.identified(self.http.post(url).timeout(REQUEST_TIMEOUT + wait)))
    }

    fn identified(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.identity {
            Some((workload, pod)) => {
                request.header(WORKLOAD_HEADER, workload.to_string()).header(POD_HEADER, pod.as_str())
            }
            None => request,
        }
    }

    fn url(&self, path: &str) -> Result<Url, ClientError> {
        self.base.join(path).map_err(|_| ClientError::Address(format!("{}{path}", self.base)))
    }
}

/// How long a pull may wait for messages.
fn waits(pull: &Pull) -> Duration {
    let millis = |n: Option<crate::number::Whole>| n.map_or(0, |n| n.0);
    Duration::from_millis(millis(pull.wait_ms).saturating_add(millis(pull.idle_ms)))
}

/// The path of an action on a queue, such as `messages/batch`.
#[must_use]
pub fn queue_path(namespace: &Name, queue: &Name, action: &str) -> String {
    format!("/client/v4/accounts/{namespace}/queues/{queue}/{action}")
}

pub(crate) fn http() -> Result<reqwest::Client, ClientError> {
    // No proxy and no redirect: a broker is always reached directly, and never sends anyone elsewhere.
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    Ok(builder.connect_timeout(Duration::from_secs(5)).pool_idle_timeout(Duration::from_secs(30)).build()?)
}

/// Reads a broker's address: scheme, host and port, and nothing behind them.
///
/// # Errors
/// [`ClientError::Address`] when `address` is no such URL.
pub fn base(address: &str) -> Result<Url, ClientError> {
    let invalid = || ClientError::Address(address.to_owned());
    let url = Url::parse(address).map_err(|_| invalid())?;
    // A path would be replaced by that of each request.
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if bare && matches!(url.scheme(), "http" | "https") && url.has_host() { Ok(url) } else { Err(invalid()) }
}

/// Reads an answer in Cloudflare's envelope.
async fn enveloped<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
    let (status, retry_after, body) = read(response).await?;
    let malformed = |reason: String| ClientError::Malformed { status, reason };
    let envelope: Envelope<T> = serde_json::from_slice(&body).map_err(|e| malformed(e.to_string()))?;
    if !envelope.success {
        return Err(ClientError::Refused { status, errors: envelope.errors, retry_after });
    }
    envelope.result.ok_or_else(|| malformed("success without a result".to_owned()))
}

/// Reads an answer that is the result itself; refusals come in the envelope all the same.
pub(crate) async fn plain<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
    let (status, retry_after, body) = read(response).await?;
    let malformed = |reason: String| ClientError::Malformed { status, reason };
    if status == 200 {
        return serde_json::from_slice(&body).map_err(|e| malformed(e.to_string()));
    }
    let envelope: Envelope<()> = serde_json::from_slice(&body).map_err(|e| malformed(e.to_string()))?;
    Err(ClientError::Refused { status, errors: envelope.errors, retry_after })
}

async fn read(mut response: Response) -> Result<(u16, Option<Duration>, Vec<u8>), ClientError> {
    let status = response.status().as_u16();
    let header = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok());
    let retry_after = header.and_then(|v| v.parse().ok()).map(Duration::from_secs);
    // Grown step by step, it would be there twice at each step.
    let length = response.content_length().unwrap_or(0).min(ANSWER_BYTES_MAX as u64);
    let mut body = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(ClientError::Malformed { status, reason: "the answer does not end".to_owned() });
        }
        body.extend_from_slice(&chunk);
    }
    Ok((status, retry_after, body))
}

#[cfg(test)]
mod tests;
