//! Rollouts for a newer sidecar: a few workloads of the cluster at a time, and none after one that does not come back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capstan_api::workload::Workload as Reference;
use capstan_crds::consumer::UpdatePolicy;
use capstan_crds::{Consumer, Key};
use capstan_inject::Mark;
use tokio::time::Instant;

use super::pods::version;
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
    /// It cannot be rolled now, for this reason.
    Held(String),
}

/// What was begun, and when.
#[derive(Debug, Default)]
pub(crate) struct Rollouts(Mutex<HashMap<(String, Reference), Instant>>);

impl Rollouts {
    /// Whether a workload has its turn.
    pub(super) fn has(&self, namespace: &str, workload: &Reference) -> bool {
        let begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        begun.contains_key(&(namespace.to_owned(), workload.clone()))
    }

    /// Takes over what the operator before began, as far as it has not come back: workloads of Consumers that roll, whose
    /// pod template has this version already.
    pub(crate) fn adopt(&self, state: &State, image: &str) {
        let version = version(image);
        let is_rolling =
            |consumer: &&Arc<Consumer>| consumer.spec.sidecar.update_policy == UpdatePolicy::Rolling;
        let target = |consumer: &Arc<Consumer>| {
            let namespace = consumer.metadata.namespace.clone()?;
            Some((namespace, consumer.spec.target_ref.as_ref()?.workload()))
        };
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (namespace, reference) in state.consumers.all().filter(is_rolling).filter_map(target) {
            let found = state.workload(reference.kind, &Key::new(&namespace, &reference.name));
            let has_version = |workload: &Workload| {
                let mark = workload.mark.as_deref().map(Mark::parse).and_then(|mark| mark.version);
                let in_template = workload.sidecar.as_ref().and_then(|sidecar| sidecar.image.as_deref());
                mark.as_ref() == Some(&version) || workload.owns_sidecar && in_template == Some(image)
            };
            if found.is_some_and(|found| has_version(&found) && found.replaces_pods && !found.is_settled()) {
                begun.entry((namespace, reference)).or_insert_with(Instant::now);
            }
        }
    }

    /// Asks for a turn, and takes it.
    pub(crate) fn ask(&self, namespace: &str, workload: &Reference, state: &State) -> Turn {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        begun.retain(|(namespace, reference), at| {
            let found = state.workload(reference.kind, &Key::new(namespace, &reference.name));
            found.is_some_and(|found| !found.is_settled() || now.duration_since(*at) < SHOWN)
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

#[cfg(test)]
mod tests {
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
    async fn what_an_operator_before_began_counts() {
        let consumer = |policy: &str| -> Consumer {
            let yaml = format!(
                "{{apiVersion: capstan.dev/v1alpha1, kind: Consumer, metadata: {{name: a, namespace: shop}}, spec: {{queueRef: {{name: q}}, \
                 targetRef: {{kind: Deployment, name: a}}, sidecar: {{updatePolicy: {policy}}}}}}}"
            );
            serde_yaml::from_str(&yaml).unwrap()
        };
        let mut state = state(&[("a", false), ("b", false)]);
        let key = Key::new("shop", "a");
        let marked = Workload {
            mark: Some("ab@2".into()),
            replaces_pods: true,
            ..Workload::clone(&state.deployments.get(&key).unwrap())
        };
        state.deployments.insert(key.clone(), Arc::new(marked));
        for (policy, image, expected) in
            [("Rolling", "s:2", true), ("Rolling", "s:3", false), ("OnRestart", "s:2", false)]
        {
            state.consumers.insert(key.clone(), Arc::new(consumer(policy)));
            let rollouts = Rollouts::default();
            rollouts.adopt(&state, image);
            assert_eq!(rollouts.has("shop", &"Deployment/a".parse().unwrap()), expected, "{policy} {image}");
        }
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
