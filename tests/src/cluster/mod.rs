//! What tests against a cluster share: tools, waiting, namespaces, ways into pods, and what is told when a test fails.
//!
//! The cluster itself is started by `cargo xtask test`, which tells where it is (`KUBECONFIG`) and where the tools are
//! (`CAPSTAN_TEST_BIN`). With `CAPSTAN_TEST_CLUSTER=existing` it is somebody's own: pods are then reached through the API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod app;
mod broker;
mod control_plane;
mod failure;
mod install;
mod keda;
mod ledger;
mod namespace;
mod outage;
mod process;
mod producer;
mod reach;
pub mod tool;
mod wait;

pub use app::{Handled, handled};
pub use broker::{BrokerAccess, order};
pub use control_plane::{API_SERVER, ControlPlane, ETCD};
pub use install::{DEFINITIONS, NAMESPACE as OPERATOR_NAMESPACE, Turn, chart};
pub use keda::Keda;
pub use ledger::{APPLICATION_IMAGE, Entries, ledger, ledger_with};
pub use namespace::{Namespace, condition};
pub use outage::{OUT_OF_SERVICE, Outage, Undone};
pub use process::{is_local, kill_container};
pub use producer::Producer;
pub use wait::{LONG, SHORT, until};

use std::sync::Arc;

use reach::Reach;

/// A connection to the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    pub client: kube::Client,
    reach: Arc<Reach>,
}

impl Cluster {
    /// Connects to the cluster of `KUBECONFIG`.
    pub async fn connect() -> Self {
        assert!(
            std::env::var_os("KUBECONFIG").is_some(),
            "KUBECONFIG is not set: these tests need a cluster; `cargo xtask test --level node` starts one and runs them"
        );
        let client = kube::Client::try_default().await.expect("KUBECONFIG names no usable cluster");
        let version = client.apiserver_version().await.expect("the cluster does not answer");
        println!("cluster: Kubernetes {}", version.git_version);
        Self { client: client.clone(), reach: Arc::new(Reach::new(client, is_existing())) }
    }
}

/// Whether the cluster is somebody's own, rather than started for this run.
pub fn is_existing() -> bool {
    std::env::var("CAPSTAN_TEST_CLUSTER").is_ok_and(|cluster| cluster == "existing")
}
