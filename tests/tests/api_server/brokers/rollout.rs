//! A new version of the broker: pods are restarted in turns over the cluster, and what an older operator made is taken along.

use capstan_crds::{Broker, Queue};
use e2e::cluster::{Namespace, SHORT, until};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::play;
use crate::fixture::{QUEUE, message, until_condition};
use crate::stage::on_stage;

const NEXT: (&str, &str) = ("CAPSTAN_BROKER_IMAGE", "capstan/broker:next");
const BROKERS: [&str; 3] = ["a", "b", "c"];
/// A StatefulSet as the version before this one made it, for the Broker `default`.
const PREVIOUS: &str = include_str!("previous.yaml");

fn image(pod: &Pod) -> String {
    pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap()
}

/// Which Brokers have a turn, by the StatefulSets' annotations.
async fn upgrading(namespace: &Namespace) -> Vec<&'static str> {
    let mut found = Vec::new();
    for name in BROKERS {
        let set: StatefulSet = namespace.api().get(&format!("capstan-{name}")).await.unwrap();
        if set.annotations().get("capstan.dev/upgrading-since").is_some_and(|since| !since.is_empty()) {
            found.push(name);
        }
    }
    found
}

/// Three Brokers whose pods are ready.
async fn three(namespace: &Namespace) -> Vec<Pod> {
    let mut pods = Vec::new();
    for name in BROKERS {
        play::broker(namespace, name, "{}").await;
        let pod = play::pod(namespace, name, None).await;
        play::get_ready(namespace, &pod).await;
        until_condition::<Broker>(namespace, name, ("Available", "True", "Serving")).await;
        pods.push(pod);
    }
    pods
}

/// Waits until one Broker of those `left` has a turn, and no other, and its pod is a new one; its place, and the pod.
async fn until_one_is_upgrading(namespace: &Namespace, left: &[&str], pods: &[Pod]) -> (usize, Pod) {
    let name = until("one Broker has a turn", SHORT, async || match upgrading(namespace).await[..] {
        [one] if left.contains(&one) => Ok(one),
        ref other => Err(format!("{other:?}")),
    })
    .await;
    let at = BROKERS.iter().position(|one| *one == name).unwrap();
    (at, play::pod(namespace, name, Some(&pods[at])).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_restarts_one_broker_after_the_other() {
    on_stage("turns", async |stage, namespace| {
        let mut pods = three(namespace).await;
        stage.restart_operator(&[NEXT]).await;
        let mut left = BROKERS.to_vec();
        while !left.is_empty() {
            let (at, pod) = until_one_is_upgrading(namespace, &left, &pods).await;
            assert_eq!(image(&pod), NEXT.1);
            left.retain(|name| *name != BROKERS[at]);
            until_condition::<Broker>(namespace, BROKERS[at], ("Updated", "False", "Upgrading")).await;
            for name in &left {
                let waiting: Broker =
                    until_condition(namespace, name, ("Updated", "False", "UpgradeWaiting")).await;
                assert!(message(&waiting, "Updated").contains(BROKERS[at]), "{waiting:?}");
                let place = BROKERS.iter().position(|one| one == name).unwrap();
                let same = play::pod(namespace, name, None).await;
                assert_eq!(same.metadata.uid, pods[place].metadata.uid, "{name} keeps its pod");
            }
            play::get_ready(namespace, &pod).await;
            pods[at] = pod;
        }
        for name in BROKERS {
            until_condition::<Broker>(namespace, name, ("Updated", "True", "AsDeclared")).await;
        }
        until("no turn is left", SHORT, async || {
            let left = upgrading(namespace).await;
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_stops_at_a_broker_that_does_not_come_back_and_own_changes_do_not_wait() {
    on_stage("stops", async |stage, namespace| {
        let mut pods = three(namespace).await;
        stage.restart_operator(&[NEXT]).await;
        let (at, lost) = until_one_is_upgrading(namespace, &BROKERS, &pods).await;
        pods[at] = lost;
        let since = "capstan.dev/upgrading-since=2026-01-01T00:00:00Z";
        namespace
            .kubectl(&["annotate", "statefulset", &format!("capstan-{}", BROKERS[at]), since, "--overwrite"])
            .await;
        let others: Vec<usize> = (0..BROKERS.len()).filter(|one| *one != at).collect();
        for other in &others {
            let stopped: Broker =
                until_condition(namespace, BROKERS[*other], ("Updated", "False", "UpgradeStopped")).await;
            assert!(message(&stopped, "Updated").contains(BROKERS[at]), "{stopped:?}");
            let same = play::pod(namespace, BROKERS[*other], None).await;
            assert_eq!(same.metadata.uid, pods[*other].metadata.uid);
            until_condition::<Broker>(namespace, BROKERS[*other], ("Ready", "True", "AsDeclared")).await;
        }
        // What a Broker itself asks for is done at once.
        let own = BROKERS[others[0]];
        play::change(namespace, own, json!({"pod": {"nodeSelector": {"disk": "ssd"}}})).await;
        let changed = play::pod(namespace, own, Some(&pods[others[0]])).await;
        assert!(changed.spec.unwrap().node_selector.unwrap().contains_key("disk"));
        let waits = play::pod(namespace, BROKERS[others[1]], None).await;
        assert_eq!(waits.metadata.uid, pods[others[1]].metadata.uid);
        // The next operator goes on where this one ended.
        stage.restart_operator(&[NEXT]).await;
        play::get_ready(namespace, &pods[at]).await;
        let last = play::pod(namespace, BROKERS[others[1]], Some(&pods[others[1]])).await;
        assert_eq!(image(&last), NEXT.1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_the_version_before_is_taken_along() {
    on_stage("before", async |stage, namespace| {
        stage.operator.stop();
        namespace
            .apply(&format!(
                "{QUEUE}---\napiVersion: capstan.dev/v1alpha1\nkind: Broker\nmetadata: {{name: default}}\n"
            ))
            .await;
        let owner = namespace.api::<Broker>().get("default").await.unwrap().metadata.uid.unwrap();
        let set: serde_json::Value = serde_yaml::from_str(&PREVIOUS.replace("OWNER", &owner)).unwrap();
        let params = PatchParams::apply("capstan").force();
        let sets = namespace.api::<StatefulSet>();
        let before = sets.patch("capstan-default", &params, &Patch::Apply(&set)).await.unwrap();
        let pod = play::pod(namespace, "default", None).await;
        play::get_ready(namespace, &pod).await;
        let claim = play::claim(namespace, "default").await;
        assert_eq!(play::access_mode(&claim), "ReadWriteOnce");
        stage.operator = stage.another_operator(&[]).await;
        let new = play::pod(namespace, "default", Some(&pod)).await;
        assert_eq!(new.spec.as_ref().unwrap().service_account_name.as_deref(), Some("capstan-default"));
        play::get_ready(namespace, &new).await;
        until_condition::<Broker>(namespace, "default", ("Updated", "True", "AsDeclared")).await;
        until_condition::<Broker>(namespace, "default", ("Ready", "True", "AsDeclared")).await;
        until_condition::<Queue>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        let after = sets.get("capstan-default").await.unwrap();
        assert_eq!(after.metadata.uid, before.metadata.uid, "it is not made anew");
        assert_eq!(play::claim_template(&after), ("10Gi".to_owned(), "ReadWriteOnce".to_owned()));
        let same: PersistentVolumeClaim = namespace.api().get(&claim.name_any()).await.unwrap();
        assert_eq!((same.metadata.uid, same.spec), (claim.metadata.uid, claim.spec));
        let managers: Vec<_> = same.metadata.managed_fields.iter().flatten().collect();
        assert!(managers.iter().all(|fields| fields.manager.as_deref() != Some("capstan")), "{managers:?}");
    })
    .await;
}
