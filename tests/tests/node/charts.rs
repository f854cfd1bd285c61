//! The charts themselves: with Helm 3 as with Helm 4, refusing what cannot work, asking for no more than the operator needs.

use e2e::cluster::{Cluster, LONG, Namespace, OPERATOR_NAMESPACE, Turn, chart, tool};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;

use crate::fixture::{apply_all, is_rolled_out, sidecar, until_consuming};

const HELMS: [&str; 2] = ["helm", "helm3"];
const CHARTS: [&str; 2] = ["capstan-crds", "capstan"];
/// The oldest Kubernetes the charts take.
const OLDEST: &str = "--kube-version=1.29.0";

#[tokio::test]
async fn both_helms_find_nothing_wrong_and_render_the_same() {
    for name in CHARTS {
        let chart = chart(name);
        let mut rendered = Vec::new();
        for helm in HELMS {
            tool::run(helm, &["lint", "--strict", &chart]).await;
            let text = tool::run(helm, &["template", "capstan", &chart, OLDEST]).await;
            rendered
                .push(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>());
        }
        assert!(rendered[0].len() > 100, "{name} renders to {} lines", rendered[0].len());
        assert_eq!(rendered[0], rendered[1], "{name}");
    }
}

#[tokio::test]
async fn the_charts_are_of_the_programs_version() {
    for name in CHARTS {
        let printed = tool::run("helm", &["show", "chart", &chart(name)]).await;
        let text: serde_json::Value = serde_yaml::from_str(&printed).unwrap();
        for field in ["version", "appVersion"] {
            assert_eq!(text[field], env!("CARGO_PKG_VERSION"), "{name}: {field}");
        }
    }
}

#[tokio::test]
async fn values_that_cannot_work_are_refused_by_name() {
    for (value, complaint) in [
        ("replicas=0", "replicas"),
        ("replicas=two", "replicas"),
        ("image.operator.tag=1", "image"),
        ("images.operator.pullPolicy=Sometimes", "pullPolicy"),
        ("images.registry=registry.example/", "registry"),
        ("serviceAccount.create=false", "serviceAccount"),
    ] {
        for helm in HELMS {
            let arguments = ["template", "capstan", &chart("capstan"), OLDEST, "--set", value];
            let error = tool::execute(helm, &arguments, None).await.expect_err(value);
            assert!(error.contains(complaint), "{helm} --set {value}: {error}");
        }
    }
}

#[tokio::test]
async fn helm_3_installs_upgrades_and_uninstalls() {
    let cluster = Cluster::connect().await;
    let turn = Turn::uninstalled(&cluster).await;
    turn.install(&cluster, "helm3").await;
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(cluster.client.clone(), OPERATOR_NAMESPACE);
    assert!(budgets.get_opt("capstan").await.unwrap().is_some(), "two replicas have a budget");

    let chart = chart("capstan");
    let upgrade =
        ["upgrade", "capstan", &chart, "--namespace", OPERATOR_NAMESPACE, "--set", "replicas=1,log=debug"];
    tool::run("helm3", &[&upgrade[..], &["--wait", "--timeout", "4m"]].concat()).await;
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), OPERATOR_NAMESPACE);
    let upgraded = deployments.get("capstan").await.unwrap();
    assert_eq!(upgraded.status.and_then(|status| status.ready_replicas), Some(1));
    assert!(budgets.get_opt("capstan").await.unwrap().is_none(), "one replica has none");

    for release in ["capstan", "capstan-crds"] {
        turn.uninstall("helm3", release).await;
    }
    assert!(deployments.get_opt("capstan").await.unwrap().is_none());
}

#[tokio::test]
async fn helm_test_passes_where_capstan_works() {
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    for helm in HELMS {
        let printed =
            tool::run(helm, &["test", "capstan", "--namespace", OPERATOR_NAMESPACE, "--timeout", "4m"]).await;
        assert!(printed.contains("capstan-check") && printed.contains("Succeeded"), "{printed}");
    }
}

#[tokio::test]
async fn an_uninstall_takes_the_sidecars_back_when_it_is_told_to() {
    let cluster = Cluster::connect().await;
    let turn = Turn::installed(&cluster).await;
    Namespace::run(&cluster, "leaving", async |namespace| {
        apply_all(namespace).await;
        until_consuming(namespace, "orders", "orders").await;
        let chart = chart("capstan");
        let upgrade = ["upgrade", "capstan", &chart, "--namespace", OPERATOR_NAMESPACE];
        let told = ["--set", "uninstall.removeSidecars=true", "--wait", "--timeout", "4m"];
        tool::run("helm", &[&upgrade[..], &told].concat()).await;
        turn.uninstall("helm", "capstan").await;
        namespace
            .wait_for::<Deployment>("orders", "runs without the sidecar", LONG, |deployment| {
                if sidecar(deployment).is_some() {
                    Err("it has it".to_owned())
                } else {
                    is_rolled_out(deployment)
                }
            })
            .await;
        let left = ["--namespace", OPERATOR_NAMESPACE, "get", "jobs,serviceaccounts", "-o", "name"];
        let left =
            tool::run("kubectl", &[&left[..], &["-l", "app.kubernetes.io/name=capstan"]].concat()).await;
        assert_eq!(left, "", "what took them back is gone too");
        turn.install(&cluster, "helm").await;
    })
    .await;
}

#[tokio::test]
async fn the_operator_may_do_no_more_than_it_does() {
    let cluster = Cluster::connect().await;
    let _turn = Turn::installed(&cluster).await;
    let operator = format!("--as=system:serviceaccount:{OPERATOR_NAMESPACE}:capstan");
    for (verb, resource, may) in [
        ("patch", "deployments.apps", true),
        ("create", "statefulsets.apps", true),
        ("delete", "deployments.apps", false),
        ("delete", "queues.capstan.dev", false),
        ("get", "secrets", false),
        ("list", "secrets", false),
        ("create", "pods", false),
        ("create", "pods/exec", false),
        ("escalate", "clusterroles.rbac.authorization.k8s.io", false),
    ] {
        let arguments = ["auth", "can-i", verb, resource, &operator, "--namespace=default"];
        let (Ok(answer) | Err(answer)) = tool::execute("kubectl", &arguments, None).await;
        let says = if may { "yes" } else { "no" };
        assert!(answer.lines().any(|line| line.trim() == says), "{verb} {resource}: {answer}");
    }
}
