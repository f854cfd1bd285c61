//! Every right of the operator is needed: without it the operator says which verb on what it lacks, and goes on.

use std::collections::BTreeSet;

use capstan_crds::Consumer;
use e2e::cluster::{Namespace, SHORT, tool, until};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::fixture::{APPLICATION, CONSUMER, QUEUE, message, until_condition};
use crate::stage::{BY_ADMISSION, Operator, Stage, on_stage, render};

/// Operators at once.
const AT_ONCE: usize = 6;

/// Rights that are not missed here, as nothing grows or is switched off: tests of Brokers need them, and every test whose
/// operator lacks a right fails.
const ELSEWHERE: [(&str, &str); 6] = [
    ("delete", "statefulsets.apps"),
    ("patch", "persistentvolumeclaims"),
    ("delete", "networkpolicies.networking.k8s.io"),
    // Of these the tests of scaling say that they are enough.
    ("patch", "pods"),
    ("patch", "deployments.apps/scale"),
    ("patch", "statefulsets.apps/scale"),
];

/// A verb on a resource, as the metrics name them.
type Right = (String, String);

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_lacks_a_right_says_which() {
    on_stage("rights", async |stage, _| {
        // Those of this test have a namespace each.
        stage.operator.stop();
        let mut rights = all_rights().await;
        for (verb, resource) in ELSEWHERE {
            assert!(rights.remove(&(verb.to_owned(), resource.to_owned())), "{verb} {resource} is no right");
        }
        assert!(rights.len() > 25, "{rights:?}");
        let stage = &*stage;
        let tests = rights.into_iter().map(async |right| without(stage, right).await);
        let said: Vec<()> = futures::stream::iter(tests).buffer_unordered(AT_ONCE).collect().await;
        println!("{} rights were missed", said.len());
    })
    .await;
}

/// The rules of the roles that the chart makes for one namespace.
async fn roles(release: &str, namespace: &str) -> Vec<Value> {
    let watch = format!("--set=watchNamespaces={{{namespace}}}");
    let text = render(release, namespace, &["--show-only=templates/rbac.yaml", &watch]).await;
    let documents = serde_yaml::Deserializer::from_str(&text);
    documents
        .map(|one| serde::Deserialize::deserialize(one).unwrap())
        .filter(|one: &Value| one.is_object())
        .collect()
}

/// Those of namespaces: it does without the others, which a role for the cluster has.
async fn all_rights() -> BTreeSet<Right> {
    let roles = roles("capstan", "shop").await;
    let of_namespaces = roles.iter().filter(|role| role["kind"] == "Role");
    let rules = of_namespaces.flat_map(|role| role["rules"].as_array().into_iter().flatten());
    rules.flat_map(rights_of).collect()
}

fn rights_of(rule: &Value) -> Vec<Right> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = |name: &str| rule[name].as_array().unwrap().iter().map(text).collect::<Vec<_>>();
    let group = list("apiGroups").remove(0);
    let name = |resource: &String| match resource.split_once('/') {
        _ if group.is_empty() => resource.clone(),
        Some((resource, subresource)) => format!("{resource}.{group}/{subresource}"),
        None => format!("{resource}.{group}"),
    };
    let verbs = list("verbs");
    let resources = list("resources");
    resources.iter().flat_map(|resource| verbs.iter().map(|verb| (verb.clone(), name(resource)))).collect()
}

/// A rule as one for each verb and resource, but the one.
fn cut(rule: &Value, right: &Right) -> Vec<Value> {
    let mut rules = Vec::new();
    for resource in rule["resources"].as_array().unwrap() {
        for verb in rule["verbs"].as_array().unwrap() {
            let mut one = rule.clone();
            (one["resources"], one["verbs"]) = (json!([resource]), json!([verb]));
            if rights_of(&one) != [right.clone()] {
                rules.push(one);
            }
        }
    }
    rules
}

/// Runs an operator with every right but one, and waits until it says so, and nothing else.
async fn without(stage: &Stage, right: Right) {
    let name = format!("without-{:08x}", rand::random::<u32>());
    let namespace = Namespace { cluster: stage.cluster.clone(), name: name.clone() };
    tool::run("kubectl", &["create", "namespace", &name]).await;
    let mut objects = roles(&name, &name).await;
    for object in &mut objects {
        if let Some(rules) = object["rules"].as_array() {
            object["rules"] = rules.iter().flat_map(|rule| cut(rule, &right)).collect();
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    tool::execute("kubectl", &["apply", "--server-side", "-f", "-"], Some(&list)).await.unwrap();
    let account = format!("system:serviceaccount:{name}:{name}-capstan");
    let operator = stage.hopeful_operator(&[
        ("KUBECONFIG", &stage.kubeconfig_as(&account).await),
        ("CAPSTAN_WATCH_NAMESPACES", &name),
        ("CAPSTAN_LEASE_NAMESPACE", &name),
        ("CAPSTAN_POD", "only"),
        // Each has a Broker of its own: none answers.
        ("CAPSTAN_BROKER_CONTROL_URL", "http://127.0.0.1:1"),
    ]);
    // A rollout that does not end: then pods are counted.
    let application = APPLICATION.replace("replicas: 0", "replicas: 1\n  paused: true");
    let consumer = format!("{CONSUMER}  scaling: {{maxReplicas: 2}}\n");
    namespace.apply(&[QUEUE, &consumer, &application].join("---")).await;
    if right == ("patch".to_owned(), "events.events.k8s.io".to_owned()) {
        repeat_an_event(&namespace, &application).await;
    }
    let (verb, resource) = &right;
    until(&format!("an operator without {verb} on {resource} says so"), SHORT, async || {
        let missing = missing(&operator).await?;
        let said = operator.lacks();
        let is_said = said.iter().any(|said| said["verb"] == *verb && said["resource"] == *resource);
        if is_said && missing.contains(&right) { Ok(()) } else { Err(format!("{missing:?}")) }
    })
    .await;
    assert_eq!(missing(&operator).await.unwrap(), BTreeSet::from([right.clone()]), "and nothing else");
    drop(operator);
    namespace.kubectl(&["delete", "capc,capq,capb", "--all"]).await;
    tool::run("kubectl", &["delete", "namespace", &name, "--wait=false"]).await;
    let delete =
        ["delete", "clusterrole,clusterrolebinding", &format!("{name}-capstan"), "--ignore-not-found"];
    tool::run("kubectl", &delete).await;
}

/// The roles that the chart makes with a value, and an operator of one namespace that has these alone, and a setting.
async fn of_chart(
    stage: &mut Stage,
    namespace: &Namespace,
    (value, setting): (&str, (&str, &str)),
) -> (String, Operator) {
    stage.operator.stop();
    let name = &namespace.name;
    let values = format!("--set=watchNamespaces={{{name}}},{value}");
    let roles = render(name, name, &["--show-only=templates/rbac.yaml", &values]).await;
    namespace.apply(&roles).await;
    let account = format!("system:serviceaccount:{name}:{name}-capstan");
    let settings = [
        ("KUBECONFIG", &*stage.kubeconfig_as(&account).await),
        ("CAPSTAN_WATCH_NAMESPACES", name),
        ("CAPSTAN_LEASE_NAMESPACE", name),
        ("CAPSTAN_POD", "only"),
        setting,
    ];
    let operator = stage.another_operator(&settings).await;
    (roles, operator)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_does_without_is_said_but_is_no_alarm() {
    on_stage("dispensable", async |stage, namespace| {
        // By a policy that it may not look at, as of a chart before.
        let (_, mut operator) = of_chart(stage, namespace, ("rbac.clusterScoped=false", BY_ADMISSION)).await;
        namespace.apply(&[QUEUE, CONSUMER, APPLICATION].join("---")).await;
        until_condition::<Consumer>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        let said = operator.log_of("the operator does without a right that it was not granted");
        let resources: Vec<&str> = said.iter().filter_map(|said| said["resource"].as_str()).collect();
        assert_eq!(
            resources,
            [
                "customresourcedefinitions.apiextensions.k8s.io",
                "mutatingadmissionpolicies.admissionregistration.k8s.io",
                "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
            ],
            "each once"
        );
        assert_eq!(missing(&operator).await.unwrap(), BTreeSet::new());
        assert!(operator.lacks().is_empty(), "{:?}", operator.lacks());
        operator.stop();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_may_not_scale_needs_no_right_for_it_and_says_so() {
    on_stage("no-scaling", async |stage, namespace| {
        let without = ("scaling.enabled=false", ("CAPSTAN_SCALING", "false"));
        let (roles, mut operator) = of_chart(stage, namespace, without).await;
        assert!(!roles.contains("/scale") && !roles.contains("horizontalpodautoscalers"), "{roles}");
        // Otherwise there would be a pod at once.
        let consumer = format!("{CONSUMER}  scaling: {{minReplicas: 1, maxReplicas: 2}}\n");
        namespace.apply(&[QUEUE, &consumer, APPLICATION].join("---")).await;
        let off = ("ScalingActive", "False", "ScalingDisabled");
        let consumer: Consumer = until_condition(namespace, "orders", off).await;
        let text = message(&consumer, "ScalingActive");
        assert!(text.contains("scaling.enabled: false") && text.contains("remove scaling"), "{text}");
        until_condition::<Consumer>(namespace, "orders", ("Ready", "False", "ScalingDisabled")).await;
        let delivers = ("SidecarsInjected", "True", "Injected");
        until_condition::<Consumer>(namespace, "orders", delivers).await;
        let replicas =
            namespace.kubectl(&["get", "deployment", "orders", "-o", "jsonpath={.spec.replicas}"]).await;
        assert_eq!(replicas.trim(), "0");
        assert_eq!(missing(&operator).await.unwrap(), BTreeSet::new());
        operator.stop();
    })
    .await;
}

/// What an operator was refused, by its metrics.
async fn missing(operator: &Operator) -> Result<BTreeSet<Right>, String> {
    let (_, text) = operator.get("/metrics").await?;
    let refused = text
        .lines()
        .filter(|line| line.starts_with("capstan_operator_forbidden_total{") && !line.ends_with(" 0"));
    let quoted = |line: &str, label: &str| {
        let (_, rest) = line.split_once(&format!("{label}=\"")).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    Ok(refused.map(|line| (quoted(line, "verb"), quoted(line, "resource"))).collect())
}

/// The same Event twice is one that is counted.
async fn repeat_an_event(namespace: &Namespace, application: &str) {
    for _ in 0..2 {
        until_condition::<Consumer>(namespace, "orders", ("TargetResolved", "True", "Resolved")).await;
        namespace.kubectl(&["delete", "deployment", "orders", "--wait=false"]).await;
        until_condition::<Consumer>(namespace, "orders", ("TargetResolved", "False", "TargetNotFound")).await;
        namespace.apply(application).await;
    }
}
