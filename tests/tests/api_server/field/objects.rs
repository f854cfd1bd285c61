//! The objects of a queue and its push consumer, each of the same name.

use capstan_crds::{Consumer, Queue};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::PostParams;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Field;
use super::insist::create;

impl Field {
    /// Creates a Queue.
    pub(crate) async fn create_queue(&self, namespace: &str, name: &str) {
        let queue = object("Queue", name, &json!({}));
        let (queues, params) = (self.api::<Queue>(namespace), PostParams::default());
        create(&format!("create Queue {name}"), async || queues.create(&params, &queue).await).await;
    }

    /// Creates a push consumer.
    pub(crate) async fn create_consumer(&self, namespace: &str, name: &str) {
        let spec = json!({"queueRef": {"name": name}, "targetRef": {"kind": "Deployment", "name": name}});
        let consumer = object("Consumer", name, &spec);
        let (consumers, params) = (self.api::<Consumer>(namespace), PostParams::default());
        create(&format!("create Consumer {name}"), async || consumers.create(&params, &consumer).await).await;
    }

    /// Creates the Deployment of a push consumer, without pods.
    pub(crate) async fn create_deployment(&self, namespace: &str, name: &str) {
        let labels = json!({"app": name});
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "app", "image": "example.com/app:1"}]},
            }},
        }))
        .unwrap();
        let (deployments, params) = (self.api::<Deployment>(namespace), PostParams::default());
        let what = format!("create Deployment {name}");
        create(&what, async || deployments.create(&params, &deployment).await).await;
    }
}

fn object<K: DeserializeOwned>(kind: &str, name: &str, spec: &Value) -> K {
    let object =
        json!({"apiVersion": "capstan.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    serde_json::from_value(object).unwrap()
}
