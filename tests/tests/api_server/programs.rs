//! The operator's program beside reconciling: what it asks of the definitions, `check`, and `uninstall`.

use std::panic::{AssertUnwindSafe, resume_unwind};

use capstan_crds::Consumer;
use e2e::cluster::{SHORT, tool, until};
use futures::FutureExt;
use serde_json::Value;
use tokio::process::Command;

use crate::fixture::{APPLICATION, CONSUMER, QUEUE, until_condition, until_injected, without_sidecar};
use crate::stage::{SYSTEM, install, on_stage, operator, render};

/// The account of the Job that the chart `leaving` makes.
const LEAVING: &str = "system:serviceaccount:capstan-system:leaving-capstan-uninstall";

/// Runs the program with an argument; whether it ended well, and all that it printed.
async fn run(argument: &str, settings: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new(operator());
    command.arg(argument).envs(settings.iter().copied()).env("CAPSTAN_LOG", "info").kill_on_drop(true);
    let output = tokio::time::timeout(SHORT, command.output()).await.expect("it ends").unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    println!("{text}");
    (output.status.success(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_lack_a_field_are_waited_for_and_the_chart_is_named() {
    on_stage("definitions", async |stage, _| {
        stage.operator.stop();
        let field = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/sidecar/properties/outdated";
        let patch = format!(r#"[{{"op":"remove","path":"{field}"}}]"#);
        tool::run("kubectl", &["patch", "crd", "consumers.capstan.dev", "--type=json", "-p", &patch]).await;
        // Whatever comes of it, the next test finds the definitions as they should be.
        let elected = [("CAPSTAN_LEASE_NAMESPACE", SYSTEM), ("CAPSTAN_POD", "old")];
        let mut old = stage.hopeful_operator(&elected);
        let said = AssertUnwindSafe(async {
            let complaint = "the CustomResourceDefinition consumers.capstan.dev lacks status.sidecar.outdated: upgrade the chart capstan-crds";
            old.until_logged(complaint).await;
            let (status, text) = old.get("/readyz").await.unwrap();
            assert_eq!((status, text.trim()), (503, complaint));
            assert_eq!(old.get("/healthz").await.unwrap().0, 200, "it is not restarted for it");
            let get = ["-n", SYSTEM, "get", "lease", "capstan-operator", "--ignore-not-found", "-o", "jsonpath={.spec.holderIdentity}"];
            assert_ne!(tool::run("kubectl", &get).await, "old", "who cannot work does not take the Lease");
            let kubeconfig = stage.kubeconfig().display().to_string();
            let (is_well, text) = run("check", &[("KUBECONFIG", &kubeconfig)]).await;
            assert!(!is_well && text.contains(complaint), "{text}");
        })
        .catch_unwind()
        .await;
        install(&stage.cluster).await;
        said.unwrap_or_else(|panic| resume_unwind(panic));
        old.until_logged("active").await;
        assert!(old.is_alive());
        old.stop();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_whether_the_operator_can_do_its_work() {
    on_stage("check", async |stage, namespace| {
        let kubeconfig = stage.kubeconfig().display().to_string();
        let settings = [("KUBECONFIG", kubeconfig.as_str()), ("CAPSTAN_LEASE_NAMESPACE", SYSTEM)];
        stage.restart_operator(&[("CAPSTAN_LEASE_NAMESPACE", SYSTEM), ("CAPSTAN_POD", "checked")]).await;
        stage.operator.until_logged("active").await;
        let (is_well, text) = run("check", &settings).await;
        assert!(is_well && !text.contains("problem:"), "{text}");
        assert!(text.contains("the active operator is checked") && text.contains("every field"), "{text}");
        stage.operator.stop();
        let (is_well, text) = run("check", &settings).await;
        assert!(!is_well && text.contains("no operator is active"), "{text}");
        // An account without any right.
        let nobody = stage.kubeconfig_as("nobody").await;
        let watched = ("CAPSTAN_WATCH_NAMESPACES", namespace.name.as_str());
        let (is_well, text) = run("check", &[("KUBECONFIG", &nobody), watched]).await;
        let complaint = format!(
            "problem: the operator may not patch queues/status.capstan.dev in namespace {}",
            namespace.name
        );
        assert!(!is_well && text.contains(&complaint), "{complaint}: {text}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uninstall_takes_the_sidecars_back_and_never_fails() {
    on_stage("uninstall", async |stage, namespace| {
        namespace.apply(APPLICATION).await;
        let before = until_injected(namespace, "orders", false).await;
        namespace.apply(&[QUEUE, CONSUMER].join("---")).await;
        until_condition::<Consumer>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        until_injected(namespace, "orders", true).await;
        stage.operator.stop();
        allow().await;
        let kubeconfig = stage.kubeconfig_as(LEAVING).await;
        let (is_well, text) = run("uninstall", &[("KUBECONFIG", &kubeconfig)]).await;
        assert!(is_well && text.contains("\"back\":1") && text.contains("\"left\":0"), "{text}");
        let after = until_injected(namespace, "orders", false).await;
        assert_eq!(without_sidecar(&after), without_sidecar(&before), "only the sidecar is gone");
        // Neither an account without rights nor an API server that is away is a failure.
        let nobody = stage.kubeconfig_as("nobody").await;
        let (is_well, text) = run("uninstall", &[("KUBECONFIG", &nobody)]).await;
        assert!(is_well && text.contains("not looked for"), "{text}");
        let (is_well, _) =
            run("uninstall", &[("KUBECONFIG", "/nowhere"), ("KUBERNETES_SERVICE_HOST", "")]).await;
        assert!(is_well);
    })
    .await;
}

/// The rights of the chart's Job.
async fn allow() {
    let shown = ["--show-only=templates/uninstall.yaml", "--set=uninstall.removeSidecars=true"];
    let text = render("leaving", SYSTEM, &shown).await;
    let documents = serde_yaml::Deserializer::from_str(&text);
    let objects: Vec<Value> = documents.map(|one| serde::Deserialize::deserialize(one).unwrap()).collect();
    let is_role =
        |object: &&Value| object["kind"].as_str().is_some_and(|kind| kind.starts_with("ClusterRole"));
    let items: Vec<_> = objects.iter().filter(is_role).collect();
    assert_eq!(items.len(), 2, "{text}");
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    tool::execute("kubectl", &["apply", "--server-side", "-f", "-"], Some(&list)).await.unwrap();
    until("the Job's account may list", SHORT, async || {
        let arguments =
            ["auth", "can-i", "list", "deployments", "--all-namespaces", &format!("--as={LEAVING}")];
        tool::execute("kubectl", &arguments, None).await.map(|_| ())
    })
    .await;
}
