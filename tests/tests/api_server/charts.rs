//! The charts with both Helms, as far as no pod is needed: values, images, and an uninstall that nothing holds up.

use e2e::cluster::{Cluster, chart, tool};
use serde_json::Value;

use crate::stage::render;

const HELMS: [&str; 2] = ["helm", "helm3"];
/// Helm 3 takes an old one without a cluster.
const VERSION: &str = "--kube-version=1.30.0";
const POLICIES: &str = "--api-versions=admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy";

#[tokio::test]
async fn values_that_cannot_work_are_refused_by_name() {
    let long = format!("images.operator.digest=sha256:{}", "a".repeat(63));
    let both = format!("images.sidecar.tag=1@sha256:{0},images.sidecar.digest=sha256:{0}", "a".repeat(64));
    for (value, complaint) in [
        ("replicas=0", "replicas"),
        ("replicas=6", "replicas"),
        ("unknown=1", "unknown"),
        ("images.operator.name=a", "name"),
        ("images.operator.repository=", "repository"),
        (&long, "digest"),
        (&both, "tag"),
        ("watchNamespaces=shop", "watchNamespaces"),
        ("watchNamespaces={Shop}", "watchNamespaces"),
        ("watchNamespaces={shop,shop}", "watchNamespaces"),
        ("log=", "log"),
        ("resources.request.cpu=1", "request"),
        ("serviceAccount.name=1", "serviceAccount"),
        ("rbac.aggregate=yes", "aggregate"),
        ("rbac.clusterScoped=1", "clusterScoped"),
        ("injection.mode=Admission,rbac.clusterScoped=false", "clusterScoped"),
        ("rbac.create=false", "create"),
        ("admissionPolicy.enabled=maybe", "admissionPolicy"),
        ("metrics.annotations=1", "annotations"),
        ("metrics.podMonitor.interval=often", "interval"),
        ("metrics.serviceMonitor.enabled=true", "serviceMonitor"),
        ("scaling.enabled=no", "enabled"),
        ("scaling.mode=1", "mode"),
        ("externalScaler.enabled=1", "enabled"),
        ("externalScaler.port=1", "port"),
        ("externalScaler.from=keda", "from"),
        ("uninstall.removeSidecars=1", "removeSidecars"),
        ("uninstall.timeoutSeconds=5", "timeoutSeconds"),
        ("podDisruptionBudget.enabled=1", "podDisruptionBudget"),
        ("podLabels.a=1", "podLabels"),
        ("tolerations=all", "tolerations"),
        ("priorityClassName=1", "priorityClassName"),
    ] {
        for helm in HELMS {
            let arguments = ["template", "capstan", &chart("capstan"), VERSION, "--set", value];
            let error = tool::execute(helm, &arguments, None).await.expect_err(value);
            assert!(error.contains(complaint), "{helm} --set {value}: {error}");
        }
    }
}

async fn objects(helm: &str, values: &str) -> Vec<Value> {
    let chart = chart("capstan");
    let arguments =
        ["template", "capstan", &chart, VERSION, POLICIES, "--namespace=capstan-system", "--set", values];
    let text = tool::run(helm, &arguments).await;
    let documents = serde_yaml::Deserializer::from_str(&text);
    let all = documents.map(|one| serde::Deserialize::deserialize(one).unwrap());
    all.filter(|one: &Value| one.is_object()).collect()
}

/// All strings in a value whose key is `key`.
fn strings<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, child)| match child.as_str() {
            Some(text) if name == key => found.push(text),
            _ => strings(child, key, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| strings(item, key, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_image_can_be_pinned_by_its_digest() {
    let digests = ["a", "b", "c"].map(|digit| format!("sha256:{}", digit.repeat(64)));
    let names = ["operator", "broker", "sidecar"];
    let values: Vec<String> =
        names.iter().zip(&digests).map(|(name, digest)| format!("images.{name}.digest={digest}")).collect();
    let values = format!("images.registry=r.example.com,uninstall.removeSidecars=true,{}", values.join(","));
    for helm in HELMS {
        let objects = objects(helm, &values).await;
        let expected = names.iter().zip(&digests);
        let expected: Vec<String> = expected
            .map(|(name, digest)| {
                format!("r.example.com/capstan/{name}:{}@{digest}", env!("CARGO_PKG_VERSION"))
            })
            .collect();
        let all = Value::Array(objects);
        let mut images = Vec::new();
        strings(&all, "image", &mut images);
        assert_eq!(images, [expected[0].as_str(); 3], "the operator, its check, and the uninstall Job");
        let mut settings = Vec::new();
        strings(&all, "value", &mut settings);
        for image in &expected[1..] {
            assert!(settings.contains(&image.as_str()), "{settings:?}");
        }
    }
}

#[tokio::test]
async fn what_is_not_asked_for_is_not_there() {
    let kinds = |objects: &[Value]| {
        objects.iter().map(|one| one["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for helm in HELMS {
        let plain = kinds(&objects(helm, "replicas=2").await);
        for kind in ["Job", "PodMonitor"] {
            assert!(!plain.contains(&kind.to_owned()), "{plain:?}");
        }
        assert!(plain.contains(&"ValidatingAdmissionPolicy".to_owned()), "{plain:?}");
        // An object of the cluster, and the operator's look at it.
        let by = ["Auto", "Template"].map(|mode| format!("injection.mode={mode}"));
        for (more, is_there) in [
            (by[0].clone(), true),
            (by[1].clone(), false),
            (format!("{},rbac.clusterScoped=false", by[0]), false),
        ] {
            let text = render("capstan", "shop", &["--set", &more]).await;
            for part in ["kind: MutatingAdmissionPolicy\n", "name: CAPSTAN_ADMISSION_POLICY"] {
                assert_eq!(text.contains(part), is_there, "{more}: {part}");
            }
        }
        for (value, is_there) in
            [("replicas=2", true), ("scaling=null", true), ("scaling.enabled=false", false)]
        {
            let text = render("capstan", "shop", &["--set", value]).await;
            for part in ["deployments/scale", "scaledobjects", "horizontalpodautoscalers"] {
                assert_eq!(text.contains(part), is_there, "{value}: {part}");
            }
            assert_eq!(text.contains("name: CAPSTAN_SCALING\n"), !is_there, "{value}");
        }
        for (value, is_there) in
            [("externalScaler.enabled=true", true), ("externalScaler.enabled=false", false)]
        {
            let text = render("capstan", "shop", &["--set", value]).await;
            for part in [
                "name: capstan-operator-scaler\n",
                "name: CAPSTAN_EXTERNAL_SCALER_LISTEN\n",
                "name: scaler\n",
            ] {
                assert_eq!(text.contains(part), is_there, "{value}: {part}");
            }
        }
        let peer = "externalScaler.from[0].namespaceSelector.matchLabels.name=keda";
        for (values, is_there) in [
            (peer.to_owned(), true),
            (format!("{peer},externalScaler.enabled=false"), false),
            ("externalScaler.enabled=true".to_owned(), false),
        ] {
            let found = kinds(&objects(helm, &values).await).contains(&"NetworkPolicy".to_owned());
            assert_eq!(found, is_there, "{values}");
        }
        let other = "admissionPolicy.enabled=false,rbac.clusterScoped=false,rbac.aggregate=false,metrics.podMonitor.enabled=true,watchNamespaces={shop}";
        let other = kinds(&objects(helm, other).await);
        assert!(other.contains(&"PodMonitor".to_owned()), "{other:?}");
        let monitor = render("capstan", "shop", &["--set", "metrics.podMonitor.enabled=true"]).await;
        assert!(monitor.contains("honorLabels: true"), "the namespace of a Consumer's series is its own");
        let of_the_cluster = |kind: &&String| kind.starts_with("Cluster") || kind.contains("Admission");
        assert_eq!(other.iter().filter(of_the_cluster).count(), 0, "{other:?}");
        let old = tool::run(helm, &["template", "capstan", &chart("capstan"), "--kube-version=1.29.0"]).await;
        assert!(!old.contains("ValidatingAdmissionPolicy"), "an API server that does not serve it");
    }
}

/// No pod runs here, so the Job is as one whose image cannot be pulled.
#[tokio::test]
async fn an_uninstall_ends_although_its_job_never_runs() {
    let cluster = Cluster::connect().await;
    for helm in HELMS {
        let release = format!("left-{:08x}", rand::random::<u32>());
        let at = ["--namespace", &release];
        let values = "--set=uninstall.removeSidecars=true,uninstall.timeoutSeconds=10";
        let install = ["install", &release, &chart("capstan"), "--create-namespace", values];
        tool::run(helm, &[&install[..], &at].concat()).await;
        let found = [
            "get",
            "deployments,serviceaccounts,roles,jobs,pods",
            "-l",
            "app.kubernetes.io/name=capstan",
            "-o",
            "name",
        ];
        let before = tool::run("kubectl", &[&found[..], &at].concat()).await;
        assert!(before.contains("deployment.apps/"), "{before}");
        assert!(!before.contains("job.batch"), "{before}");
        // Helm tells that the Job did not do its work, after everything else was done.
        let ended =
            tool::execute(helm, &[&["uninstall", &release, "--timeout=3m"][..], &at].concat(), None).await;
        println!("{helm}: {ended:?}");
        let error = ended.expect_err("no pod can have run");
        assert!(error.contains("job") || error.contains("Job"), "{error}");
        let status = tool::execute(helm, &[&["status", &release][..], &at].concat(), None).await;
        assert!(status.as_ref().is_err_and(|error| error.contains("not found")), "{status:?}");
        e2e::cluster::until("everything of the release is gone", e2e::cluster::SHORT, async || {
            let left = tool::execute("kubectl", &[&found[..], &at].concat(), None).await?;
            let of_all = ["get", "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"];
            let selector = format!("app.kubernetes.io/instance={release}");
            let all = tool::execute("kubectl", &[&of_all[..], &["-l", &selector, "-o", "name"]].concat(), None).await?;
            if left.trim().is_empty() && all.trim().is_empty() { Ok(()) } else { Err(format!("{left}{all}")) }
        })
        .await;
        tool::run("kubectl", &["delete", "namespace", &release, "--wait=false"]).await;
    }
    drop(cluster);
}
