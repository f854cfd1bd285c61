//! Volumes that grow, that cannot, and that an older version made.

use capstan_crds::Broker;
use capstan_crds::broker::Resize;
use e2e::cluster::{Namespace, SHORT};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use serde_json::json;

use super::play;
use crate::fixture::{message, until_condition};
use crate::stage::on_stage;

const SET: &str = "capstan-main";
const CLAIM: &str = "data-capstan-main-0";

fn resize(broker: &Broker) -> Resize {
    broker.status.as_ref().unwrap().storage.as_ref().unwrap().resize
}

fn ready() -> (&'static str, &'static str, &'static str) {
    ("Ready", "True", "AsDeclared")
}

/// The UIDs of what a Broker has.
#[derive(Debug, PartialEq, Eq)]
struct Uids {
    set: String,
    claim: String,
    pod: String,
}

async fn uids(namespace: &Namespace) -> Uids {
    let set: StatefulSet = namespace.api().get(SET).await.unwrap();
    let claim: PersistentVolumeClaim = namespace.api().get(CLAIM).await.unwrap();
    let pod = play::pod(namespace, "main", None).await;
    Uids { set: set.uid().unwrap(), claim: claim.uid().unwrap(), pod: pod.uid().unwrap() }
}

/// A Broker of a class of its own, which is called as the namespace, whose volume is there.
async fn with_volume(namespace: &Namespace, may_grow: bool, storage: &str) -> Uids {
    play::storage_class(namespace, may_grow).await;
    let class = &namespace.name;
    play::broker(namespace, "main", &format!("{{storage: {{className: {class}, {storage}}}}}")).await;
    play::pod(namespace, "main", None).await;
    play::bind(namespace, &play::claim(namespace, "main").await).await;
    until_condition::<Broker>(namespace, "main", ("Resizing", "False", "AsDeclared")).await;
    uids(namespace).await
}

/// Waits until the StatefulSet was made anew with a claim of this size, and has its pod.
async fn until_made_anew(namespace: &Namespace, before: &str, size: &str) {
    let set = namespace
        .wait_for::<StatefulSet>(SET, "was made anew", SHORT, |set| {
            let is_new = set.metadata.uid.as_deref() != Some(before);
            let (found, _) = play::claim_template(set);
            if is_new && found == size { Ok(()) } else { Err(format!("new: {is_new}, size: {found}")) }
        })
        .await;
    namespace
        .wait_for::<Pod>(&format!("{SET}-0"), "belongs to it", SHORT, |pod| {
            let owners: Vec<_> = pod.owner_references().iter().map(|owner| owner.uid.clone()).collect();
            if owners == [set.metadata.uid.clone().unwrap()] { Ok(()) } else { Err(format!("{owners:?}")) }
        })
        .await;
}

/// Waits until the claim belongs to a StatefulSet, and goes with it.
async fn until_owned(namespace: &Namespace, set: &str) {
    let is_owned = |claim: &PersistentVolumeClaim| {
        let owners: Vec<_> = claim.owner_references().iter().map(|owner| owner.uid.clone()).collect();
        if owners == [set] { Ok(()) } else { Err(format!("it belongs to {owners:?}")) }
    };
    namespace.wait_for::<PersistentVolumeClaim>(CLAIM, "belongs to the StatefulSet", SHORT, is_owned).await;
}

/// With `volumes: Delete` the claim belongs to the StatefulSet, and must outlive it all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_brokers_volume_grows_and_its_pod_runs_on() {
    on_stage("grows", async |_, namespace| {
        let before = with_volume(namespace, true, "volumes: Delete").await;
        until_owned(namespace, &before.set).await;
        play::change(namespace, "main", json!({"storage": {"size": "20Gi"}})).await;
        let growing: Broker =
            until_condition(namespace, "main", ("Resizing", "True", "ResizeInProgress")).await;
        assert_eq!(resize(&growing), Resize::InProgress);
        until_condition::<Broker>(namespace, "main", ready()).await;
        until_made_anew(namespace, &before.set, "20Gi").await;
        assert_eq!(play::asked(&namespace.api().get(CLAIM).await.unwrap()), "20Gi");
        let pending = json!({"type": "FileSystemResizePending", "status": "True"});
        play::drive(namespace, CLAIM, json!({"conditions": [pending]})).await;
        let pending: Broker =
            until_condition(namespace, "main", ("Resizing", "True", "FileSystemResizePending")).await;
        assert_eq!(resize(&pending), Resize::FileSystemPending);
        let done = json!({"type": "FileSystemResizePending", "status": "False"});
        play::drive(namespace, CLAIM, json!({"capacity": {"storage": "20Gi"}, "conditions": [done]})).await;
        let done: Broker = until_condition(namespace, "main", ("Resizing", "False", "AsDeclared")).await;
        assert_eq!(resize(&done), Resize::None);
        let after = uids(namespace).await;
        assert_eq!((&after.claim, &after.pod), (&before.claim, &before.pod));
        until_owned(namespace, &after.set).await;
        play::clear(namespace).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brokers_growth_that_is_refused_changes_nothing_until_it_can_be_done() {
    on_stage("stays", async |_, namespace| {
        let before = with_volume(namespace, false, "size: 10Gi").await;
        play::change(namespace, "main", json!({"storage": {"size": "20Gi"}})).await;
        let refused: Broker = until_condition(namespace, "main", ("Resizing", "True", "ResizeRefused")).await;
        assert!(message(&refused, "Resizing").contains("allowVolumeExpansion"), "{refused:?}");
        assert_eq!(resize(&refused), Resize::Refused);
        until_condition::<Broker>(namespace, "main", ("Ready", "False", "ResizeRefused")).await;
        until_condition::<Broker>(namespace, "main", ("Available", "True", "Serving")).await;
        assert_eq!(uids(namespace).await, before);
        assert_eq!(play::claim_template(&namespace.api().get(SET).await.unwrap()).0, "10Gi");
        assert_eq!(play::asked(&namespace.api().get(CLAIM).await.unwrap()), "10Gi");
        play::allow_growth(namespace).await;
        until_condition::<Broker>(namespace, "main", ("Resizing", "True", "ResizeInProgress")).await;
        until_made_anew(namespace, &before.set, "20Gi").await;
        assert_eq!(uids(namespace).await.pod, before.pod);
        play::clear(namespace).await;
    })
    .await;
}

/// Kubernetes would write `2.1Gi` as `2254857830400m`.
#[tokio::test(flavor = "multi_thread")]
async fn a_brokers_size_that_is_no_whole_number_of_bytes_makes_nothing_anew() {
    on_stage("fraction", async |_, namespace| {
        let before = with_volume(namespace, true, "size: 2.1Gi").await;
        assert_eq!(play::claim_template(&namespace.api().get(SET).await.unwrap()).0, "2254857831");
        play::change(namespace, "main", json!({"storage": {"size": "2.3Gi"}})).await;
        until_condition::<Broker>(namespace, "main", ("Resizing", "True", "ResizeInProgress")).await;
        until_made_anew(namespace, &before.set, "2469606196").await;
        let grown = uids(namespace).await;
        // As a driver may write it.
        play::drive(namespace, CLAIM, json!({"capacity": {"storage": "2.4Gi"}})).await;
        until_condition::<Broker>(namespace, "main", ("Resizing", "False", "AsDeclared")).await;
        // Each change has the claim looked at.
        play::change(namespace, "main", json!({"service": {"annotations": {"a": "b"}}})).await;
        until_condition::<Broker>(namespace, "main", ("Resizing", "False", "AsDeclared")).await;
        until_condition::<Broker>(namespace, "main", ready()).await;
        assert_eq!(uids(namespace).await, grown);
        play::clear(namespace).await;
    })
    .await;
}

/// A driver that knows no ReadWriteOncePod: what the documentation says to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_brokers_claim_that_was_never_bound_can_have_another_access_mode() {
    on_stage("mode", async |_, namespace| {
        play::broker(namespace, "main", "{}").await;
        let claim = play::claim(namespace, "main").await;
        assert_eq!(play::access_mode(&claim), "ReadWriteOncePod");
        let before = uids(namespace).await.set;
        play::change(namespace, "main", json!({"storage": {"accessMode": "ReadWriteOnce"}})).await;
        until_made_anew(namespace, &before, "10Gi").await;
        namespace.kubectl(&["delete", "persistentvolumeclaim", CLAIM, "--wait=false"]).await;
        namespace.kubectl(&["delete", "pod", "capstan-main-0"]).await;
        namespace
            .wait_for::<PersistentVolumeClaim>(CLAIM, "may be mounted by a node", SHORT, |claim| {
                let mode = play::access_mode(claim);
                if mode == "ReadWriteOnce" { Ok(()) } else { Err(mode) }
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_again_has_its_volume_again() {
    on_stage("adopted", async |_, namespace| {
        play::broker(namespace, "main", "{}").await;
        let before = play::claim(namespace, "main").await.uid();
        namespace.kubectl(&["delete", "broker.capstan.dev", "main"]).await;
        play::until_gone::<StatefulSet>(namespace, SET).await;
        play::until_gone::<Pod>(namespace, "capstan-main-0").await;
        play::broker(namespace, "main", "{}").await;
        until_condition::<Broker>(namespace, "main", ready()).await;
        play::pod(namespace, "main", None).await;
        assert_eq!(play::claim(namespace, "main").await.uid(), before);
        e2e::cluster::until("an Event says so", SHORT, async || {
            let events =
                namespace.kubectl(&["get", "events", "-o", "custom-columns=R:.reason,M:.message"]).await;
            let told = events.lines().find(|line| line.starts_with("VolumeAdopted"));
            match told {
                Some(line) if line.contains(CLAIM) => Ok(()),
                _ => Err(events),
            }
        })
        .await;
        // Its StatefulSet holds templates; a restart by hand gets its turn.
        let pod = play::pod(namespace, "main", None).await;
        namespace.kubectl(&["rollout", "restart", "statefulset", SET]).await;
        play::pod(namespace, "main", Some(&pod)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_takes_its_volume_along_when_it_is_to() {
    on_stage("taken", async |_, namespace| {
        play::broker(namespace, "main", "{storage: {volumes: Delete}}").await;
        play::claim(namespace, "main").await;
        until_owned(namespace, &uids(namespace).await.set).await;
        namespace.kubectl(&["delete", "broker.capstan.dev", "main"]).await;
        play::until_gone::<PersistentVolumeClaim>(namespace, CLAIM).await;
    })
    .await;
}
