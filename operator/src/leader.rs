//! One active operator among several, by a Lease.

use std::time::Duration;

use anyhow::Context;
use kube::Client;
use kube_lease_manager::LeaseManagerBuilder;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The Lease.
const NAME: &str = "capstan-operator";
/// Another operator takes over when the active one has not renewed the Lease for so long.
const DURATION_SECONDS: u64 = 15;
/// The Lease is renewed so long before it ends.
const GRACE_SECONDS: u64 = 5;
/// How long giving the Lease back may take.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether this operator is the active one.
pub(crate) struct Leader {
    is_active: watch::Receiver<bool>,
    task: Option<JoinHandle<()>>,
}

impl Leader {
    /// There is no other.
    pub(crate) fn alone() -> Self {
        // The sender may go: the value stays.
        let (_, is_active) = watch::channel(true);
        Self { is_active, task: None }
    }

    /// Takes part in the election of a namespace.
    pub(crate) async fn elected(client: Client, namespace: &str, identity: &str) -> anyhow::Result<Self> {
        let manager = LeaseManagerBuilder::new(client, NAME)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_duration(DURATION_SECONDS)
            .with_grace(GRACE_SECONDS)
            .build()
            .await
            .with_context(|| format!("cannot take part in the election by Lease {namespace}/{NAME}"))?;
        let (is_active, task) = manager.watch().await;
        let task = tokio::spawn(async move {
            match task.await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the Lease was not given back; it ends by itself"),
                Err(error) => tracing::warn!(%error, "the election ended"),
            }
        });
        Ok(Self { is_active, task: Some(task) })
    }

    /// Returns when this operator is the active one.
    pub(crate) async fn active(&mut self) -> anyhow::Result<()> {
        self.is_active.wait_for(|active| *active).await.context("the election ended")?;
        Ok(())
    }

    /// Returns when it no longer is.
    pub(crate) async fn inactive(&mut self) {
        if self.task.is_none() {
            return std::future::pending().await;
        }
        // An election that ended is lost, too.
        let _ = self.is_active.wait_for(|active| !*active).await;
    }

    /// Gives the Lease back, so that the next one need not wait for its end.
    pub(crate) async fn resign(self) {
        drop(self.is_active);
        if let Some(task) = self.task {
            // Where the API server does not answer, the Lease ends by itself.
            let _ = tokio::time::timeout(RESIGN_TIMEOUT, task).await;
        }
    }
}
