//! Whether this operator is the active one among several.

use std::time::Duration;

use anyhow::Context;
use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::election::{self, Election};

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
    pub(crate) fn elected(client: Client, namespace: &str, identity: &str) -> Self {
        let (sender, is_active) = watch::channel(false);
        let election = Election::new(client, namespace, identity);
        Self { is_active, task: Some(tokio::spawn(election::run(election, sender))) }
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
