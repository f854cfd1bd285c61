//! Leaving: uninstalling ends, stops nobody's messages, and a namespace goes even when nobody is left to help.

use std::collections::{BTreeMap, BTreeSet};

use capstan_crds::Queue;
use e2e::cluster::{
    BrokerAccess, Cluster, DEFINITIONS, Handled, LONG, Namespace, OPERATOR_NAMESPACE, SHORT, Turn, handled,
    order, tool, until,
};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::ListParams;

use crate::fixture::{PODS, QUEUE, REFUNDS, apply_all, is_injected, is_rolled_out, until_consuming};
use crate::subject::orders;

#[tokio::test]
async fn uninstalling_ends_and_takes_no_messages_along() {
    let cluster = Cluster::connect().await;
    let turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "uninstall", async |namespace| {
        apply_all(namespace).await;
        until_consuming(namespace, "orders", "orders").await;
        let broker = BrokerAccess::of(namespace);
        broker.send("orders-dlq", &[order(0, 0)]).await;
        turn.uninstall("helm", "capstan").await;
        assert_operator_is_gone(&cluster).await;
        assert_messages_go_on(namespace, &broker).await;

        turn.uninstall("helm", "capstan-crds").await;
        assert_eq!(
            definitions(&cluster).await.len(),
            3,
            "the definitions are kept, and every object with them"
        );
        assert_eq!(namespace.api::<Queue>().list(&ListParams::default()).await.unwrap().items.len(), 2);
        assert_messages_go_on(namespace, &broker).await;

        // The charts adopt what was left, and the operator works again.
        turn.install(&cluster, "helm").await;
        namespace.apply(&QUEUE.replace("orders", "later")).await;
        broker.send("later", &[order(0, 0)]).await;
        assert_eq!(broker.peek("orders-dlq").await.unwrap().len(), 1);

        for release in ["capstan", "capstan-crds"] {
            turn.uninstall("helm", release).await;
        }
        // No operator runs: nothing may wait for one.
        namespace.delete().await;
        assert_volumes_go(namespace).await;
        tool::run("kubectl", &[&["delete", "crd", "--timeout=60s"][..], &DEFINITIONS].concat()).await;
        assert_eq!(definitions(&cluster).await, BTreeSet::new());
    })
    .await;
}

/// docs/uninstall.md: the order in which nothing of Capstan stays but volumes; and what is installed later has all that is in
/// them.
#[tokio::test]
async fn tidying_up_leaves_the_volumes_alone_for_the_next_installation() {
    let cluster = Cluster::connect().await;
    let turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "tidy", async |namespace| {
        apply_all(namespace).await;
        namespace.apply(REFUNDS).await;
        until_consuming(namespace, "orders", "orders").await;
        let broker = BrokerAccess::of(namespace);
        let sent = broker.send("refunds", &orders(5, 0)).await;
        let tried = spend_an_attempt(&broker).await;

        tidy_up(namespace).await;
        for release in ["capstan", "capstan-crds"] {
            turn.uninstall("helm", release).await;
        }
        tool::run("kubectl", &[&["delete", "crd", "--timeout=60s"][..], &DEFINITIONS].concat()).await;
        assert_eq!(definitions(&cluster).await, BTreeSet::new());

        turn.install(&cluster, "helm").await;
        namespace.apply(REFUNDS).await;
        let pulled = until("the messages are handed out again", LONG, async || {
            let pulled = broker.pull("refunds", 10).await?;
            if pulled.is_empty() { Err("none is".to_owned()) } else { Ok(pulled) }
        })
        .await;
        let attempts: BTreeMap<_, _> =
            pulled.into_iter().map(|message| (message.id, message.attempts)).collect();
        let expected = sent.into_iter().map(|id| (id.clone(), if tried.contains(&id) { 2 } else { 1 }));
        assert_eq!(attempts, expected.collect(), "each is there, with its id and its attempts");
        let claims = namespace.kubectl(&["get", "pvc", "-o", "name"]).await;
        assert_eq!(claims.trim(), "persistentvolumeclaim/data-capstan-default-0", "in the volume of before");
    })
    .await;
}

/// Two messages come back after a failure. Returns their ids.
async fn spend_an_attempt(broker: &BrokerAccess<'_>) -> Vec<String> {
    let pulled = broker.pull("refunds", 2).await.unwrap();
    assert_eq!(pulled.len(), 2);
    broker.retry("refunds", &pulled).await;
    pulled.into_iter().map(|message| message.id).collect()
}

async fn tidy_up(namespace: &Namespace) {
    for kind in ["capc", "capq", "capb"] {
        namespace.kubectl(&["delete", kind, "--all", "--timeout=60s"]).await;
    }
    namespace
        .wait_for::<Deployment>("orders", "runs without the sidecar", LONG, |deployment| {
            if is_injected(deployment) { Err("it has it".to_owned()) } else { is_rolled_out(deployment) }
        })
        .await;
    until("nothing of the Broker runs", LONG, async || {
        let sets = namespace.api::<StatefulSet>().list_metadata(&ListParams::default()).await;
        let pods =
            namespace.api::<Pod>().list_metadata(&ListParams::default().labels("capstan.dev/broker")).await;
        let left =
            (sets.map_err(|e| e.to_string())?.items.len(), pods.map_err(|e| e.to_string())?.items.len());
        if left == (0, 0) { Ok(()) } else { Err(format!("{left:?} StatefulSets and pods are left")) }
    })
    .await;
    let left = namespace.kubectl(&["get", "capq,capc,capb,services", "-o", "name"]).await;
    assert_eq!(left, "");
    let claims = namespace.kubectl(&["get", "pvc", "-o", "name"]).await;
    assert_eq!(claims.trim(), "persistentvolumeclaim/data-capstan-default-0");
}

async fn assert_operator_is_gone(cluster: &Cluster) {
    let get =
        ["-n", OPERATOR_NAMESPACE, "get", "deployments,serviceaccounts,roles,rolebindings", "-o", "name"];
    let left = tool::run("kubectl", &[&get[..], &["-l", "app.kubernetes.io/name=capstan"]].concat()).await;
    assert_eq!(left, "", "everything of the chart is gone");
    let roles =
        ["get", "clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/name=capstan", "-o", "name"];
    assert_eq!(tool::run("kubectl", &roles).await, "");
    assert_eq!(definitions(cluster).await.len(), 3);
}

/// Without an operator brokers serve and sidecars deliver.
async fn assert_messages_go_on(namespace: &Namespace, broker: &BrokerAccess<'_>) {
    let sent = broker.send("orders", &[order(1, 0), order(2, 0)]).await;
    broker.wait_until_empty("orders", LONG).await;
    let sum = Handled::sum(&handled(namespace, PODS).await);
    assert!(sent.iter().all(|id| sum.ids.contains(id)), "{sent:?} were sent, {:?} handled", sum.ids);
}

async fn definitions(cluster: &Cluster) -> BTreeSet<String> {
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let all = api.list_metadata(&ListParams::default()).await.unwrap();
    let names = all.items.into_iter().filter_map(|one| one.metadata.name);
    names.filter(|name| name.ends_with(".capstan.dev")).collect()
}

/// The claims went with the namespace; what becomes of the volumes is their class's business, and here it is `Delete`.
async fn assert_volumes_go(namespace: &Namespace) {
    let volumes: Api<PersistentVolume> = Api::all(namespace.cluster.client.clone());
    until("no volume is bound to the namespace", SHORT, async || {
        let all = volumes.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        let bound = all.items.into_iter().filter(|volume| {
            let status = volume.status.as_ref().and_then(|status| status.phase.as_deref());
            let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
            let is_here = claim.is_some_and(|claim| claim.namespace.as_deref() == Some(&namespace.name));
            is_here && status == Some("Bound")
        });
        let left: Vec<_> = bound.filter_map(|volume| volume.metadata.name).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} are bound")) }
    })
    .await;
}
