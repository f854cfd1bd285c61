//! What a namespace looks like, without what differs between two that are the same: times, UIDs, versions, counters, names.

use std::collections::BTreeMap;
use std::fmt::Debug;

use capstan_crds::{Broker, Consumer, Queue};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Field;

/// Everything of a namespace, by kind and name.
pub(crate) type Snapshot = BTreeMap<String, Value>;

/// Fields that say when or how often, wherever they stand.
const FLEETING: [&str; 12] = [
    // Whether a pod is held by its version depends on whether a claim was there before, and no pod runs here.
    "partition",
    // UIDs, in what brokers are told.
    "declarer",
    "resource",
    "purged_by",
    "lastTransitionTime",
    "observedAt",
    "observedGeneration",
    "creationTimestamp",
    "revision",
    "clusterIP",
    "clusterIPs",
    "uid",
];

impl Field {
    /// What a namespace looks like, and what its brokers were told.
    pub(crate) async fn snapshot(&self, namespace: &str) -> Result<Snapshot, String> {
        let mut snapshot = Snapshot::new();
        self.add::<Queue>(namespace, &mut snapshot).await?;
        self.add::<Consumer>(namespace, &mut snapshot).await?;
        self.add::<Broker>(namespace, &mut snapshot).await?;
        self.add::<Deployment>(namespace, &mut snapshot).await?;
        self.add::<StatefulSet>(namespace, &mut snapshot).await?;
        self.add::<Service>(namespace, &mut snapshot).await?;
        for (key, told) in self.plane.told().into_iter().filter(|(key, _)| key.namespace == namespace) {
            snapshot.insert(format!("told {}", key.name), plain(json!(told.declaration), namespace));
        }
        Ok(snapshot)
    }

    async fn add<K>(&self, namespace: &str, snapshot: &mut Snapshot) -> Result<(), String>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let objects = self.api::<K>(namespace).list(&ListParams::default()).await;
        for object in objects.map_err(|error| error.to_string())? {
            let (name, kind) = (object.name_any(), K::kind(&()));
            let is_ours = K::group(&()) == "capstan.dev";
            let mut value = json!(object);
            // Of the others Kubernetes keeps the status.
            let status = if is_ours { value["status"].take() } else { Value::Null };
            let is_current =
                conditions(&status).all(|one| one["observedGeneration"] == value["metadata"]["generation"]);
            let object = json!({"labels": value["metadata"]["labels"], "spec": value["spec"], "status": status,
                "is_current": is_current});
            snapshot.insert(format!("{kind} {name}"), plain(object, namespace));
        }
        Ok(())
    }
}

fn conditions(status: &Value) -> impl Iterator<Item = &Value> {
    status["conditions"].as_array().into_iter().flatten()
}

/// The same as in any other namespace.
fn plain(value: Value, namespace: &str) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace(namespace, "NAMESPACE")),
        Value::Array(list) => list.into_iter().map(|one| plain(one, namespace)).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(name, _)| !FLEETING.contains(&name.as_str()));
            Value::Object(fields.map(|(name, one)| (name, plain(one, namespace))).collect())
        }
        other => other,
    }
}

/// How one differs from what is expected. Err names the first difference of each object.
pub(crate) fn compare(expected: &Snapshot, found: &Snapshot) -> Result<(), String> {
    let mut names: Vec<&String> = expected.keys().chain(found.keys()).collect();
    names.sort();
    names.dedup();
    let differences: Vec<String> = names
        .into_iter()
        .filter_map(|name| match (expected.get(name), found.get(name)) {
            (Some(expected), Some(found)) => difference(name, expected, found),
            (Some(_), None) => Some(format!("{name} is missing")),
            (None, _) => Some(format!("{name} should not be")),
        })
        .collect();
    if differences.is_empty() { Ok(()) } else { Err(differences.join("; ")) }
}

fn difference(path: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        _ if expected == found => None,
        (Value::Object(one), Value::Object(other)) => {
            let mut names = one.keys().chain(other.keys());
            names.find_map(|name| difference(&format!("{path}.{name}"), &expected[name], &found[name]))
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let mut pairs = one.iter().zip(other).enumerate();
            pairs.find_map(|(at, (one, other))| difference(&format!("{path}[{at}]"), one, other))
        }
        _ => Some(format!("{path} is {found}, not {expected}")),
    }
}
