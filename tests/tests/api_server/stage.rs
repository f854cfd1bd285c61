//! An operator and a broker, as processes, for one test at a time.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use capstan_crds::{Broker as BrokerObject, Consumer, Queue};
use e2e::cluster::{Cluster, Namespace, SHORT, chart, tool, until};
use e2e::process::{Broker, Log, program};
use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace as NamespaceObject;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// Where the operator's account is.
pub(crate) const SYSTEM: &str = "capstan-system";

/// Fields of `/proc/PID/stat` behind the program's name.
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
/// Linux says times to programs in hundredths of a second, whatever it has itself.
const TICKS_PER_SECOND: u64 = 100;

/// An operator works on the whole cluster: one test at a time.
static TURN: Mutex<()> = Mutex::const_new(());
/// The kubeconfig of operators.
static KUBECONFIG: OnceCell<String> = OnceCell::const_new();

/// What a test has for itself beside its namespace.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) broker: Broker,
    pub(crate) operator: Operator,
    folder: TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// The setting by which an operator has pods completed by the chart's admission policy.
pub(crate) const BY_ADMISSION: (&str, &str) = ("CAPSTAN_ADMISSION_POLICY", "capstan-sidecar");

/// Runs a test with a broker, an operator and a namespace. Sidecars go into pod templates.
pub(crate) async fn on_stage(prefix: &str, test: impl AsyncFnOnce(&mut Stage, &Namespace)) {
    on_stage_with(prefix, &[], test).await;
}

/// The same, with more settings of the operator.
pub(crate) async fn on_stage_with(
    prefix: &str,
    more: &[(&str, &str)],
    test: impl AsyncFnOnce(&mut Stage, &Namespace),
) {
    let mut stage = Stage::open(more).await;
    let namespace =
        Namespace { cluster: stage.cluster.clone(), name: format!("{prefix}-{:08x}", rand::random::<u32>()) };
    tool::run("kubectl", &["create", "namespace", &namespace.name]).await;
    let result = AssertUnwindSafe(test(&mut stage, &namespace)).catch_unwind().await;
    if result.is_err() {
        let kinds = "capq,capc,capb,deployments,statefulsets,services,events";
        let (Ok(text) | Err(text)) =
            tool::execute("kubectl", &["-n", &namespace.name, "get", kinds, "-o", "yaml"], None).await;
        println!("---- the operator's log ----\n{}", stage.operator.log);
        println!("---- what the namespace looks like after the failure ----\n{text}\n---- end ----");
    }
    // The next operator has a broker of its own, and would tell it of what is left here.
    drop(stage.operator);
    clear(&namespace).await;
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

/// Deletes all objects of Capstan and waits until they are gone; the rest goes with the namespace, which takes longer.
async fn clear(namespace: &Namespace) {
    let params = (DeleteParams::default(), ListParams::default());
    // A test may have deleted the namespace itself.
    let _ = namespace.api::<Consumer>().delete_collection(&params.0, &params.1).await;
    let _ = namespace.api::<Queue>().delete_collection(&params.0, &params.1).await;
    let _ = namespace.api::<BrokerObject>().delete_collection(&params.0, &params.1).await;
    let namespaces: Api<NamespaceObject> = Api::all(namespace.cluster.client.clone());
    let _ = namespaces.delete(&namespace.name, &DeleteParams::background()).await;
    nothing_left().await;
}

/// Waits until the cluster has no object of Capstan.
async fn nothing_left() {
    until("the cluster has no Capstan objects", SHORT, async || {
        let found = tool::execute("kubectl", &["get", "capq,capc,capb", "-A", "-o", "name"], None).await?;
        if found.trim().is_empty() {
            Ok(())
        } else {
            Err(format!("delete what is not of these tests: {found}"))
        }
    })
    .await;
}

/// Waits until no other test has an operator; the cluster, and the kubeconfig of operators.
pub(crate) async fn turn() -> (MutexGuard<'static, ()>, Cluster, String) {
    let turn = TURN.lock().await;
    let cluster = Cluster::connect().await;
    let kubeconfig = KUBECONFIG.get_or_init(async || prepare(&cluster).await).await;
    nothing_left().await;
    (turn, cluster, kubeconfig.clone())
}

impl Stage {
    async fn open(more: &[(&str, &str)]) -> Self {
        let (turn, cluster, kubeconfig) = turn().await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig).unwrap();
        let broker = Broker::start(&folder.path().join("store"));
        let operator = Operator::start(&Stage::settings(folder.path(), &broker), more).await;
        Self { cluster, broker, operator, folder, _turn: turn }
    }

    /// Ends the operator and starts another one, with more settings.
    pub(crate) async fn restart_operator(&mut self, more: &[(&str, &str)]) {
        self.operator.stop();
        self.operator = self.another_operator(more).await;
    }

    /// Starts an operator beside the one there is.
    pub(crate) async fn another_operator(&self, more: &[(&str, &str)]) -> Operator {
        Operator::start(&Self::settings(self.folder.path(), &self.broker), more).await
    }

    /// Ends the broker and starts one with an empty store; the operator is told where it is.
    pub(crate) async fn replace_broker(&mut self) {
        let store = self.folder.path().join(format!("store-{:08x}", rand::random::<u32>()));
        self.broker = Broker::start(&store);
        self.restart_operator(&[]).await;
    }

    fn settings(folder: &Path, broker: &Broker) -> Vec<(String, String)> {
        let pair = |name: &str, value: String| (name.to_owned(), value);
        vec![
            pair("KUBECONFIG", folder.join("kubeconfig").display().to_string()),
            pair("CAPSTAN_LISTEN", "127.0.0.1:0".to_owned()),
            // Pods never run here: the broker is a process of this machine.
            pair("CAPSTAN_BROKER_CONTROL_URL", broker.admin_url()),
            pair("CAPSTAN_POLL_MS", "200".to_owned()),
            pair("CAPSTAN_LOG", "info,capstan_operator=debug".to_owned()),
        ]
    }
}

/// `capstan-operator` as a process. Killed when dropped.
pub(crate) struct Operator {
    child: Child,
    log: Log,
}

impl Operator {
    async fn start(settings: &[(String, String)], more: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| (name.as_str(), value.into()));
        let more = more.iter().map(|(name, value)| (*name, value.into()));
        let operator = Self::spawn(&settings.chain(more).collect::<Vec<_>>());
        operator.until_logged("the cluster is known").await;
        operator
    }

    /// Starts it with these settings and no others.
    pub(crate) fn spawn(settings: &[(&str, OsString)]) -> Self {
        let mut command = Command::new(operator());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CAPSTAN_") {
                command.env_remove(name);
            }
        }
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        let mut child =
            command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("an operator starts");
        let (log, _) = Log::follow(child.stderr.take().expect("its stderr is a pipe"));
        Self { child, log }
    }

    /// Kills it (SIGKILL).
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Bytes of memory that it has now, and the most it ever had.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let kilobytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        (kilobytes("VmRSS:") << 10, kilobytes("VmHWM:") << 10)
    }

    /// How long it has computed.
    pub(crate) fn computed(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The program's name, in parentheses, may have spaces.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |field: usize| fields[field].parse::<u64>().unwrap();
        Duration::from_millis((ticks(USER_TIME) + ticks(SYSTEM_TIME)) * 1000 / TICKS_PER_SECOND)
    }

    /// What it logged last.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Waits until it logged a message.
    pub(crate) async fn until_logged(&self, message: &str) {
        let what = format!("the operator logs {message:?}");
        until(&what, SHORT, async || if self.has_logged(message) { Ok(()) } else { Err(String::new()) })
            .await;
    }

    /// Whether it logged a message, in the last lines.
    pub(crate) fn has_logged(&self, message: &str) -> bool {
        let is = |line: &String| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            line["fields"]["message"] == message
        };
        self.log.lines().iter().any(is)
    }

    /// Ends it as Kubernetes does.
    pub(crate) fn stop(&mut self) {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(id.expect("a process id"), rustix::process::Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the operator ended with {status}:\n{}", self.log);
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn operator() -> PathBuf {
    std::env::var_os("CAPSTAN_OPERATOR").map_or_else(|| program("capstan-operator"), PathBuf::from)
}

/// Installs the resource definitions and makes the operator's account; its kubeconfig.
async fn prepare(cluster: &Cluster) -> String {
    install(cluster).await;
    account().await
}

/// Installs the resource definitions, and waits until they are served.
async fn install(cluster: &Cluster) {
    let templates = Path::new(&chart("capstan-crds")).join("templates").display().to_string();
    tool::run("kubectl", &["apply", "--server-side", "-f", &templates]).await;
    until("the kinds are served", SHORT, async || {
        let (client, one) = (&cluster.client, ListParams::default().limit(1));
        Api::<Queue>::all(client.clone()).list(&one).await.map_err(|error| error.to_string())?;
        Api::<Consumer>::all(client.clone()).list(&one).await.map_err(|error| error.to_string())?;
        Api::<BrokerObject>::all(client.clone()).list(&one).await.map_err(|error| error.to_string())?;
        Ok(())
    })
    .await;
}

/// Makes the account and the roles of the chart, and a kubeconfig with no other rights.
async fn account() -> String {
    let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {SYSTEM}}}\n");
    let rendered = tool::run(
        "helm",
        &[
            "template",
            "capstan",
            &chart("capstan"),
            "--namespace",
            SYSTEM,
            "--show-only",
            "templates/rbac.yaml",
            "--show-only",
            "templates/serviceaccount.yaml",
            "--show-only",
            "templates/sidecar-policy.yaml",
            "--api-versions",
            "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy",
        ],
    )
    .await;
    let objects = format!("{namespace}---\n{rendered}");
    tool::execute("kubectl", &["apply", "--server-side", "-f", "-"], Some(&objects)).await.unwrap();
    let token = tool::run("kubectl", &["-n", SYSTEM, "create", "token", "capstan"]).await;
    let view =
        tool::run("kubectl", &["config", "view", "--raw", "--minify", "--flatten", "-o", "json"]).await;
    let mut config: serde_json::Value = serde_json::from_str(&view).unwrap();
    config["users"][0]["user"] = serde_json::json!({"token": token.trim()});
    config.to_string()
}
