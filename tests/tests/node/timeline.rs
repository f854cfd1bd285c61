//! What Broker, Queue and Consumer say while something happens, and when.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use capstan_crds::{Broker, Consumer, Queue};
use e2e::cluster::Namespace;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use serde::de::DeserializeOwned;

/// How often is looked.
const PAUSE: Duration = Duration::from_millis(250);

/// What each condition said, one after the other: kind and type, then status, reason and message.
#[derive(Debug, Default)]
pub(crate) struct Timeline(BTreeMap<(&'static str, String), Vec<[String; 3]>>);

impl Timeline {
    /// Watches the Broker `default`, the Queue and the Consumer `orders` until `work` is done, and prints each change.
    pub(crate) async fn of(namespace: &Namespace, work: impl Future<Output = ()>) -> Self {
        let (mut timeline, began) = (Self::default(), Instant::now());
        let (mut work, mut ticks) = (Box::pin(work), tokio::time::interval(PAUSE));
        loop {
            tokio::select! {
                () = &mut work => return timeline,
                _ = ticks.tick() => timeline.look(namespace, began).await,
            }
        }
    }

    /// What a condition said, as `STATUS REASON`, without repetitions.
    pub(crate) fn of_condition(&self, kind: &'static str, type_: &str) -> Vec<String> {
        let said = self.0.get(&(kind, type_.to_owned())).into_iter().flatten();
        let mut said: Vec<_> = said.map(|[status, reason, _]| format!("{status} {reason}")).collect();
        said.dedup();
        said
    }

    async fn look(&mut self, namespace: &Namespace, began: Instant) {
        let broker = read::<Broker>(namespace, "default").await.and_then(|one| one.status);
        self.hear("Broker", broker.map(|status| status.conditions), began);
        let queue = read::<Queue>(namespace, "orders").await.and_then(|one| one.status);
        self.hear("Queue", queue.map(|status| status.conditions), began);
        let consumer = read::<Consumer>(namespace, "orders").await.and_then(|one| one.status);
        self.hear("Consumer", consumer.map(|status| status.conditions), began);
    }

    fn hear(&mut self, kind: &'static str, conditions: Option<Vec<Condition>>, began: Instant) {
        for Condition { type_, status, reason, message, .. } in conditions.into_iter().flatten() {
            let said = self.0.entry((kind, type_.clone())).or_default();
            let now = [status, reason, message];
            if said.last() != Some(&now) {
                let after = began.elapsed().as_secs_f64();
                println!("  +{after:.1} s {kind} {type_}={} {}: {}", now[0], now[1], now[2]);
                said.push(now);
            }
        }
    }
}

/// An object; nothing when it cannot be read now.
async fn read<K>(namespace: &Namespace, name: &str) -> Option<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    namespace.api::<K>().get_opt(name).await.ok().flatten()
}
