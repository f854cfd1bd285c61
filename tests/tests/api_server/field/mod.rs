//! An operator whose API server is behind a proxy and whose brokers are faked, for tests of many objects, and of failures.

mod fault;
mod insist;
mod objects;
mod plane;
mod proxy;
mod script;
mod snapshot;
mod traffic;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, resume_unwind};

use capstan_crds::{Broker, Consumer, Queue};
use e2e::cluster::{Cluster, ControlPlane, LONG, Namespace as TestNamespace, until};
use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::MutexGuard;

pub(crate) use self::fault::Fault;
pub(crate) use self::insist::insist;
pub(crate) use self::plane::Plane;
pub(crate) use self::proxy::Proxy;
pub(crate) use self::snapshot::compare;
pub(crate) use self::traffic::{Call, Count};
use crate::stage::{Operator, install_at, turn};

/// Requests of a test that are under way at once.
pub(crate) const AT_ONCE: usize = 32;

/// What such a test has for itself.
pub(crate) struct Field {
    pub(crate) cluster: Cluster,
    pub(crate) proxy: Proxy,
    pub(crate) plane: Plane,
    /// The namespaces of the test.
    pub(crate) namespaces: Vec<String>,
    folder: TempDir,
    _turn: Option<MutexGuard<'static, ()>>,
}

/// Runs a test with so many namespaces, and removes what it leaves.
pub(crate) async fn on_field(prefix: &str, namespaces: usize, test: impl AsyncFnOnce(&mut Field)) {
    let (turn, cluster, kubeconfig) = turn().await;
    let mut field = Field::open(Some(turn), cluster, &kubeconfig, prefix, namespaces).await;
    let result = AssertUnwindSafe(test(&mut field)).catch_unwind().await;
    field.clear().await;
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

/// Runs a test on a control plane of its own, with which everything goes. Operators ask it without the proxy.
pub(crate) async fn on_own_field(
    prefix: &str,
    namespaces: usize,
    test: impl AsyncFnOnce(&mut Field, &mut ControlPlane),
) {
    // The machine is for one test at a time, all the same.
    let (turn, _, _) = turn().await;
    run_on_own_field((prefix, namespaces), Some(turn), test).await;
}

/// The same beside other tests, for one that does little and takes long.
pub(crate) async fn beside_others(prefix: &str, test: impl AsyncFnOnce(&mut Field, &mut ControlPlane)) {
    run_on_own_field((prefix, 1), None, test).await;
}

async fn run_on_own_field(
    (prefix, namespaces): (&str, usize),
    turn: Option<MutexGuard<'static, ()>>,
    test: impl AsyncFnOnce(&mut Field, &mut ControlPlane),
) {
    let mut own = ControlPlane::start().await;
    let cluster = own.connect().await;
    install_at(&cluster, Some(&own.kubeconfig())).await;
    let kubeconfig = std::fs::read_to_string(own.kubeconfig()).unwrap();
    let mut field = Field::open(turn, cluster, &kubeconfig, prefix, namespaces).await;
    std::fs::write(field.folder.path().join("kubeconfig"), &kubeconfig).unwrap();
    test(&mut field, &mut own).await;
}

impl Field {
    async fn open(
        turn: Option<MutexGuard<'static, ()>>,
        cluster: Cluster,
        kubeconfig: &str,
        prefix: &str,
        namespaces: usize,
    ) -> Self {
        let (proxy, plane) = (Proxy::start(kubeconfig), Plane::start().await);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("kubeconfig"), proxy.kubeconfig(kubeconfig)).unwrap();
        let run = rand::random::<u32>();
        let namespaces = (0..namespaces).map(|number| format!("{prefix}-{run:08x}-{number}")).collect();
        let field = Self { cluster, proxy, plane, namespaces, folder, _turn: turn };
        let all: Api<Namespace> = Api::all(field.cluster.client.clone());
        field
            .each(&field.namespaces, async |name| {
                let object: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
                all.create(&PostParams::default(), &object).await.unwrap();
            })
            .await;
        field
    }

    /// Starts an operator, with more settings, and waits until it knows the cluster.
    pub(crate) async fn operator(&self, more: &[(&str, OsString)]) -> Operator {
        let operator = self.starting_operator(more);
        operator.until_logged("the cluster is known").await;
        operator
    }

    /// Starts an operator, with more settings.
    pub(crate) fn starting_operator(&self, more: &[(&str, OsString)]) -> Operator {
        let text = |name: &'static str, value: &str| (name, OsString::from(value));
        let mut settings = vec![
            ("KUBECONFIG", self.folder.path().join("kubeconfig").into_os_string()),
            text("CAPSTAN_LISTEN", "127.0.0.1:0"),
            text("CAPSTAN_BROKER_CONTROL_URL", &self.plane.url()),
            text("CAPSTAN_POLL_MS", "1000"),
            text("CAPSTAN_LOG", "info"),
        ];
        settings.extend(more.iter().cloned());
        Operator::spawn(&settings)
    }

    /// Does something with each, many at once.
    pub(crate) async fn each<'a, T>(&self, all: &'a [T], what: impl AsyncFn(&'a T)) {
        stream::iter(all).for_each_concurrent(AT_ONCE, |one| what(one)).await;
    }

    /// The first namespace.
    pub(crate) fn namespace(&self) -> TestNamespace {
        TestNamespace { cluster: self.cluster.clone(), name: self.namespaces[0].clone() }
    }

    /// The API of one kind in a namespace, for the test, beside the proxy.
    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client.clone(), namespace)
    }

    /// Deletes all objects of Capstan and waits until they are gone; the rest goes with the namespaces, which takes longer.
    async fn clear(&self) {
        let params = (DeleteParams::default(), ListParams::default());
        let all: Api<Namespace> = Api::all(self.cluster.client.clone());
        self.each(&self.namespaces, async |name| {
            let _ = self.api::<Consumer>(name).delete_collection(&params.0, &params.1).await;
            let _ = self.api::<Queue>(name).delete_collection(&params.0, &params.1).await;
            let _ = self.api::<Broker>(name).delete_collection(&params.0, &params.1).await;
            let _ = all.delete(name, &DeleteParams::background()).await;
        })
        .await;
        let (one, client) = (ListParams::default().limit(1), &self.cluster.client);
        until("the field is empty", LONG, async || {
            let queues = Api::<Queue>::all(client.clone()).list(&one).await.map_err(|e| e.to_string())?;
            let consumers =
                Api::<Consumer>::all(client.clone()).list(&one).await.map_err(|e| e.to_string())?;
            if queues.items.is_empty() && consumers.items.is_empty() { Ok(()) } else { Err(String::new()) }
        })
        .await;
    }
}
