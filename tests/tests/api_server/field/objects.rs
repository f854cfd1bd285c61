//! The objects of a queue and its push consumer, each of the same name.

use capstan_crds::{Consumer, Queue};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::PostParams;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Field;

impl Field {
    /// Creates a Queue.
    pub(crate) async fn create_queue(&self, namespace: &str, name: &str) {
        let queue = object("Queue", name, &json!({}));
        self.api::<Queue>(namespace).create(&PostParams::default(), &queue).await.unwrap();
    }

    /// Creates a push consumer.
    pub(crate) async fn create_consumer(&self, namespace: &str, name: &str) {
        let spec = json!({"queueRef": {"name": name}, "targetRef": {"kind": "Deployment", "name": name}});
        let consumer = object("Consumer", name, &spec);
        self.api::<Consumer>(namespace).create(&PostParams::default(), &consumer).await.unwrap();
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
        self.api::<Deployment>(namespace).create(&PostParams::default(), &deployment).await.unwrap();
    }
}

fn object<K: DeserializeOwned>(kind: &str, name: &str, spec: &Value) -> K {
    let object =
        json!({"apiVersion": "capstan.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    serde_json::from_value(object).unwrap()
}
