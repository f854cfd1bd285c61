//! A control plane that a test has for itself: etcd, the API server and the controller manager, which it may kill. They run beside
//! the cluster's own, with the same arguments, but for their ports and what they store.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tempfile::TempDir;

use super::reach::Reach;
use super::{Cluster, LONG, is_existing, tool, until};

/// The program that stores everything.
pub const ETCD: &str = "etcd";
/// The program that is asked.
pub const API_SERVER: &str = "kube-apiserver";
const CONTROLLER_MANAGER: &str = "kube-controller-manager";
/// The users whose kubeconfigs are made to lead here.
const USERS: [&str; 2] = ["admin", "controller-manager"];
/// Where the cluster's own API server listens, as its kubeconfigs say.
const PORT: &str = ":6443";
/// Below those that connections get by themselves: who is started again must find the same port free.
const PORTS: Range<u16> = 20_000..30_000;
const PORT_TRIES: usize = 100;
/// Lines of a log that are told when a test fails.
const TAIL: usize = 20;

/// A control plane. It ends with the test.
pub struct ControlPlane {
    folder: TempDir,
    programs: Vec<Program>,
    ports: Ports,
}

/// Ports that nobody has.
struct Ports {
    etcd: u16,
    peers: u16,
    api: u16,
    controllers: u16,
}

impl Ports {
    fn free() -> Self {
        let listen = || {
            let port = rand::random_range(PORTS);
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
        };
        // All at once, so that they are different.
        let listeners = [(); 4].map(|()| (0..PORT_TRIES).find_map(|_| listen()).unwrap());
        let [etcd, peers, api, controllers] = listeners.map(|one| one.local_addr().unwrap().port());
        Self { etcd, peers, api, controllers }
    }
}

/// One of its programs.
struct Program {
    name: &'static str,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Program {
    /// As the cluster's own, but for some arguments.
    fn like_the_clusters(name: &'static str, others: &[(&str, String)], folder: &Path) -> Self {
        let mut arguments = arguments_of(name);
        for (flag, value) in others {
            let start = format!("--{flag}=");
            arguments.retain(|argument| !argument.starts_with(&start));
            arguments.push(format!("{start}{value}"));
        }
        Self { name, arguments, log: folder.join(format!("{name}.log")), child: None }
    }

    fn start(&mut self) {
        let log: File = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let errors = log.try_clone().unwrap();
        let mut command = Command::new(tool::path(self.name));
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| panic!("{} does not start: {error}", self.name));
        println!("{} of this test: process {}", self.name, child.id());
        self.child = Some(child);
    }

    /// SIGKILL.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            println!("SIGKILL to {}, process {}", self.name, child.id());
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

/// The folder of a cluster that was started for these tests: its kubeconfig is in `pki`.
fn state() -> PathBuf {
    assert!(
        !is_existing(),
        "its programs cannot be killed: this test needs the cluster of `cargo xtask test`"
    );
    let kubeconfig = PathBuf::from(std::env::var_os("KUBECONFIG").unwrap());
    kubeconfig.parent().and_then(Path::parent).unwrap().to_owned()
}

/// The arguments of a program of the cluster, as it runs.
fn arguments_of(name: &str) -> Vec<String> {
    let note = state().join("pids").join(name);
    let note = std::fs::read_to_string(&note).unwrap_or_else(|error| panic!("{}: {error}", note.display()));
    let pid = note.split_whitespace().next().unwrap_or_default();
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split_terminator('\0').map(str::to_owned);
    let program = words.next().unwrap_or_default();
    assert!(program.ends_with(name), "process {pid} is {program:?}, not {name}");
    words.collect()
}

impl ControlPlane {
    /// Starts one, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready, or the cluster is somebody's own.
    pub async fn start() -> Self {
        let (folder, ports) = (tempfile::tempdir().unwrap(), Ports::free());
        for user in USERS {
            let text =
                std::fs::read_to_string(state().join("pki").join(format!("{user}.kubeconfig"))).unwrap();
            assert!(text.contains(PORT), "{text}");
            let text = text.replace(PORT, &format!(":{}", ports.api));
            std::fs::write(folder.path().join(format!("{user}.kubeconfig")), text).unwrap();
        }
        let programs = programs(folder.path(), &ports);
        let mut plane = Self { folder, programs, ports };
        for name in [ETCD, API_SERVER] {
            plane.program(name).start();
        }
        plane.until_ready().await;
        // It ends where there is no API server when it starts.
        plane.program(CONTROLLER_MANAGER).start();
        plane
    }

    /// The administrator's.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("admin.kubeconfig")
    }

    /// A connection to it.
    ///
    /// # Panics
    /// When its kubeconfig cannot be used.
    pub async fn connect(&self) -> Cluster {
        let client = self.client().await;
        Cluster { client: client.clone(), reach: Arc::new(Reach::new(client, false)) }
    }

    async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Client::try_from(config.unwrap()).unwrap()
    }

    /// Kills one of its programs, by SIGKILL.
    ///
    /// # Panics
    /// When there is no such program.
    pub fn kill(&mut self, name: &str) {
        self.program(name).kill();
    }

    /// Starts a program that was killed, and waits until the API server is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    pub async fn start_again(&mut self, name: &str) {
        self.program(name).start();
        self.until_ready().await;
    }

    fn program(&mut self, name: &str) -> &mut Program {
        self.programs.iter_mut().find(|program| program.name == name).unwrap()
    }

    async fn until_ready(&mut self) {
        let client = self.client().await;
        until(&format!("the API server at port {} is ready", self.ports.api), LONG, async || {
            for program in &mut self.programs {
                let ended = program.child.as_mut().and_then(|child| child.try_wait().unwrap());
                assert!(ended.is_none(), "{} ended: {ended:?}", program.name);
            }
            let request = axum::http::Request::get("/readyz").body(Vec::new()).unwrap();
            client.request_text(request).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }
}

fn programs(folder: &Path, ports: &Ports) -> Vec<Program> {
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let (store, peers) = (url(ports.etcd), url(ports.peers));
    let kubeconfig = folder.join("controller-manager.kubeconfig").display().to_string();
    vec![
        Program::like_the_clusters(
            ETCD,
            &[
                ("data-dir", folder.join(ETCD).display().to_string()),
                ("listen-client-urls", store.clone()),
                ("advertise-client-urls", store.clone()),
                ("listen-peer-urls", peers.clone()),
                ("initial-advertise-peer-urls", peers.clone()),
                ("initial-cluster", format!("test={peers}")),
            ],
            folder,
        ),
        Program::like_the_clusters(
            API_SERVER,
            &[("etcd-servers", store), ("secure-port", ports.api.to_string())],
            folder,
        ),
        Program::like_the_clusters(
            CONTROLLER_MANAGER,
            &[
                ("kubeconfig", kubeconfig.clone()),
                ("authentication-kubeconfig", kubeconfig.clone()),
                ("authorization-kubeconfig", kubeconfig),
                ("secure-port", ports.controllers.to_string()),
            ],
            folder,
        ),
    ]
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for program in &self.programs {
                println!(
                    "---- the end of the log of {} ----\n{}\n---- end ----",
                    program.name,
                    program.tail()
                );
            }
        }
        // The last one first: nothing waits for what is gone.
        self.programs.iter_mut().rev().for_each(Program::kill);
    }
}
