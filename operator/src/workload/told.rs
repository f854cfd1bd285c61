//! When the admission policy learnt what it is to put into a workload's pods: the API server reads Consumers a moment after
//! they were written, and pods that are made before that have no sidecar.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use capstan_api::workload::Workload as Reference;
use tokio::time::Instant;

/// How long an API server may take to see a new status. Where it takes longer, the rollout is begun anew.
pub(crate) const SETTLES: Duration = Duration::from_secs(3);

/// Since when the policy knows, by workload; what is not in here was known before this operator started.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<HashMap<(String, Reference), Instant>>);

impl Told {
    /// The policy is being told.
    pub(crate) fn now(&self, namespace: &str, workload: &Reference) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        told.retain(|_, at| now.duration_since(*at) < SETTLES);
        told.insert((namespace.to_owned(), workload.clone()), now);
    }

    /// How long until it knows, if it does not.
    pub(crate) fn wait(&self, namespace: &str, workload: &Reference) -> Option<Duration> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = told.get(&(namespace.to_owned(), workload.clone()))?;
        let wait = SETTLES.saturating_sub(at.elapsed());
        (!wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_knows_a_moment_later() {
        let (told, web) = (Told::default(), "Deployment/web".parse().unwrap());
        assert_eq!(told.wait("shop", &web), None);
        told.now("shop", &web);
        assert_eq!(told.wait("shop", &web), Some(SETTLES));
        assert_eq!(told.wait("home", &web), None);
        tokio::time::advance(SETTLES).await;
        assert_eq!(told.wait("shop", &web), None);
    }
}
