//! Capstan in the cluster: installed once, by the charts, for whoever's turn it is.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

use super::{Cluster, tool};

/// Where the operator is installed.
pub const NAMESPACE: &str = "capstan-system";

/// The definitions of our kinds.
pub const DEFINITIONS: [&str; 3] = ["brokers.capstan.dev", "consumers.capstan.dev", "queues.capstan.dev"];

/// The resource definitions and roles belong to the whole cluster: one test at a time.
static TURN: Mutex<()> = Mutex::const_new(());
static IS_INSTALLED: AtomicBool = AtomicBool::new(false);

/// The right to use the installed Capstan.
pub struct Turn {
    _guard: MutexGuard<'static, ()>,
}

impl Turn {
    /// Waits for the turn and sees to it that Capstan is installed, by Helm 4.
    pub async fn installed(cluster: &Cluster) -> Self {
        let turn = Self { _guard: TURN.lock().await };
        if !IS_INSTALLED.load(Ordering::Relaxed) {
            turn.install(cluster, "helm").await;
        }
        turn
    }

    /// Waits for the turn and sees to it that Capstan is not installed; its resource definitions may be there.
    pub async fn uninstalled(cluster: &Cluster) -> Self {
        let turn = Self { _guard: TURN.lock().await };
        turn.prepare(cluster).await;
        let releases = ["list", "--namespace", NAMESPACE, "--short"];
        for release in tool::run("helm", &releases).await.lines() {
            turn.uninstall("helm", release).await;
        }
        turn
    }

    /// Installs or upgrades both charts, and waits until the operator runs.
    pub async fn install(&self, cluster: &Cluster, helm: &str) {
        // Values of a release that is upgraded would else stay.
        self.upgrade(cluster, helm, chart, &["--reset-values"]).await;
        IS_INSTALLED.store(true, Ordering::Relaxed);
    }

    /// Installs the release before this one, as it was when nothing newer was known to the cluster.
    ///
    /// # Panics
    /// When it was not built, or does not start.
    pub async fn install_previous(&self, cluster: &Cluster) {
        let folder = std::env::var_os("CAPSTAN_TEST_PREVIOUS").map(PathBuf::from);
        let folder = folder.filter(|folder| folder.exists());
        let folder = folder.expect("the release before is not there: cargo xtask images --previous");
        let delete = ["delete", "crd", "--ignore-not-found", "--timeout=120s"];
        tool::run("kubectl", &[&delete[..], &DEFINITIONS].concat()).await;
        let images = ["operator", "broker", "sidecar"].map(|name| format!("images.{name}.tag=previous"));
        let chart = |name: &str| folder.join(name).display().to_string();
        let values = format!("--set={}", images.join(","));
        self.upgrade(cluster, "helm", chart, &[&values]).await;
    }

    async fn upgrade(&self, cluster: &Cluster, helm: &str, chart: impl Fn(&str) -> String, values: &[&str]) {
        self.prepare(cluster).await;
        for name in ["capstan-crds", "capstan"] {
            let (chart, values) = (chart(name), if name == "capstan" { values } else { &[] });
            let upgrade = ["upgrade", "--install", name, &chart, "--namespace", NAMESPACE];
            let wait = ["--wait", "--timeout", "4m"];
            println!("{}", tool::run(helm, &[&upgrade[..], values, &wait].concat()).await);
        }
    }

    /// Uninstalls a release and waits until what it made is gone.
    pub async fn uninstall(&self, helm: &str, release: &str) {
        IS_INSTALLED.store(false, Ordering::Relaxed);
        let uninstall = ["uninstall", release, "--namespace", NAMESPACE, "--wait", "--timeout", "4m"];
        println!("{}", tool::run(helm, &uninstall).await);
    }

    /// The operator's namespace enforces the strictest Pod Security.
    async fn prepare(&self, cluster: &Cluster) {
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}});
        namespaces.patch(NAMESPACE, &PatchParams::apply("e2e"), &Patch::Apply(&object)).await.unwrap();
    }
}

/// The folder of a chart of this repository.
#[must_use]
pub fn chart(name: &str) -> String {
    tool::root().join("charts").join(name).display().to_string()
}
