//! What users do to a Deployment with a sidecar, with the tools they have: it never fails because of the sidecar, has the
//! effect it has without one, and the sidecar is there afterwards.

use capstan_crds::Consumer;
use e2e::cluster::{Namespace, SHORT, tool};
use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DeleteParams;

use crate::fixture::{APPLICATION, CONSUMER, QUEUE, init_containers, until_injected, without_sidecar};
use crate::stage::on_stage;

/// A change of the manifest: a text, and what takes its place.
struct Change {
    name: &'static str,
    text: &'static str,
    new: &'static str,
}

const CHANGES: &[Change] = &[
    Change { name: "nothing", text: "tier: back", new: "tier: back" },
    Change { name: "image", text: "example.com/app:1", new: "example.com/app:2" },
    Change {
        name: "variable",
        text: "env: [{name: PORT, value: '8080'}]",
        new: "env: [{name: PORT, value: '1'}, {name: B, value: b}]",
    },
    Change { name: "label", text: "tier: back", new: "tier: front" },
    Change { name: "annotation", text: "example.com/revision: '7'", new: "example.com/revision: '8'" },
    Change { name: "container", text: "- name: app\n", new: "- name: renamed\n" },
    Change {
        name: "hook",
        text: "image: example.com/app:1",
        new: "image: example.com/app:1\n        lifecycle: {preStop: {exec: {command: [sleep, '5']}}}",
    },
    Change {
        name: "another-init",
        text: "- {name: first, image: 'example.com/first:1'}",
        new: "- {name: first, image: 'example.com/first:1'}\n      - {name: second, image: 'example.com/second:1'}",
    },
    Change {
        name: "last-init",
        text: "      initContainers:\n      - {name: first, image: 'example.com/first:1'}\n",
        new: "",
    },
    Change {
        name: "last-volume",
        text: "        volumeMounts: [{name: scratch, mountPath: /scratch}]\n      volumes: [{name: scratch, emptyDir: {}}]\n",
        new: "",
    },
    Change {
        name: "grace",
        text: "    spec:\n      initContainers",
        new: "    spec:\n      terminationGracePeriodSeconds: 60\n      initContainers",
    },
];

/// How users bring a manifest into the cluster.
const TOOLS: [&[&str]; 4] = [
    &["apply"],
    &["apply", "--server-side"],
    &["apply", "--server-side", "--field-manager=flux"],
    &["replace"],
];

/// Cases that are under way at once.
const AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn every_change_by_kubectl_works_as_without_the_sidecar() {
    on_stage("matrix", async |_, namespace| {
        let cases =
            TOOLS.iter().enumerate().flat_map(|case| CHANGES.iter().map(move |change| (case, change)));
        let run = |((at, tool), change): ((usize, &'static &'static [&'static str]), &'static Change)| {
            one(namespace, tool, change, format!("t{at}-{}", change.name))
        };
        let compared = stream::iter(cases).map(run).buffer_unordered(AT_ONCE).count().await;
        assert_eq!(compared, TOOLS.len() * CHANGES.len());
    })
    .await;
}

/// The same change, of a Deployment with a sidecar and of one without.
async fn one(namespace: &Namespace, tool: &[&str], change: &Change, name: String) {
    assert!(APPLICATION.contains(change.text), "{}: the manifest has no {:?}", change.name, change.text);
    let (name, plain) = (name.as_str(), format!("{name}-plain"));
    let manifest = |name: &str, text: &str| text.replace("name: orders\n", &format!("name: {name}\n"));
    let changed = APPLICATION.replacen(change.text, change.new, 1);
    let first = if tool[0] == "replace" { &["create"][..] } else { tool };
    for name in [name, &plain] {
        bring(namespace, first, &manifest(name, APPLICATION)).await;
    }
    namespace.apply(&[QUEUE, CONSUMER].join("---").replace("name: orders", &format!("name: {name}"))).await;
    settled(namespace, name).await;
    for name in [name, &plain] {
        bring(namespace, tool, &manifest(name, &changed)).await;
    }
    let with = until_injected(namespace, name, true).await;
    let without = namespace.api::<Deployment>().get(&plain).await.unwrap();
    assert_eq!(comparable(&with), comparable(&without), "{} by {tool:?}", change.name);
    assert!(!init_containers(&without).contains(&"capstan"));
    namespace.api::<Consumer>().delete(name, &DeleteParams::default()).await.unwrap();
    let with = until_injected(namespace, name, false).await;
    assert_eq!(comparable(&with), comparable(&without), "{} by {tool:?}, afterwards", change.name);
}

/// Waits for the sidecar, and for the Deployment's own controller: `kubectl replace` reads, then writes, and fails when
/// anybody writes in between.
async fn settled(namespace: &Namespace, name: &str) {
    until_injected(namespace, name, true).await;
    let check = |deployment: &Deployment| {
        let observed = deployment.status.as_ref().and_then(|status| status.observed_generation);
        if observed == deployment.metadata.generation { Ok(()) } else { Err(format!("{observed:?}")) }
    };
    namespace.wait_for::<Deployment>(name, "was seen by its controller", SHORT, check).await;
}

async fn bring(namespace: &Namespace, tool: &[&str], manifest: &str) {
    let arguments = [&["-n", namespace.name.as_str()], tool, &["-f", "-"]].concat();
    let done = tool::execute("kubectl", &arguments, Some(manifest)).await;
    done.unwrap_or_else(|error| panic!("kubectl {tool:?}: {error}\n{manifest}"));
}

/// What two Deployments have in common when they were made in the same way.
fn comparable(deployment: &Deployment) -> serde_json::Value {
    let mut value = without_sidecar(deployment);
    let metadata = value["metadata"].as_object_mut().unwrap();
    for name in ["name", "uid", "creationTimestamp"] {
        metadata.remove(name);
    }
    metadata["annotations"]
        .as_object_mut()
        .unwrap()
        .remove("kubectl.kubernetes.io/last-applied-configuration");
    value
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
