//! What most tests apply and look at.

use std::fmt::Debug;

use capstan_crds::{Broker, Consumer, Queue};
use e2e::cluster::{Namespace, SHORT, condition};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The Queue `orders`.
pub(crate) const QUEUE: &str = "
apiVersion: capstan.dev/v1alpha1
kind: Queue
metadata: {name: orders}
";

/// The Consumer `orders` of the Queue and the Deployment of that name.
pub(crate) const CONSUMER: &str = "
apiVersion: capstan.dev/v1alpha1
kind: Consumer
metadata: {name: orders}
spec:
  queueRef: {name: orders}
  targetRef: {kind: Deployment, name: orders}
  deadLetterQueueRef: {name: orders-dlq}
";

/// A Deployment without pods, with some of everything that Capstan must leave alone.
pub(crate) const APPLICATION: &str = "
apiVersion: apps/v1
kind: Deployment
metadata:
  name: orders
  labels: {app.kubernetes.io/instance: orders}
  annotations: {example.com/owner: shop}
spec:
  replicas: 0
  selector: {matchLabels: {app: orders}}
  template:
    metadata:
      labels: {app: orders, tier: back}
      annotations: {example.com/revision: '7'}
    spec:
      initContainers:
      - {name: first, image: 'example.com/first:1'}
      containers:
      - name: app
        image: example.com/app:1
        env: [{name: PORT, value: '8080'}]
        ports: [{containerPort: 8080}]
        volumeMounts: [{name: scratch, mountPath: /scratch}]
      volumes: [{name: scratch, emptyDir: {}}]
";

/// An object with conditions.
pub(crate) trait Conditions {
    fn conditions(&self) -> &[Condition];
}

impl Conditions for Queue {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }
}

impl Conditions for Consumer {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }
}

impl Conditions for Broker {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }
}

/// Waits until an object's condition has a status and reason.
pub(crate) async fn until_condition<K>(
    namespace: &Namespace,
    name: &str,
    (type_, status, reason): (&str, &str, &str),
) -> K
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Conditions,
{
    let check = |object: &K| {
        condition(object.conditions(), object.meta().generation, type_, status)?;
        let found = object.conditions().iter().find(|condition| condition.type_ == type_).unwrap();
        if found.reason == reason {
            Ok(())
        } else {
            Err(format!("{type_} is {status} because {}: {}", found.reason, found.message))
        }
    };
    namespace.wait_for::<K>(name, &format!("has {type_}={status} ({reason})"), SHORT, check).await
}

/// The message of an object's condition.
pub(crate) fn message(object: &impl Conditions, type_: &str) -> String {
    object.conditions().iter().find(|condition| condition.type_ == type_).unwrap().message.clone()
}

/// The names of a Deployment's init containers.
pub(crate) fn init_containers(deployment: &Deployment) -> Vec<&str> {
    let pod = deployment.spec.template.spec.as_ref().unwrap();
    pod.init_containers.iter().flatten().map(|container| container.name.as_str()).collect()
}

/// Waits until a Deployment has, or no longer has, the sidecar.
pub(crate) async fn until_injected(namespace: &Namespace, name: &str, wanted: bool) -> Deployment {
    let what = if wanted { "has the sidecar" } else { "has no sidecar" };
    let check = |deployment: &Deployment| {
        let found = init_containers(deployment);
        if found.contains(&"capstan") == wanted {
            Ok(())
        } else {
            Err(format!("its init containers are {found:?}"))
        }
    };
    namespace.wait_for::<Deployment>(name, what, SHORT, check).await
}

/// A Deployment's metadata and spec, without what every write changes and without the sidecar.
pub(crate) fn without_sidecar(deployment: &Deployment) -> Value {
    let mut value = serde_json::to_value(deployment).unwrap();
    let object = value.as_object_mut().unwrap();
    object.remove("status");
    let metadata = object["metadata"].as_object_mut().unwrap();
    for name in ["managedFields", "resourceVersion", "generation"] {
        metadata.remove(name);
    }
    metadata["annotations"].as_object_mut().unwrap().remove("deployment.kubernetes.io/revision");
    let pod = object["spec"]["template"]["spec"].as_object_mut().unwrap();
    if let Some(Value::Array(containers)) = pod.get_mut("initContainers") {
        containers.retain(|container| container["name"] != "capstan");
        if containers.is_empty() {
            pod.remove("initContainers");
        }
    }
    value
}

/// Waits until the Broker `default` has no messages of Queues that are gone.
pub(crate) async fn until_nothing_is_retained(namespace: &Namespace) {
    namespace
        .wait_for::<Broker>("default", "retains nothing", SHORT, |broker| {
            let retained = &broker.status.as_ref().unwrap().retained_queues;
            if retained.is_empty() { Ok(()) } else { Err(format!("{retained:?}")) }
        })
        .await;
}
