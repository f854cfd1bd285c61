//! Queues with push consumers that change while something fails.

use std::collections::BTreeMap;

use capstan_crds::{Broker, Consumer, Key, Queue};
use e2e::cluster::{LONG, condition, until};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Service;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::field::{Field, insist};
use crate::fixture::{Conditions, init_containers};

/// Queues with a Consumer and a Deployment that come with each round.
const COMING: usize = 4;
/// Retention in the round 0.
const RETENTION_SECONDS: u32 = 3_600;

/// Everything of one namespace.
pub(super) struct Shop<'a> {
    field: &'a Field,
    namespace: String,
    names: Vec<String>,
    /// The specs are those of this round.
    round: u32,
    /// How often a Consumer was changed beside.
    touches: u32,
    /// The UIDs of everything that there was.
    uids: BTreeMap<String, String>,
}

impl<'a> Shop<'a> {
    /// A shop in which everything is Ready.
    pub(super) async fn open(field: &'a Field) -> Self {
        let namespace = field.namespaces[0].clone();
        let mut shop =
            Self { field, namespace, names: Vec::new(), round: 0, touches: 0, uids: BTreeMap::new() };
        shop.change().await;
        shop.converged().await;
        shop
    }

    /// How many objects a change concerns.
    pub(super) fn objects(&self) -> usize {
        3 * self.names.len()
    }

    /// Changes all there are, and creates some more.
    pub(super) async fn change(&mut self) {
        self.round += 1;
        let (field, namespace) = (self.field, self.namespace.as_str());
        let old = self.names.len();
        self.names.extend((0..COMING).map(|number| format!("q{:03}", old + number)));
        field
            .each(&self.names[old..], async |name| {
                // In each order.
                field.create_consumer(namespace, name).await;
                field.create_queue(namespace, name).await;
                field.create_deployment(namespace, name).await;
            })
            .await;
        let (retention, retries) = (format!("{}s", RETENTION_SECONDS + self.round), self.round);
        field
            .each(&self.names, async |name| {
                let params = PatchParams::default();
                let (queues, consumers) = (field.api::<Queue>(namespace), field.api::<Consumer>(namespace));
                let patch = Patch::Merge(json!({"spec": {"messageRetention": retention}}));
                insist("change a Queue", async || queues.patch(name, &params, &patch).await).await;
                let patch = Patch::Merge(json!({"spec": {"maxRetries": retries}}));
                insist("change a Consumer", async || consumers.patch(name, &params, &patch).await).await;
            })
            .await;
    }

    /// Changes one Consumer, and nothing else.
    pub(super) async fn touch(&mut self) {
        self.touches += 1;
        let (params, name) = (PatchParams::default(), self.names[0].as_str());
        let patch = Patch::Merge(json!({"spec": {"maxBatchSize": self.touches}}));
        self.field.api::<Consumer>(&self.namespace).patch(name, &params, &patch).await.unwrap();
    }

    /// Waits until everything is Ready as it is now, and the broker was told; then checks that nothing went and that no
    /// workload was rolled out twice.
    pub(super) async fn converged(&mut self) {
        self.served().await;
        self.until_ready::<Broker>().await;
        self.intact().await;
    }

    /// Waits until the broker was told everything, and Queues and Consumers are Ready as they are now.
    pub(super) async fn served(&self) {
        until("the broker was told everything", LONG, async || self.is_told()).await;
        self.until_ready::<Queue>().await;
        self.until_ready::<Consumer>().await;
    }

    /// Changes the Service that the Broker asks for; the Broker's generation from there.
    pub(super) async fn change_service(&self) -> Option<i64> {
        let patch = Patch::Merge(json!({"spec": {"service": {"annotations": {"a": "b"}}}}));
        let brokers = self.field.api::<Broker>(&self.namespace);
        brokers.patch("default", &PatchParams::default(), &patch).await.unwrap().metadata.generation
    }

    /// The generation that the Broker's status is of.
    pub(super) async fn observed(&self) -> Option<i64> {
        let broker = self.field.api::<Broker>(&self.namespace).get("default").await.unwrap();
        broker.status.and_then(|status| status.observed_generation)
    }

    fn is_told(&self) -> Result<(), String> {
        let told = self.field.plane.told().remove(&Key::new(&self.namespace, "default"));
        let queues = told.map(|told| told.declaration.queues).unwrap_or_default();
        let retention = u64::from(RETENTION_SECONDS + self.round) * 1000;
        let is_new = queues.iter().filter(|queue| {
            let retries = queue.consumer.as_ref().map(|consumer| consumer.max_retries);
            queue.retention_ms == retention && retries == Some(self.round)
        });
        match (is_new.count(), self.names.len()) {
            (told, all) if told == all && queues.len() == all => Ok(()),
            (told, all) => Err(format!("{told} of {all} are told as they are, {} in all", queues.len())),
        }
    }

    async fn until_ready<K>(&self)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Conditions,
    {
        until(&format!("all {} are Ready", K::plural(&())), LONG, async || {
            let all = self.list::<K>().await?;
            let check =
                |object: &K| condition(object.conditions(), object.meta().generation, "Ready", "True");
            let not =
                all.iter().find_map(|object| check(object).err().map(|error| (object.name_any(), error)));
            not.map_or(Ok(()), |(name, error)| Err(format!("{name}: {error}")))
        })
        .await;
    }

    async fn list<K>(&self) -> Result<Vec<K>, String>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let listed = self.field.api::<K>(&self.namespace).list(&ListParams::default()).await;
        listed.map(|list| list.items).map_err(|error| error.to_string())
    }

    async fn intact(&mut self) {
        let mut uids = BTreeMap::new();
        self.add::<Queue>(&mut uids).await;
        self.add::<Consumer>(&mut uids).await;
        self.add::<Broker>(&mut uids).await;
        self.add::<StatefulSet>(&mut uids).await;
        self.add::<Service>(&mut uids).await;
        self.add::<Deployment>(&mut uids).await;
        // A Queue, a Consumer and a Deployment of each name; the Broker with its StatefulSet and two Services.
        assert_eq!(uids.len(), self.objects() + 4, "{:?}", uids.keys());
        for (name, uid) in &self.uids {
            assert_eq!(uids.get(name), Some(uid), "{name} was deleted");
        }
        self.uids = uids;
        for deployment in self.list::<Deployment>().await.unwrap() {
            assert_eq!(init_containers(&deployment), ["capstan"]);
            // Created, and given its sidecar.
            assert_eq!(
                deployment.metadata.generation,
                Some(2),
                "{} was rolled out again",
                deployment.name_any()
            );
        }
        for set in self.list::<StatefulSet>().await.unwrap() {
            assert_eq!(set.metadata.generation, Some(1), "{} was rolled out again", set.name_any());
        }
    }

    async fn add<K>(&self, uids: &mut BTreeMap<String, String>)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        for object in self.list::<K>().await.unwrap() {
            uids.insert(format!("{} {}", K::kind(&()), object.name_any()), object.uid().unwrap());
        }
    }
}
