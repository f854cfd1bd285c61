//! A Kubernetes of our own for tests: real programs, one to three nodes or a control plane alone, each node in a network
//! namespace without a way out. `tests/cluster/README.md` says what it proves and what not.

mod command;
mod component;
mod control_groups;
mod control_plane;
mod dns;
mod network;
mod node;
mod pki;
mod place;
mod processes;
mod programs;
mod teardown;
mod volumes;

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub use command::Command;
pub use place::NODES_MAX;
pub use programs::{Keda, Programs};

use place::{DNS_SERVICE, Kind, Place, node_name};

use crate::{repo, run};

/// How long another run may have the machine's cluster of a kind.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// How long a node may take to be Ready on a busy machine.
const NODE_READY: Duration = Duration::from_secs(180);
/// What every cluster has: storage classes, and the Service of its DNS.
const BASE: &str = "tests/cluster/base.yaml";

/// What cluster to start.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// 1 to 3; 0 is a control plane without nodes, so that no pod runs.
    pub nodes: u8,
}

/// A running cluster. Dropping it takes it down.
#[derive(Debug)]
pub struct Cluster {
    place: Place,
    programs: Programs,
    kubeconfig: PathBuf,
    is_kept: bool,
    /// Held by the run that started the cluster.
    _lock: Option<File>,
}

/// Compiles the programs of a cluster into the cache, where they are not there yet.
///
/// # Errors
/// Go is missing, or a module cannot be fetched.
pub fn build(progress: &mut dyn FnMut(&str)) -> Result<Programs> {
    programs::build(&place::bin(&repo::cache()?), progress)
}

/// Compiles KEDA into the cache, where it is not there yet.
///
/// # Errors
/// Go is missing, or its module cannot be fetched.
pub fn build_keda(progress: &mut dyn FnMut(&str)) -> Result<Keda> {
    programs::build_keda(&place::bin(&repo::cache()?), progress)
}

/// Starts a cluster, after clearing what is left of an earlier one of its kind; returns when the API and each node is ready.
/// While another run has one of its kind, waits for its end.
///
/// # Errors
/// Not root, another run has one for more than half an hour, or a component does not start: shows the end of its log.
pub fn up(options: &Options, programs: &Programs) -> Result<Cluster> {
    if options.nodes > NODES_MAX {
        bail!("a cluster has at most {NODES_MAX} nodes");
    }
    let place = Place::new(Kind::of(options.nodes))?;
    let lock = place.lock(PATIENCE)?;
    teardown::earlier(&place)?;
    place.note()?;
    place.make()?;
    place.set_nodes(options.nodes)?;
    let kubeconfig = place.kubeconfig("admin");
    // From here on whatever fails is taken down.
    let cluster =
        Cluster { place, programs: programs.clone(), kubeconfig, is_kept: false, _lock: Some(lock) };
    cluster.start(options.nodes)?;
    Ok(cluster)
}

/// Ends the clusters of any earlier run, of both kinds; nothing when there is none.
///
/// # Errors
/// Another run uses one, or something is left; says what. The other one is ended nevertheless.
pub fn down() -> Result<()> {
    let ended = Kind::ALL.map(|kind| {
        let place = Place::new(kind)?;
        let _lock = place.lock(Duration::ZERO)?;
        teardown::earlier(&place)
    });
    let errors: Vec<String> =
        ended.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(errors.is_empty(), "{}", errors.join("\n"));
    Ok(())
}

/// The cluster that runs, the first of these kinds; dropping this leaves it up.
///
/// # Errors
/// None runs.
pub fn attach(kinds: &[Kind]) -> Result<Cluster> {
    let mut up = None;
    for kind in kinds {
        let place = Place::new(*kind)?;
        if up.is_none() && place.is_up() && component::is_alive(&place, "kube-apiserver") {
            up = Some(place);
        }
    }
    let place = up.context("no cluster runs: start one with cargo xtask cluster up")?;
    let programs = Programs::of(&place);
    Ok(Cluster { kubeconfig: place.kubeconfig("admin"), place, programs, is_kept: true, _lock: None })
}

impl Cluster {
    /// The administrator's.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The folder of kubectl, helm (4) and helm3.
    pub fn bin(&self) -> &Path {
        self.programs.folder()
    }

    /// The folder of the components' logs.
    pub fn logs(&self) -> PathBuf {
        self.place.logs()
    }

    /// Imports an image archive on every node.
    ///
    /// # Errors
    /// It is no image archive, or there is no node.
    pub fn load(&self, archive: &Path) -> Result<()> {
        if self.nodes() == 0 {
            bail!("this cluster has no node to load {} on", archive.display());
        }
        std::thread::scope(|scope| {
            let loads =
                (0..self.nodes()).map(|node| scope.spawn(move || node::load(&self.place, node, archive)));
            let loads: Vec<_> = loads.collect();
            loads.into_iter().try_for_each(|load| load.join().unwrap_or_else(|_| bail!("a thread broke")))
        })
    }

    /// Starts a node whose power was cut. It is Ready some seconds later.
    ///
    /// # Errors
    /// A program does not start; shows its log.
    fn power_on(&self, node: u8) -> Result<()> {
        for name in node::components(node) {
            component::stop(&self.place, &name);
        }
        node::start(&self.place, &self.programs, node)
    }

    /// A command that runs in the first node's network, where pods and Services can be reached.
    pub fn command(&self, program: impl AsRef<OsStr>) -> std::process::Command {
        let mut command = component::inside(&self.place, 0, program);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(self.bin().to_owned()).chain(std::env::split_paths(&path));
        if let Ok(path) = std::env::join_paths(path) {
            command.env("PATH", path);
        }
        command.env("KUBECONFIG", &self.kubeconfig).env("CAPSTAN_TEST_BIN", self.bin());
        if self.nodes() > 0 {
            command.env("CAPSTAN_TEST_XTASK", volumes::program(&self.place));
        }
        command
    }

    /// Leaves the cluster up.
    pub fn keep(mut self) {
        self.is_kept = true;
    }

    /// Takes the cluster down.
    ///
    /// # Errors
    /// Something is left; says what.
    pub fn down(mut self) -> Result<()> {
        self.is_kept = true;
        teardown::run(&self.place)
    }

    fn nodes(&self) -> u8 {
        self.place.nodes().unwrap_or_default()
    }

    fn start(&self, nodes: u8) -> Result<()> {
        pki::make(&self.place, nodes)?;
        network::make(&self.place, nodes)?;
        control_plane::start(&self.place, &self.programs)?;
        for number in 0..nodes {
            node::start(&self.place, &self.programs, number)?;
        }
        let base = crate::repo::root().join(BASE);
        run::output(self.kubectl().args(["apply", "-f"]).arg(&base))
            .context("the cluster refuses its base")?;
        if nodes > 0 {
            dns::start(&self.place, &self.programs)?;
            volumes::start(&self.place)?;
        }
        (0..nodes).try_for_each(|number| self.wait_for_node(number))?;
        (0..nodes).try_for_each(|number| self.wait_for_services(number))?;
        // Pods need it, and it comes a moment after the namespace.
        component::wait(&self.place, "kube-controller-manager", NODE_READY, || {
            run::output(self.kubectl().args(["get", "serviceaccount", "default"])).is_ok()
        })?;
        self.place.set_up()
    }

    fn wait_for_node(&self, number: u8) -> Result<()> {
        let query = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        component::wait(&self.place, &format!("kubelet-{number}"), NODE_READY, || {
            let status = run::output(self.kubectl().args(["get", "node", &node_name(number), "-o", query]));
            status.is_ok_and(|status| status.trim() == "True")
        })
    }

    /// A Service answers once the node's proxy knows it; the DNS behind it is ready already.
    fn wait_for_services(&self, number: u8) -> Result<()> {
        let connect = format!("exec 3<>/dev/tcp/{DNS_SERVICE}/53");
        component::wait(&self.place, &format!("kube-proxy-{number}"), NODE_READY, || {
            run::output(component::inside(&self.place, number, "timeout").args(["5", "bash", "-c", &connect]))
                .is_ok()
        })
    }

    fn kubectl(&self) -> std::process::Command {
        control_plane::kubectl(&self.place, &self.programs)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = teardown::run(&self.place)
        {
            eprintln!("the cluster was not taken down wholly ({error:#}); try cargo xtask cluster down");
        }
    }
}
