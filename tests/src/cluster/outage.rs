//! A node that is lost for a while: cut off from the network, without power, and back again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::PathBuf;
use std::process::Command;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use kube::Api;

use super::{Cluster, LONG, OPERATOR_NAMESPACE, tool, until};

/// What a user puts on a node that is surely off, so that its pods and volumes can go elsewhere.
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";

/// A node that is away. Dropped, also when a test fails, it comes back, so that the next test has all nodes.
pub struct Outage {
    cluster: Cluster,
    node: String,
    is_off: bool,
}

impl Outage {
    /// Takes a node off the network. What runs on it goes on running, and reaches nobody.
    ///
    /// # Panics
    /// When the cluster is somebody's own, or the node is the first: the control plane and the tests are there.
    pub fn cut(cluster: &Cluster, node: &str) -> Self {
        println!("{node} is cut off from the network");
        let outage = Self { cluster: cluster.clone(), node: node.to_owned(), is_off: false };
        outage.command("isolate").unwrap_or_else(|error| panic!("{error}"));
        outage
    }

    /// Ends all that runs on the node, as whoever is to make sure that it is off does.
    ///
    /// # Panics
    /// When something goes on running.
    pub fn power_off(&mut self) {
        println!("{}'s power is cut", self.node);
        self.is_off = true;
        self.command("power-off").unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until the API server counts the node as lost.
    pub async fn until_noticed(&self) {
        let node = &self.node;
        let nodes: Api<Node> = Api::all(self.cluster.client.clone());
        until(&format!("{node} is NotReady"), LONG, async || {
            let ready = ready(&nodes, node).await?;
            if ready == "True" { Err("it is Ready".to_owned()) } else { Ok(()) }
        })
        .await;
    }

    /// Brings the node back, and waits until it is Ready and the operators are.
    pub async fn end(self) {
        let (cluster, node) = (self.cluster.clone(), self.node.clone());
        drop(self);
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        until(&format!("{node} is Ready"), LONG, async || match ready(&nodes, &node).await?.as_str() {
            "True" => Ok(()),
            other => Err(format!("Ready is {other}")),
        })
        .await;
        let deployments: Api<Deployment> = Api::namespaced(cluster.client, OPERATOR_NAMESPACE);
        until("the operators are ready", LONG, async || {
            let found = deployments.get("capstan").await.map_err(|error| error.to_string())?;
            let ready = found.status.and_then(|status| status.ready_replicas);
            if ready == found.spec.replicas { Ok(()) } else { Err(format!("{ready:?} are")) }
        })
        .await;
    }

    /// Tells the cluster's own tool what to do with the node.
    fn command(&self, action: &str) -> Result<(), String> {
        let program = std::env::var_os("CAPSTAN_TEST_XTASK").map(PathBuf::from);
        let program =
            program.ok_or("nodes of this cluster cannot be lost: choose other tests by a filter")?;
        let number = self.node.rsplit('-').next().unwrap_or_default();
        println!("$ xtask cluster {action} {number}");
        let output = Command::new(program).args(["cluster", action, number]).output();
        let output = output.map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{action} of {}: {}", self.node, String::from_utf8_lossy(&output.stderr)))
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        println!("{} comes back", self.node);
        let on = if self.is_off { self.command("power-on") } else { Ok(()) };
        for result in [on, self.command("rejoin")] {
            if let Err(error) = result {
                println!("{error}");
            }
        }
    }
}

async fn ready(nodes: &Api<Node>, name: &str) -> Result<String, String> {
    let node = nodes.get(name).await.map_err(|error| error.to_string())?;
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    let ready = conditions.into_iter().find(|one| one.type_ == "Ready");
    Ok(ready.map_or_else(String::new, |ready| ready.status))
}

/// A change of nodes that a test undoes at its end, also when it fails.
pub struct Undone(Vec<String>);

impl Undone {
    /// Labels nodes with `KEY=VALUE`.
    pub async fn label(nodes: &[&str], label: &str) -> Self {
        Self::mark("label", nodes, label).await
    }

    /// Taints a node with `KEY=VALUE:EFFECT`.
    pub async fn taint(node: &str, taint: &str) -> Self {
        Self::mark("taint", &[node], taint).await
    }

    /// `kubectl drain`, and afterwards `uncordon`.
    pub async fn drain(node: &str) -> Self {
        let undone = Self(["uncordon", node].map(str::to_owned).to_vec());
        let drain = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout", "240s"];
        print!("{}", tool::run("kubectl", &drain).await);
        undone
    }

    async fn mark(verb: &str, nodes: &[&str], mark: &str) -> Self {
        let end = mark.find(['=', ':']).unwrap_or(mark.len());
        let undo = [&[verb, "node"], nodes].concat().into_iter().map(str::to_owned);
        let undone = Self(undo.chain([format!("{}-", &mark[..end])]).collect());
        tool::run("kubectl", &[&[verb, "node"], nodes, &[mark, "--overwrite"]].concat()).await;
        undone
    }
}

impl Drop for Undone {
    fn drop(&mut self) {
        println!("$ kubectl {}", self.0.join(" "));
        let ended = Command::new(tool::path("kubectl")).args(&self.0).output();
        if !ended.is_ok_and(|output| output.status.success()) {
            println!("it failed");
        }
    }
}
