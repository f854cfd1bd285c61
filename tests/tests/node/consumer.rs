//! A Consumer is taken away and comes back: the sidecar goes and comes, and nothing else of the Deployment changes.

use capstan_crds::Consumer;
use e2e::cluster::{BrokerAccess, Cluster, Handled, LONG, Namespace, Turn, handled, order};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::fixture::{
    APPLICATION, CONSUMER, MARK, PODS, QUEUE, SIDECAR, is_injected, is_rolled_out, until_consuming,
};

#[tokio::test]
async fn the_sidecar_goes_with_the_consumer_and_nothing_else_changes() {
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "consumer", async |namespace| {
        namespace.apply(APPLICATION).await;
        let plain = namespace.wait_for::<Deployment>("orders", "runs", LONG, is_rolled_out).await;
        assert!(!is_injected(&plain));

        namespace.apply(&[QUEUE, CONSUMER].join("---")).await;
        until_consuming(namespace, "orders", "orders").await;
        assert_injected(namespace, &plain).await;

        namespace.api::<Consumer>().delete("orders", &DeleteParams::default()).await.unwrap();
        let again = namespace
            .wait_for::<Deployment>("orders", "runs without the sidecar", LONG, |deployment| {
                if is_injected(deployment) {
                    Err("its pods get the sidecar".to_owned())
                } else {
                    is_rolled_out(deployment)
                }
            })
            .await;
        assert_eq!(untouched(&again), untouched(&plain), "what the user wrote is as it was");
        for pod in namespace.pods(PODS).await {
            assert_eq!(sidecar(&pod), None, "{:?}", pod.metadata.name);
        }

        namespace.apply(CONSUMER).await;
        until_consuming(namespace, "orders", "orders").await;
        assert_injected(namespace, &plain).await;
        let broker = BrokerAccess::of(namespace);
        let sent = broker.send("orders", &[order(1, 0), order(2, 0)]).await;
        broker.wait_until_empty("orders", LONG).await;
        let sum = Handled::sum(&handled(namespace, PODS).await);
        assert!(sent.iter().all(|id| sum.ids.contains(id)), "{sent:?} were sent, {:?} handled", sum.ids);
    })
    .await;
}

/// Each pod runs the sidecar, and the Deployment differs by a mark alone: the cluster completes pods by admission.
async fn assert_injected(namespace: &Namespace, plain: &Deployment) {
    let mut injected = namespace.api::<Deployment>().get("orders").await.unwrap();
    let template = injected.spec.template.metadata.as_mut().unwrap();
    assert!(template.annotations.as_mut().unwrap().remove(MARK).is_some(), "it is marked");
    assert_eq!(untouched(&injected), untouched(plain), "only the mark was added");
    let pods = namespace.pods(PODS).await;
    assert_eq!(pods.len(), 2);
    for pod in &pods {
        let container = sidecar(pod).unwrap_or_else(|| panic!("{:?} has none", pod.metadata.name));
        assert_eq!(container.restart_policy.as_deref(), Some("Always"), "a native sidecar");
        assert_eq!(container.image.as_deref(), Some(concat!("capstan/sidecar:", env!("CARGO_PKG_VERSION"))));
    }
}

fn sidecar(pod: &Pod) -> Option<&Container> {
    let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    init.into_iter().find(|container| container.name == SIDECAR)
}

/// Everything of a Deployment that is the user's.
fn untouched(deployment: &Deployment) -> Value {
    let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    // Kubernetes' own count of rollouts.
    annotations.remove("deployment.kubernetes.io/revision");
    json!({"spec": deployment.spec, "labels": deployment.metadata.labels, "annotations": annotations})
}
