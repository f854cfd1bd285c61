//! An operator that works in some namespaces only, with rights nowhere else.

use capstan_crds::{Consumer, Queue};
use e2e::cluster::{LONG, Namespace, SHORT, tool, until};
use k8s_openapi::api::apps::v1::Deployment;

use crate::fixture::{APPLICATION, CONSUMER, QUEUE, init_containers, until_condition, until_injected};
use crate::stage::{Stage, clear, on_stage, render};

async fn another(stage: &Stage, name: &str) -> Namespace {
    let name = format!("{name}-{:08x}", rand::random::<u32>());
    tool::run("kubectl", &["create", "namespace", &name]).await;
    Namespace { cluster: stage.cluster.clone(), name }
}

/// The chart's roles for some namespaces.
async fn grant(release: &str, system: &str, namespaces: &[&str]) {
    let watched = format!("--set=watchNamespaces={{{}}},rbac.clusterScoped=false", namespaces.join(","));
    let roles = render(release, system, &["--show-only=templates/rbac.yaml", &watched]).await;
    assert!(!roles.contains("kind: Cluster"), "nothing of the cluster is asked for: {roles}");
    tool::execute("kubectl", &["apply", "--server-side", "-f", "-"], Some(&roles)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_that_are_not_named_are_left_alone() {
    on_stage("named", async |stage, named| {
        stage.operator.stop();
        let (other, later) = (another(stage, "other").await, another(stage, "later").await);
        let release = named.name.clone();
        grant(&release, &named.name, &[&named.name]).await;
        let account = format!("system:serviceaccount:{}:{release}-capstan", named.name);
        let kubeconfig = stage.kubeconfig_as(&account).await;
        let all = [QUEUE, CONSUMER, APPLICATION].join("---");
        other.apply(&all).await;
        later.apply(&all).await;
        named.apply(&all).await;
        // One of the namespaces that it is told of has no role, as when it was deleted and made again.
        let watched = format!("{},{}", later.name, named.name);
        let settings = [
            ("KUBECONFIG", kubeconfig.as_str()),
            ("CAPSTAN_WATCH_NAMESPACES", &watched),
            ("CAPSTAN_LEASE_NAMESPACE", &named.name),
            ("CAPSTAN_POD", "only"),
        ];
        let mut operator = stage.another_operator(&settings).await;
        until_condition::<Consumer>(named, "orders", ("Ready", "True", "AsDeclared")).await;
        until_injected(named, "orders", true).await;
        assert!(operator.has_logged("whether the definitions are new enough is not known"));
        // By the one right of the cluster that is asked for here.
        let without = operator.log_of("the operator does without a right that it was not granted");
        assert_eq!(without.len(), 1, "{without:?}");
        assert_eq!(without[0]["resource"], "customresourcedefinitions.apiextensions.k8s.io");
        assert_eq!(operator.get("/readyz").await.unwrap().0, 200);
        let watched: Vec<_> = operator.log_of("watch interrupted");
        assert!(watched.iter().any(|said| said["namespace"] == later.name), "{watched:?}");
        for untouched in [&other, &later] {
            let queue = untouched.api::<Queue>().get("orders").await.unwrap();
            assert!(queue.status.is_none(), "{:?}", queue.status);
            let deployment = untouched.api::<Deployment>().get("orders").await.unwrap();
            assert_eq!(init_containers(&deployment), ["first"]);
            assert_eq!(untouched.kubectl(&["get", "capb,statefulsets", "-o", "name"]).await, "");
        }
        // It would be told to a broker that serves another namespace here.
        named.kubectl(&["delete", "capc,capq,capb", "--all"]).await;
        grant(&release, &named.name, &[&named.name, &later.name]).await;
        // What is refused again and again is tried ever more seldom, up to a minute.
        let has_sidecar = |deployment: &Deployment| {
            let found = init_containers(deployment);
            if found.contains(&"capstan") { Ok(()) } else { Err(format!("{found:?}")) }
        };
        later.wait_for::<Deployment>("orders", "has the sidecar", LONG, has_sidecar).await;
        let list = ["-n", &other.name, "get", "capb,statefulsets", "-o", "name"];
        assert_eq!(tool::run("kubectl", &list).await, "", "still");
        until("what is served is of these namespaces", SHORT, async || {
            let (_, text) = operator.get("/metrics").await?;
            let count = "capstan_operator_objects{kind=\"Deployment\"} 2";
            if text.contains(count) { Ok(()) } else { Err("another number of Deployments".to_owned()) }
        })
        .await;
        operator.stop();
        clear_all(&[&other, &later, named]).await;
    })
    .await;
}

/// All at once: each waits until the cluster has nothing left.
async fn clear_all(namespaces: &[&Namespace]) {
    futures::future::join_all(namespaces.iter().map(|namespace| clear(namespace))).await;
}
