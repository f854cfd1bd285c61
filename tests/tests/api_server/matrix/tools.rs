//! How users bring manifests into the cluster, and change what is there.

use e2e::cluster::{Namespace, SHORT, tool, until};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ListParams;

use super::changes::{CHANGES, manifests, plain};
use super::revisions;

/// A tool of users.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tool {
    /// kubectl with these arguments.
    Kubectl(&'static [&'static str]),
    /// kubectl replace.
    Replace,
    /// kubectl apply, and then back to the revision before.
    Undo,
    /// helm upgrade, by this program.
    Upgrade(&'static str),
    /// helm upgrade, and then helm rollback.
    Rollback(&'static str),
}

pub(super) const TOOLS: [Tool; 9] = [
    Tool::Kubectl(&["apply"]),
    Tool::Kubectl(&["apply", "--server-side"]),
    Tool::Kubectl(&["apply", "--server-side", "--field-manager=flux"]),
    Tool::Replace,
    Tool::Undo,
    Tool::Upgrade("helm3"),
    Tool::Rollback("helm3"),
    Tool::Upgrade("helm"),
    Tool::Rollback("helm"),
];

impl Tool {
    /// Creates all Deployments.
    pub(super) async fn create(self, namespace: &Namespace, round: usize, chart: &std::path::Path) {
        match self {
            Self::Kubectl(arguments) => kubectl(namespace, arguments, (round, false)).await.unwrap(),
            Self::Replace => kubectl(namespace, &["create"], (round, false)).await.unwrap(),
            Self::Undo => kubectl(namespace, &["apply"], (round, false)).await.unwrap(),
            Self::Upgrade(helm) | Self::Rollback(helm) => {
                release(namespace, helm, chart, (round, false)).await;
            }
        }
    }

    /// Changes all of them. No request may be refused.
    pub(super) async fn change(self, namespace: &Namespace, round: usize, chart: &std::path::Path) {
        match self {
            Self::Kubectl(arguments) => kubectl(namespace, arguments, (round, true)).await.unwrap(),
            Self::Replace => replace(namespace, round).await,
            Self::Undo => {
                let before = revisions(namespace).await;
                kubectl(namespace, &["apply"], (round, true)).await.unwrap();
                until_settled(namespace).await;
                for change in CHANGES.iter().filter(|change| change.changes_template()) {
                    for name in [change.name(round), plain(&change.name(round))] {
                        // By its number: where a change took the sidecar out of the template too, its return may be a revision
                        // of its own by now.
                        let (deployment, to) =
                            (format!("deployment/{name}"), format!("--to-revision={}", before[&name]));
                        namespace.kubectl(&["rollout", "undo", &deployment, &to]).await;
                    }
                }
            }
            Self::Upgrade(helm) => release(namespace, helm, chart, (round, true)).await,
            Self::Rollback(helm) => {
                release(namespace, helm, chart, (round, true)).await;
                until_settled(namespace).await;
                tool::run(helm, &["-n", &namespace.name, "rollback", "matrix", "1"]).await;
            }
        }
    }
}

async fn kubectl(
    namespace: &Namespace,
    arguments: &[&str],
    (round, is_changed): (usize, bool),
) -> Result<(), String> {
    let arguments = [&["-n", namespace.name.as_str()], arguments, &["-f", "-"]].concat();
    tool::execute("kubectl", &arguments, Some(&manifests(round, is_changed))).await.map(drop)
}

/// kubectl reads, then writes, and says so when anybody wrote in between, such as the Deployment's own controller; whoever
/// gets this runs it again. Anything else is a refusal.
async fn replace(namespace: &Namespace, round: usize) {
    until("kubectl replace meets no other write", SHORT, async || {
        match kubectl(namespace, &["replace"], (round, true)).await {
            Err(error) if error.lines().all(is_conflict) => Err(error),
            Err(error) => panic!("{error}"),
            Ok(()) => Ok(()),
        }
    })
    .await;
}

fn is_conflict(line: &str) -> bool {
    !line.contains("rror") || line.contains("the object has been modified")
}

async fn release(
    namespace: &Namespace,
    helm: &str,
    chart: &std::path::Path,
    (round, is_changed): (usize, bool),
) {
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    std::fs::write(chart.join("Chart.yaml"), "apiVersion: v2\nname: matrix\nversion: 0.1.0\n").unwrap();
    std::fs::write(chart.join("templates/all.yaml"), manifests(round, is_changed)).unwrap();
    let chart = chart.to_str().unwrap();
    tool::run(helm, &["-n", &namespace.name, "upgrade", "--install", "matrix", chart]).await;
}

/// Waits until every Deployment's own controller has seen it.
pub(super) async fn until_settled(namespace: &Namespace) {
    until("the controller has seen all Deployments", SHORT, async || {
        let all =
            namespace.api::<Deployment>().list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        let behind = |one: &&Deployment| {
            let status = one.status.clone().unwrap_or_default();
            let wanted = one.spec.replicas.unwrap_or(1);
            status.observed_generation != one.metadata.generation || status.updated_replicas != Some(wanted)
        };
        let left: Vec<_> =
            all.items.iter().filter(behind).filter_map(|one| one.metadata.name.clone()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("not {left:?}")) }
    })
    .await;
}
