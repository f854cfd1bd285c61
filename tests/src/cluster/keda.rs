//! KEDA, for one test: its operator and metrics adapter in the test's namespace, and what belongs to the whole cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::PathBuf;
use std::process::Command;

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::Value;

use super::{LONG, Namespace, SHORT, tool, until};

/// By which autoscalers ask for numbers. There is one in a cluster.
const API: &str = "v1beta1.external.metrics.k8s.io";

/// What both programs have: `cargo xtask images --keda` builds their images with the version of the workspace.
const POD: &str = "
      serviceAccountName: keda
      securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
      volumes: [{name: certificates, secret: {secretName: keda}}, {name: scratch, emptyDir: {}}]
      containers:
      - name: keda
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
        volumeMounts: [{name: certificates, mountPath: /certs, readOnly: true}, {name: scratch, mountPath: /tmp}]
        env: [{name: POD_NAMESPACE, value: THIS}, {name: WATCH_NAMESPACE, value: THIS}]
";

/// KEDA that runs. Dropped, also when a test fails, it is gone: nobody else may ask it for numbers, and an API that does not answer
/// would hold up the end of every namespace.
pub struct Keda {
    namespace: String,
    definitions: String,
}

impl Keda {
    /// Installs it into a namespace, of which alone it sees anything.
    ///
    /// # Panics
    /// When it was not built, does not start, or the cluster has such an API already.
    pub async fn install(namespace: &Namespace) -> Self {
        let definitions = std::env::var_os("CAPSTAN_TEST_KEDA").map(PathBuf::from);
        let definitions = definitions.filter(|file| file.exists());
        let definitions = definitions.expect("KEDA is not there: cargo xtask images --keda");
        let there = tool::run("kubectl", &["get", "apiservice", "--ignore-not-found", API]).await;
        assert!(there.is_empty(), "the cluster has an API of external metrics already:\n{there}");
        let keda = Self { namespace: namespace.name.clone(), definitions: definitions.display().to_string() };
        // One of them is larger than what `apply` remembers in an annotation.
        tool::run("kubectl", &["apply", "--server-side", "-f", &keda.definitions]).await;
        keda.certificates(namespace).await;
        namespace.apply(&keda.manifests()).await;
        for name in ["keda-operator", "keda-metrics-apiserver"] {
            namespace.wait_for::<Deployment>(name, "runs", LONG, is_available).await;
        }
        until("numbers can be asked for", SHORT, async || {
            let found = tool::execute("kubectl", &["get", "apiservice", API, "-o", "json"], None).await?;
            let found: Value = serde_json::from_str(&found).map_err(|error| error.to_string())?;
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is_available = |one: &Value| one["type"] == "Available" && one["status"] == "True";
            if conditions.iter().any(is_available) { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await;
        keda
    }

    /// One certificate for both, which is its own authority: they ask it of each other.
    async fn certificates(&self, namespace: &Namespace) {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).display().to_string();
        let services = ["keda-operator", "keda-metrics-apiserver"];
        let names = services
            .map(|name| format!("DNS:{name}.{0}.svc,DNS:{name}.{0}.svc.cluster.local", self.namespace));
        let names = format!("subjectAltName={}", names.join(","));
        let (certificate, key) = (file("tls.crt"), file("tls.key"));
        let kind = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ];
        let what =
            ["-subj", "/CN=keda", "-addext", &names, "-addext", "extendedKeyUsage=serverAuth,clientAuth"];
        let files = ["-out", &certificate, "-keyout", &key];
        tool::run("openssl", &[&kind[..], &what, &files].concat()).await;
        let [ca, certificate, key] = [("ca.crt", &certificate), ("tls.crt", &certificate), ("tls.key", &key)]
            .map(|(name, path)| format!("--from-file={name}={path}"));
        namespace.kubectl(&["create", "secret", "generic", "keda", &ca, &certificate, &key]).await;
    }

    fn manifests(&self) -> String {
        let pod = POD.trim_end().replace("THIS", &self.namespace);
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "
apiVersion: v1
kind: ServiceAccount
metadata: {{name: keda}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {0}-keda}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}}
subjects: [{{kind: ServiceAccount, name: keda, namespace: {0}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: keda-operator}}
spec: {{selector: {{app: keda-operator}}, ports: [{{port: 9666}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: keda-metrics-apiserver}}
spec: {{selector: {{app: keda-metrics-apiserver}}, ports: [{{port: 443, targetPort: 6443}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: keda-operator}}
spec:
  selector: {{matchLabels: {{app: keda-operator}}}}
  template:
    metadata: {{labels: {{app: keda-operator}}}}
    spec:{pod}
        image: capstan/keda-operator:{version}
        args: [--zap-log-level=info]
        readinessProbe: {{httpGet: {{path: /readyz, port: 8081}}, periodSeconds: 1}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: keda-metrics-apiserver}}
spec:
  selector: {{matchLabels: {{app: keda-metrics-apiserver}}}}
  template:
    metadata: {{labels: {{app: keda-metrics-apiserver}}}}
    spec:{pod}
        image: capstan/keda-adapter:{version}
        args: [--secure-port=6443, --cert-dir=/certs, --tls-cert-file=/certs/tls.crt, --tls-private-key-file=/certs/tls.key]
        readinessProbe: {{httpGet: {{scheme: HTTPS, path: /readyz, port: 6443}}, periodSeconds: 1}}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: {API}}}
spec:
  service: {{name: keda-metrics-apiserver, namespace: {0}}}
  group: external.metrics.k8s.io
  version: v1beta1
  insecureSkipTLSVerify: true
  groupPriorityMinimum: 100
  versionPriority: 100
",
            self.namespace
        )
    }
}

impl Drop for Keda {
    fn drop(&mut self) {
        let binding = format!("{}-keda", self.namespace);
        let released = r#"-p={"metadata":{"finalizers":null}}"#;
        let at = ["-n", &self.namespace];
        // A ScaledObject waits for its KEDA, which may not run any more.
        let objects = kubectl(&[&at[..], &["get", "scaledobjects", "-o", "name"]].concat());
        for object in objects.lines() {
            kubectl(&[&at[..], &["delete", "--wait=false", object]].concat());
            kubectl(&[&at[..], &["patch", "--type=merge", released, object]].concat());
        }
        kubectl(&["delete", "--ignore-not-found", "--wait=false", "apiservice", API]);
        kubectl(&["delete", "--ignore-not-found", "--wait=false", "clusterrolebinding", &binding]);
        kubectl(&["delete", "--ignore-not-found", "--wait=false", "-f", &self.definitions]);
    }
}

/// Runs kubectl where nothing can be awaited, and tells what went wrong.
fn kubectl(arguments: &[&str]) -> String {
    println!("$ kubectl {}", arguments.join(" "));
    match Command::new(tool::path("kubectl")).args(arguments).output() {
        Ok(output) => {
            print!("{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        Err(error) => {
            println!("{error}");
            String::new()
        }
    }
}

fn is_available(deployment: &Deployment) -> Result<(), String> {
    let available = deployment.status.as_ref().and_then(|status| status.available_replicas);
    if available == Some(1) { Ok(()) } else { Err(format!("{:?}", deployment.status)) }
}
