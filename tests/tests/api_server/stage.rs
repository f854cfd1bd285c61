//! An operator and a broker, as processes, for one test at a time.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use capstan_crds::{Broker as BrokerObject, Consumer, Queue};
use e2e::cluster::{Cluster, Namespace, SHORT, chart, tool, until};
use e2e::process::{Broker, Log, program};
use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace as NamespaceObject;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::Value;
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
    // With the roles of the chart nothing that it does is refused.
    let forbidden = stage.operator.lacks();
    // The next operator has a broker of its own, and would tell it of what is left here.
    drop(stage.operator);
    clear(&namespace).await;
    if let Err(panic) = result {
        resume_unwind(panic);
    }
    assert!(forbidden.is_empty(), "the chart's roles lack what the operator needs: {forbidden:?}");
}

/// Runs a test with a namespace, while there is no operator.
pub(crate) async fn on_empty_stage(prefix: &str, test: impl AsyncFnOnce(&Namespace)) {
    let (_turn, cluster, _) = turn().await;
    let namespace = Namespace { cluster, name: format!("{prefix}-{:08x}", rand::random::<u32>()) };
    tool::run("kubectl", &["create", "namespace", &namespace.name]).await;
    let result = AssertUnwindSafe(test(&namespace)).catch_unwind().await;
    clear(&namespace).await;
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

/// Deletes all objects of Capstan and waits until they are gone; the rest goes with the namespace, which takes longer.
pub(crate) async fn clear(namespace: &Namespace) {
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

    /// The same, without waiting until it knows the cluster.
    pub(crate) fn hopeful_operator(&self, more: &[(&str, &str)]) -> Operator {
        Operator::spawn(&merged(&Self::settings(self.folder.path(), &self.broker), more))
    }

    /// A file with a kubeconfig of the administrator who acts as somebody else.
    pub(crate) async fn kubeconfig_as(&self, user: &str) -> String {
        let mut config = administrator().await;
        config["users"][0]["user"]["as"] = user.into();
        let path = self.folder.path().join(format!("kubeconfig-{:08x}", rand::random::<u32>()));
        std::fs::write(&path, config.to_string()).unwrap();
        path.display().to_string()
    }

    /// The kubeconfig of the operator's account.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
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

/// All settings, the later ones over the earlier.
fn merged<'a>(settings: &'a [(String, String)], more: &'a [(&str, &str)]) -> Vec<(&'a str, OsString)> {
    let settings = settings.iter().map(|(name, value)| (name.as_str(), value.into()));
    settings.chain(more.iter().map(|(name, value)| (*name, value.into()))).collect()
}

/// `capstan-operator` as a process. Killed when dropped.
pub(crate) struct Operator {
    child: Child,
    log: Log,
    kept: Kept,
}

/// What is kept of an operator's log however long it gets.
#[derive(Clone, Default)]
struct Kept(Arc<std::sync::Mutex<Vec<Value>>>);

impl Kept {
    /// The messages, by how they begin: where it listens, and what it lacks.
    const MESSAGES: [&str; 2] = ["health checks and metrics", LACKS];

    fn follow(lines: Receiver<String>) -> Self {
        let kept = Self::default();
        let following = kept.clone();
        std::thread::spawn(move || lines.iter().for_each(|line| following.take(&line)));
        kept
    }

    fn take(&self, line: &str) {
        let fields = fields(line);
        if Self::MESSAGES.iter().any(|message| begins(&fields, message)) {
            self.0.lock().unwrap().push(fields);
        }
    }

    fn of(&self, message: &str) -> Vec<Value> {
        let kept = self.0.lock().unwrap();
        kept.iter().filter(|fields| begins(fields, message)).cloned().collect()
    }
}

/// How the message of a missing right begins.
const LACKS: &str = "the operator's account lacks a right";

/// The fields of a line of the log.
fn fields(line: &str) -> Value {
    serde_json::from_str::<Value>(line).unwrap_or_default()["fields"].clone()
}

fn begins(fields: &Value, message: &str) -> bool {
    fields["message"].as_str().is_some_and(|text| text.starts_with(message))
}

impl Operator {
    async fn start(settings: &[(String, String)], more: &[(&str, &str)]) -> Self {
        let operator = Self::spawn(&merged(settings, more));
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
        let (log, lines) = Log::follow(child.stderr.take().expect("its stderr is a pipe"));
        Self { child, log, kept: Kept::follow(lines) }
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
        !self.log_of(message).is_empty()
    }

    /// What it logged with a message that begins so, in the last lines: the fields.
    pub(crate) fn log_of(&self, message: &str) -> Vec<Value> {
        let lines = self.log.lines();
        lines.iter().map(|line| fields(line)).filter(|fields| begins(fields, message)).collect()
    }

    /// The rights that it said it lacks: the fields of each such line.
    pub(crate) fn lacks(&self) -> Vec<Value> {
        self.kept.of(LACKS)
    }

    /// What it serves at a path of its port: the status, and the text.
    pub(crate) async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let said = self.kept.of("health checks and metrics");
        let address =
            said.first().and_then(|said| said["address"].as_str()).ok_or("it does not listen yet")?;
        let answer =
            reqwest::get(format!("http://{address}{path}")).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        answer.text().await.map(|text| (status, text)).map_err(|error| error.to_string())
    }

    /// Whether it runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
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

pub(crate) fn operator() -> PathBuf {
    std::env::var_os("CAPSTAN_OPERATOR").map_or_else(|| program("capstan-operator"), PathBuf::from)
}

/// Installs the resource definitions and makes the operator's account; its kubeconfig.
async fn prepare(cluster: &Cluster) -> String {
    install(cluster).await;
    account().await
}

/// Installs the resource definitions, and waits until they are served.
pub(crate) async fn install(cluster: &Cluster) {
    install_at(cluster, None).await;
}

/// The same, on another cluster than that of the environment.
pub(crate) async fn install_at(cluster: &Cluster, kubeconfig: Option<&Path>) {
    let templates = Path::new(&chart("capstan-crds")).join("templates").display().to_string();
    let elsewhere = kubeconfig.map(|path| format!("--kubeconfig={}", path.display()));
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", &templates];
    tool::run("kubectl", &elsewhere.as_deref().into_iter().chain(apply).collect::<Vec<_>>()).await;
    until("the kinds are served", SHORT, async || {
        let (client, one) = (&cluster.client, ListParams::default().limit(1));
        Api::<Queue>::all(client.clone()).list(&one).await.map_err(|error| error.to_string())?;
        Api::<Consumer>::all(client.clone()).list(&one).await.map_err(|error| error.to_string())?;
        Api::<BrokerObject>::all(client.clone()).list(&one).await.map_err(|error| error.to_string())?;
        Ok(())
    })
    .await;
}

/// Makes the account and the roles of the chart, with the policy that limits it, and a kubeconfig with no other rights.
async fn account() -> String {
    let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {SYSTEM}}}\n");
    let shown = ["rbac", "serviceaccount", "admissionpolicy", "sidecar-policy"]
        .map(|name| format!("--show-only=templates/{name}.yaml"));
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    let rendered = render("capstan", SYSTEM, &shown).await;
    let objects = format!("{namespace}---\n{rendered}");
    tool::execute("kubectl", &["apply", "--server-side", "-f", "-"], Some(&objects)).await.unwrap();
    let token = tool::run("kubectl", &["-n", SYSTEM, "create", "token", "capstan"]).await;
    let mut config = administrator().await;
    config["users"][0]["user"] = serde_json::json!({"token": token.trim()});
    config.to_string()
}

/// Has the policy by which pods get their sidecar give them the image of a tag, or the chart's own again.
pub(crate) async fn sidecar_policy(tag: Option<&str>) {
    let tag = tag.map(|tag| format!("--set=images.sidecar.tag={tag}"));
    let shown = ["--show-only=templates/sidecar-policy.yaml"].into_iter().chain(tag.as_deref());
    let rendered = render("capstan", SYSTEM, &shown.collect::<Vec<_>>()).await;
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    tool::execute("kubectl", &apply, Some(&rendered)).await.unwrap();
}

/// What the operator's chart makes, for an API server that has admission policies.
pub(crate) async fn render(release: &str, namespace: &str, more: &[&str]) -> String {
    let chart = chart("capstan");
    let served = ["ValidatingAdmissionPolicy", "MutatingAdmissionPolicy"]
        .map(|kind| format!("--api-versions=admissionregistration.k8s.io/v1/{kind}"));
    let arguments = ["template", release, &chart, "--namespace", namespace, &served[0], &served[1]];
    tool::run("helm", &[&arguments, more].concat()).await
}

/// The kubeconfig of the tests themselves.
async fn administrator() -> Value {
    let view =
        tool::run("kubectl", &["config", "view", "--raw", "--minify", "--flatten", "-o", "json"]).await;
    serde_json::from_str(&view).unwrap()
}
