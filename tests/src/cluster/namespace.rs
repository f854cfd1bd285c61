//! A namespace of its own for each test, under Pod Security `restricted`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, resume_unwind};

use futures::FutureExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace as Object, Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Cluster, LONG, SHORT, failure, tool, until};

/// A namespace that a test has for itself.
pub struct Namespace {
    pub cluster: Cluster,
    pub name: String,
}

impl Namespace {
    /// Runs a test in a new namespace, which goes afterwards, in its own time. When the test fails, tells what the cluster
    /// looks like first.
    ///
    /// # Panics
    /// When the test does.
    pub async fn run(cluster: &Cluster, prefix: &str, test: impl AsyncFnOnce(&Self)) {
        let namespace = Self::create(cluster, prefix).await;
        let result = AssertUnwindSafe(test(&namespace)).catch_unwind().await;
        if result.is_err() {
            failure::tell(&namespace.name).await;
        }
        namespace.start_deletion().await;
        result.unwrap_or_else(|panic| resume_unwind(panic));
    }

    async fn create(cluster: &Cluster, prefix: &str) -> Self {
        let name = format!("{prefix}-{:08x}", rand::random::<u32>());
        println!("namespace: {name}");
        let object: Object = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {
                "capstan.dev/test": "node",
                "pod-security.kubernetes.io/enforce": "restricted",
            }},
        }))
        .unwrap();
        let namespaces: Api<Object> = Api::all(cluster.client.clone());
        namespaces.create(&PostParams::default(), &object).await.unwrap();
        let namespace = Self { cluster: cluster.clone(), name };
        // Before it is there no pod can be made.
        namespace.wait_for::<ServiceAccount>("default", "is there", SHORT, |_| Ok(())).await;
        namespace
    }

    /// Deletes it and waits until it is gone: nothing in it holds it back.
    ///
    /// # Panics
    /// When it is not gone within [`LONG`].
    pub async fn delete(&self) {
        self.start_deletion().await;
        let namespaces: Api<Object> = Api::all(self.cluster.client.clone());
        until(&format!("namespace {} is gone", self.name), LONG, async || {
            let namespace = namespaces.get_opt(&self.name).await.map_err(|error| error.to_string())?;
            let Some(status) = namespace.map(|namespace| namespace.status.unwrap_or_default()) else {
                return Ok(());
            };
            let held = status.conditions.into_iter().flatten().filter(|one| one.status == "True");
            Err(held.filter_map(|one| one.message).collect::<Vec<_>>().join("; "))
        })
        .await;
    }

    async fn start_deletion(&self) {
        let namespaces: Api<Object> = Api::all(self.cluster.client.clone());
        // A test may have deleted it itself.
        let _ = namespaces.delete(&self.name, &DeleteParams::background()).await;
    }

    /// The API of one kind in this namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client.clone(), &self.name)
    }

    /// Applies YAML as a user does.
    ///
    /// # Panics
    /// When kubectl fails.
    pub async fn apply(&self, yaml: &str) {
        let applied = tool::execute("kubectl", &["-n", &self.name, "apply", "-f", "-"], Some(yaml)).await;
        print!("{}", applied.unwrap_or_else(|error| panic!("{error}\n{yaml}")));
    }

    /// Runs kubectl in this namespace.
    ///
    /// # Panics
    /// When it fails.
    pub async fn kubectl(&self, arguments: &[&str]) -> String {
        tool::run("kubectl", &[&["-n", self.name.as_str()], arguments].concat()).await
    }

    /// Waits until an object is there and satisfies `check`, whose Err says what is still missing.
    ///
    /// # Panics
    /// When it does not within the deadline.
    pub async fn wait_for<K>(
        &self,
        name: &str,
        what: &str,
        within: std::time::Duration,
        mut check: impl FnMut(&K) -> Result<(), String>,
    ) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let (api, kind) = (self.api::<K>(), K::kind(&()).into_owned());
        until(&format!("{kind} {name} {what}"), within, async || {
            let object = api.get_opt(name).await.map_err(|error| error.to_string())?;
            let object = object.ok_or_else(|| format!("there is no {kind} {name}"))?;
            check(&object).map(|()| object)
        })
        .await
    }

    /// `http://HOST:PORT` of a pod's port.
    ///
    /// # Errors
    /// When the pod has no address yet.
    pub async fn pod(&self, pod: &str, port: u16) -> Result<String, String> {
        self.cluster.reach.pod(&self.name, pod, port).await
    }

    /// POSTs to the port 8080 of a pod.
    ///
    /// # Panics
    /// When it does not answer, or not with success.
    pub async fn post_to_pod(&self, pod: &str, path: &str) {
        let address = self.pod(pod, 8080).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.post(format!("{address}{path}")).send().await.unwrap().error_for_status().unwrap();
    }

    /// The running pods with a label, by name; those that are being ended are left out.
    ///
    /// # Panics
    /// When the API server does not answer.
    pub async fn pods(&self, selector: &str) -> Vec<Pod> {
        let pods = self.api::<Pod>().list(&ListParams::default().labels(selector)).await.unwrap();
        pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
    }
}

/// Whether conditions say `type_`, for the newest spec. Err says what they say instead.
///
/// # Errors
/// When they say something else, or are about an older spec.
pub fn condition(
    conditions: &[Condition],
    generation: Option<i64>,
    type_: &str,
    status: &str,
) -> Result<(), String> {
    let Some(found) = conditions.iter().find(|condition| condition.type_ == type_) else {
        return Err(format!("there is no condition {type_}"));
    };
    if found.observed_generation != generation {
        return Err(format!(
            "{type_} is about generation {:?}, not {generation:?}",
            found.observed_generation
        ));
    }
    if found.status != status {
        return Err(format!("{type_} is {} ({}: {})", found.status, found.reason, found.message));
    }
    Ok(())
}
