//! What most tests apply, and the waiting for it to be in force.

use capstan_crds::Consumer;
use e2e::cluster::{LONG, Namespace, condition};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Container;

/// The label of the pods of [`application`].
pub(crate) const PODS: &str = "app=orders";
/// The container that Capstan adds.
pub(crate) const SIDECAR: &str = "capstan";

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
  endpoint: {port: 8080}
  maxWaitTime: 200ms
  concurrencyPerPod: 2
  maxRetries: 3
  deadLetterQueueRef: {name: orders-dlq}
";

/// The Queue `refunds`, with a pull consumer.
pub(crate) const REFUNDS: &str = "
apiVersion: capstan.dev/v1alpha1
kind: Queue
metadata: {name: refunds}
---
apiVersion: capstan.dev/v1alpha1
kind: Consumer
metadata: {name: refunds}
spec: {queueRef: {name: refunds}, maxRetries: 10}
";

/// The Deployment `orders` with two pods of the example application.
///
/// It has some of everything that Capstan must leave alone: an init container of its own, a volume, variables, annotations.
pub(crate) const APPLICATION: &str = "
apiVersion: apps/v1
kind: Deployment
metadata:
  name: orders
  annotations: {example.com/owner: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: orders}}
  template:
    metadata:
      labels: {app: orders, tier: back}
      annotations: {example.com/revision: '7'}
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      initContainers:
      - name: first
        image: capstan/broker:0.1.0
        args: [--version]
        securityContext: &restricted
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {drop: [ALL]}
      containers:
      - name: orders
        image: capstan/example-orders:0.1.0
        env: [{name: PORT, value: '8080'}]
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: scratch, mountPath: /scratch}]
        securityContext: *restricted
      volumes: [{name: scratch, emptyDir: {}}]
";

/// Applies all three.
pub(crate) async fn apply_all(namespace: &Namespace) {
    namespace.apply(&[QUEUE, CONSUMER, APPLICATION].join("---")).await;
}

/// Waits until a Consumer is Ready and every pod of its Deployment has the sidecar.
pub(crate) async fn until_consuming(namespace: &Namespace, consumer: &str, name: &str) {
    namespace
        .wait_for::<Consumer>(consumer, "is Ready", LONG, |consumer| {
            let conditions = consumer.status.as_ref().map_or(&[][..], |status| &status.conditions);
            condition(conditions, consumer.metadata.generation, "Ready", "True")
        })
        .await;
    namespace
        .wait_for::<Deployment>(name, "runs with sidecars", LONG, |deployment| {
            if !is_injected(deployment) {
                return Err("its pods get no sidecar".to_owned());
            }
            is_rolled_out(deployment)
        })
        .await;
}

/// The annotation by which a pod template says that the admission policy completes its pods.
pub(crate) const MARK: &str = capstan_crds::label::SIDECAR_MARK;

/// Whether a Deployment's pods get a sidecar: by admission, or by their template.
pub(crate) fn is_injected(deployment: &Deployment) -> bool {
    let annotations = deployment.spec.template.metadata.as_ref().and_then(|meta| meta.annotations.as_ref());
    sidecar(deployment).is_some() || annotations.is_some_and(|all| all.contains_key(MARK))
}

/// The sidecar in a Deployment's pod template.
pub(crate) fn sidecar(deployment: &Deployment) -> Option<&Container> {
    let pod = deployment.spec.template.spec.as_ref()?;
    pod.init_containers.iter().flatten().find(|container| container.name == SIDECAR)
}

/// Whether a Deployment has just its newest pods, all ready.
pub(crate) fn is_rolled_out(deployment: &Deployment) -> Result<(), String> {
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation != deployment.metadata.generation {
        return Err("the Deployment's controller has not seen the newest template".to_owned());
    }
    let counts = [status.replicas, status.updated_replicas, status.ready_replicas];
    let counts = counts.map(Option::unwrap_or_default);
    if counts != [wanted; 3] {
        return Err(format!("of {wanted} pods: {counts:?} exist, are new, are ready"));
    }
    Ok(())
}

/// Whether a StatefulSet's pods are ready.
pub(crate) fn is_serving(set: &StatefulSet) -> Result<(), String> {
    let wanted = set.spec.replicas.unwrap_or(1);
    let ready = set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
    if ready == wanted { Ok(()) } else { Err(format!("{ready} of {wanted} pods are ready")) }
}
