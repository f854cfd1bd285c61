//! A producer in the cluster: sends through the gateway beside an application, as the application itself does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::{Duration, Instant};

use capstan_api::envelope::Envelope;
use capstan_api::idempotency;
use capstan_api::message::Sent;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{LONG, Namespace, until};

const PORT: u16 = 8080;
/// Longer than a gateway holds a send.
const PATIENCE: Duration = Duration::from_secs(45);
/// Batches that are on their way at a time.
const AT_ONCE: usize = 4;

/// Sends by the pods with a label, which run the application of the tests.
pub struct Producer<'a> {
    pub namespace: &'a Namespace,
    pub pods: &'static str,
    pub queue: &'static str,
}

/// What came of sending for a while.
#[derive(Debug, Default)]
pub struct Stored {
    /// Of the messages that were stored.
    pub ids: Vec<String>,
    /// The longest that a batch took.
    pub longest: Duration,
}

impl Producer<'_> {
    /// Sends batches, some at a time, until `work` is done, and waits until each of them is stored.
    ///
    /// # Panics
    /// When one is not stored within [`LONG`].
    pub async fn send_while(
        &self,
        batch: impl Fn() -> Vec<Value>,
        pause: Duration,
        work: impl Future<Output = ()>,
    ) -> Stored {
        let (ended, is_ended) = watch::channel(false);
        let senders = (0..AT_ONCE).map(|_| Box::pin(self.send_until(&batch, pause, is_ended.clone())));
        let work = async {
            work.await;
            ended.send_replace(true);
        };
        let (all, ()) = tokio::join!(join_all(senders), work);
        let mut sum = Stored::default();
        for one in all {
            sum.ids.extend(one.ids);
            sum.longest = sum.longest.max(one.longest);
        }
        println!(
            "{} messages were sent; the longest batch took {:.1} s",
            sum.ids.len(),
            sum.longest.as_secs_f64()
        );
        sum
    }

    async fn send_until(
        &self,
        batch: &impl Fn() -> Vec<Value>,
        pause: Duration,
        mut is_ended: watch::Receiver<bool>,
    ) -> Stored {
        let mut stored = Stored::default();
        while !*is_ended.borrow() {
            let began = Instant::now();
            stored.ids.extend(self.send(&batch()).await);
            stored.longest = stored.longest.max(began.elapsed());
            // The sender lives as long as this is asked; its end is the end.
            let _ = tokio::time::timeout(pause, is_ended.wait_for(|ended| *ended)).await;
        }
        stored
    }

    /// Sends one batch; what got no answer is sent again with the same key, by whatever pod is ready, until it is stored.
    ///
    /// # Panics
    /// When it is not within [`LONG`].
    pub async fn send(&self, bodies: &[Value]) -> Vec<String> {
        let messages: Vec<_> = bodies.iter().map(|body| json!({"body": body})).collect();
        let batch = json!({"messages": messages});
        let key = format!("{:032x}", rand::random::<u128>());
        let ids = match self.try_once(&batch, &key).await {
            Ok(ids) => ids,
            Err(problem) => {
                println!("batch {} is sent again: {problem}", &key[..8]);
                let what = format!("batch {} is stored", &key[..8]);
                until(&what, LONG, async || self.try_once(&batch, &key).await).await
            }
        };
        assert_eq!(ids.len(), bodies.len(), "each message has an id");
        ids
    }

    async fn try_once(&self, batch: &Value, key: &str) -> Result<Vec<String>, String> {
        let pods = self.namespace.pods(self.pods).await;
        let ready: Vec<_> = pods.iter().filter(|pod| is_ready(pod)).collect();
        let pod = ready.get(rand::random::<u32>() as usize % ready.len().max(1));
        let address = self.namespace.pod(&pod.ok_or("no pod is ready")?.name_any(), PORT).await?;
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let request = http.post(format!("{address}/send/{}", self.queue)).header(idempotency::HEADER, key);
        let answer = request.json(batch).send().await.map_err(|error| error.to_string())?;
        let (status, text) = (answer.status(), answer.text().await.map_err(|error| error.to_string())?);
        if !status.is_success() {
            return Err(format!("{status}: {text}"));
        }
        let sent: Envelope<Sent> = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        Ok(sent.result.ok_or(text)?.ids)
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
}
