//! The injection matrix: users' tools and changes of their manifests, in both modes. No request is refused because of a
//! sidecar, the sidecar is there afterwards, and the rest of the Deployment is as it is without one.

mod changes;
mod hooks;
mod tools;

use std::collections::BTreeMap;

use capstan_crds::Consumer;
use e2e::cluster::{LONG, Namespace, SHORT, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::Value;

use self::changes::{CHANGES, consumers, plain};
use self::tools::{TOOLS, Tool, until_settled};
use crate::fixture::{APPLICATION, CONSUMER, QUEUE, init_containers, until_injected, without_sidecar};
use crate::stage::{BY_ADMISSION, on_stage, on_stage_with};

/// The annotation by which a template says that pods are completed by admission.
const MARK: &str = capstan_crds::label::SIDECAR_MARK;

#[tokio::test(flavor = "multi_thread")]
async fn every_change_works_as_without_a_sidecar_in_the_template() {
    on_stage("template", async |_, namespace| all_tools(namespace, false).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_works_as_without_a_sidecar_by_admission() {
    on_stage_with("admitted", &[BY_ADMISSION], async |_, namespace| all_tools(namespace, true).await).await;
}

/// One tool after the other, each with all changes at once.
async fn all_tools(namespace: &Namespace, by_admission: bool) {
    let mut compared = 0;
    for (round, tool) in TOOLS.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        tool.create(namespace, round, folder.path()).await;
        namespace.apply(&consumers(round)).await;
        until_all_injected(namespace, round, by_admission).await;
        let before = revisions(namespace).await;
        tool.change(namespace, round, folder.path()).await;
        until_all_injected(namespace, round, by_admission).await;
        until_pods_have_it(namespace).await;
        compared += compare(namespace, (round, tool), true).await;
        at_most_one_more_rollout(&before, &revisions(namespace).await, (round, tool));
        let params = (DeleteParams::default(), ListParams::default());
        namespace.api::<Consumer>().delete_collection(&params.0, &params.1).await.unwrap();
        until_none_injected(namespace).await;
        compared += compare(namespace, (round, tool), false).await;
        remove(namespace, tool).await;
    }
    assert_eq!(compared, TOOLS.len() * CHANGES.len() * 2);
}

/// Takes a round's Deployments away.
async fn remove(namespace: &Namespace, tool: Tool) {
    if let Tool::Upgrade(helm) | Tool::Rollback(helm) = tool {
        e2e::cluster::tool::run(helm, &["-n", &namespace.name, "uninstall", "matrix"]).await;
    }
    let params = (DeleteParams::background(), ListParams::default());
    namespace.api::<Deployment>().delete_collection(&params.0, &params.1).await.unwrap();
    until("the Deployments and their pods are gone", LONG, async || {
        let pods = namespace
            .api::<Pod>()
            .list_metadata(&ListParams::default().labels("tier"))
            .await
            .map_err(|e| e.to_string())?;
        let deployments =
            namespace.api::<Deployment>().list_metadata(&params.1).await.map_err(|e| e.to_string())?;
        let names = pods.items.iter().map(ResourceExt::name_any);
        let left: Vec<_> = names.chain(deployments.items.iter().map(ResourceExt::name_any)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} are left")) }
    })
    .await;
}

async fn deployments(namespace: &Namespace) -> BTreeMap<String, Deployment> {
    let all = namespace.api::<Deployment>().list(&ListParams::default()).await.unwrap();
    all.items.into_iter().map(|one| (one.name_any(), one)).collect()
}

/// How often each Deployment's template changed, as its controller counts.
async fn revisions(namespace: &Namespace) -> BTreeMap<String, i64> {
    until_settled(namespace).await;
    let revision = |one: &Deployment| one.annotations()["deployment.kubernetes.io/revision"].parse().unwrap();
    deployments(namespace).await.into_iter().map(|(name, one)| (name, revision(&one))).collect()
}

/// The request itself may be a rollout, and one more brings the sidecar back. `kubectl replace` is one even when it changes
/// nothing of the user's, since it takes out what others put there.
fn at_most_one_more_rollout(
    before: &BTreeMap<String, i64>,
    after: &BTreeMap<String, i64>,
    (round, tool): (usize, Tool),
) {
    let least = i64::from(matches!(tool, Tool::Replace));
    for change in CHANGES {
        let rollouts = |name: &str| after[name] - before[name];
        let name = change.name(round);
        let (with, without) = (rollouts(&name), rollouts(&plain(&name)).max(least));
        assert!(with <= without + 1, "{name} by {tool:?}: {with} rollouts instead of {without}");
    }
}

fn is_injected(deployment: &Deployment, by_admission: bool) -> bool {
    if by_admission {
        let annotations =
            deployment.spec.template.metadata.as_ref().and_then(|meta| meta.annotations.as_ref());
        return annotations.is_some_and(|all| all.contains_key(MARK));
    }
    init_containers(deployment).contains(&"capstan")
}

async fn until_all_injected(namespace: &Namespace, round: usize, by_admission: bool) {
    until("all Deployments of Consumers are injected", LONG, async || {
        let all = deployments(namespace).await;
        let left: Vec<_> = CHANGES
            .iter()
            .map(|change| change.name(round))
            .filter(|name| !is_injected(&all[name], by_admission))
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("not {left:?}")) }
    })
    .await;
}

async fn until_none_injected(namespace: &Namespace) {
    until("no Deployment is injected any more", LONG, async || {
        let all = deployments(namespace).await;
        let left: Vec<_> = all
            .iter()
            .filter(|(_, one)| is_injected(one, true) || is_injected(one, false))
            .map(|(name, _)| name)
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} are")) }
    })
    .await;
}

/// Waits until just the pods of Deployments with a Consumer have the sidecar.
async fn until_pods_have_it(namespace: &Namespace) {
    until("the pods have sidecars", LONG, async || {
        let all = namespace.pods("tier").await;
        let is_wrong = |pod: &&Pod| {
            let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
            let has = init.into_iter().any(|container| container.name == "capstan");
            has == pod.labels()["app"].ends_with("-plain")
        };
        let wrong: Vec<_> = all.iter().filter(is_wrong).map(ResourceExt::name_any).collect();
        if wrong.is_empty() && all.len() >= 2 * CHANGES.len() {
            Ok(())
        } else {
            Err(format!("{wrong:?} of {} pods are otherwise", all.len()))
        }
    })
    .await;
}

/// Each Deployment is like the one that went through the same without a sidecar.
async fn compare(namespace: &Namespace, (round, tool): (usize, Tool), is_injected: bool) -> usize {
    let all = deployments(namespace).await;
    for change in CHANGES {
        let name = change.name(round);
        let (with, without) = (&all[&name], &all[&plain(&name)]);
        assert_eq!(
            comparable(with, &name),
            comparable(without, &plain(&name)),
            "{name} by {tool:?}, with a sidecar: {is_injected}"
        );
    }
    CHANGES.len()
}

/// What two Deployments have in common when they were made in the same way.
fn comparable(deployment: &Deployment, name: &str) -> Value {
    let mut value = without_sidecar(deployment);
    let metadata = value["metadata"].as_object_mut().unwrap();
    for name in ["uid", "creationTimestamp"] {
        metadata.remove(name);
    }
    metadata["annotations"]
        .as_object_mut()
        .unwrap()
        .remove("kubectl.kubernetes.io/last-applied-configuration");
    value["spec"]["template"]["metadata"]["annotations"].as_object_mut().unwrap().remove(MARK);
    serde_json::from_str(&value.to_string().replace(&format!("\"{name}\""), "\"NAME\"")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectls_other_commands_work() {
    on_stage("commands", async |_, namespace| {
        namespace.apply(&[QUEUE, CONSUMER, APPLICATION].join("---")).await;
        until_injected(namespace, "orders", true).await;
        for arguments in [
            &["rollout", "restart", "deployment/orders"][..],
            &["set", "image", "deployment/orders", "app=example.com/app:3"],
            &["set", "env", "deployment/orders", "A=b"],
            &["rollout", "pause", "deployment/orders"],
            &["rollout", "resume", "deployment/orders"],
            &["scale", "deployment/orders", "--replicas=1"],
            &["scale", "deployment/orders", "--replicas=0"],
            &["rollout", "undo", "deployment/orders"],
        ] {
            namespace.kubectl(arguments).await;
            until_injected(namespace, "orders", true).await;
        }
        namespace
            .wait_for::<Deployment>("orders", "has what the commands set", SHORT, |deployment| {
                let spec = serde_json::to_value(&deployment.spec.template.spec).unwrap();
                let image = &spec["containers"][0]["image"];
                if image == "example.com/app:3" { Ok(()) } else { Err(format!("its image is {image}")) }
            })
            .await;
    })
    .await;
}
