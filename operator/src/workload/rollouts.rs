//! Rollouts for a newer sidecar: a few workloads of the cluster at a time, and none after one that does not come back.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use capstan_api::workload::Workload as Reference;
use capstan_crds::Key;
use tokio::time::Instant;

use crate::world::{State, Workload};

/// Workloads that roll at once.
const AT_ONCE: usize = 2;
/// A workload that has not come back after this long does not progress.
const PATIENCE: Duration = Duration::from_secs(600);
/// What was begun here shows in the watches after this long at the latest.
const SHOWN: Duration = Duration::from_secs(10);

/// Whether one more workload may roll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It may.
    Yours,
    /// As many as may do so roll.
    Wait,
    /// One does not come back.
    Stopped(String),
}

/// What was begun, and when.
#[derive(Debug, Default)]
pub(crate) struct Rollouts(Mutex<HashMap<(String, Reference), Instant>>);

impl Rollouts {
    /// Asks for a turn, and takes it.
    pub(crate) fn ask(&self, namespace: &str, workload: &Reference, state: &State) -> Turn {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        begun.retain(|(namespace, reference), at| {
            let found = state.workload(reference.kind, &Key::new(namespace, &reference.name));
            found.is_some_and(|found| !is_back(&found) || now.duration_since(*at) < SHOWN)
        });
        let own = (namespace.to_owned(), workload.clone());
        if let Some(((namespace, workload), _)) =
            begun.iter().find(|(key, at)| **key != own && now.duration_since(**at) >= PATIENCE)
        {
            return Turn::Stopped(format!("{workload} in namespace {namespace}"));
        }
        if begun.len() >= AT_ONCE && !begun.contains_key(&own) {
            return Turn::Wait;
        }
        begun.entry(own).or_insert(now);
        Turn::Yours
    }
}

/// Whether all pods are new and ready.
fn is_back(workload: &Workload) -> bool {
    workload.is_rolled_out() && workload.ready >= workload.replicas
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn state(back: &[(&str, bool)]) -> State {
        let mut state = State::default();
        for (name, is_back) in back {
            let key = Key::new("shop", name);
            let pods = u32::from(*is_back);
            let workload = Workload {
                key: key.clone(),
                replicas: 1,
                current: 1,
                updated: pods,
                ready: pods,
                is_observed: true,
                ..Workload::default()
            };
            state.deployments.insert(key, Arc::new(workload));
        }
        state
    }

    fn ask(rollouts: &Rollouts, name: &str, state: &State) -> Turn {
        rollouts.ask("shop", &format!("Deployment/{name}").parse().unwrap(), state)
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_roll_at_a_time_and_the_next_when_one_is_back() {
        let rollouts = Rollouts::default();
        let rolling = state(&[("a", false), ("b", false), ("c", false)]);
        assert_eq!(
            (ask(&rollouts, "a", &rolling), ask(&rollouts, "b", &rolling)),
            (Turn::Yours, Turn::Yours)
        );
        assert_eq!(ask(&rollouts, "c", &rolling), Turn::Wait);
        assert_eq!(ask(&rollouts, "a", &rolling), Turn::Yours, "it has its turn");
        tokio::time::advance(SHOWN).await;
        assert_eq!(ask(&rollouts, "c", &state(&[("a", true), ("b", false), ("c", false)])), Turn::Yours);
    }

    #[tokio::test(start_paused = true)]
    async fn none_follows_one_that_does_not_come_back() {
        let rollouts = Rollouts::default();
        let rolling = state(&[("a", false), ("b", false)]);
        assert_eq!(ask(&rollouts, "a", &rolling), Turn::Yours);
        tokio::time::advance(PATIENCE).await;
        assert_eq!(ask(&rollouts, "b", &rolling), Turn::Stopped("Deployment/a in namespace shop".into()));
        assert_eq!(ask(&rollouts, "b", &state(&[("a", true), ("b", false)])), Turn::Yours);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_gone_gives_its_turn_back() {
        let rollouts = Rollouts::default();
        let rolling = state(&[("a", false), ("b", false), ("c", false)]);
        assert_eq!(
            (ask(&rollouts, "a", &rolling), ask(&rollouts, "b", &rolling)),
            (Turn::Yours, Turn::Yours)
        );
        assert_eq!(ask(&rollouts, "c", &state(&[("b", false), ("c", false)])), Turn::Yours);
    }
}
