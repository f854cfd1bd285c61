//! `cargo xtask cluster`: a cluster to try things on.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::place::Place;
use super::{Options, attach, build, down, network, teardown, up, volumes};
use crate::progress::Progress;

/// A Kubernetes of its own on this machine, in network namespaces without a way out. Needs root.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Compiles its programs.
    Build,
    /// Starts it; an earlier one is ended first.
    Up {
        /// How many nodes.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
        nodes: u8,
        /// No nodes: API server, controller manager and scheduler only.
        #[arg(long, conflicts_with = "nodes")]
        control_plane_only: bool,
        /// Image archives to load on every node.
        #[arg(long, value_name = "FILE")]
        load: Vec<PathBuf>,
    },
    /// Ends it; nothing is left but logs.
    Down,
    /// Runs a command inside, with KUBECONFIG, kubectl, helm and helm3: cargo xtask cluster run kubectl get pods -A
    Run {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Loads image archives on every node.
    Load { archives: Vec<PathBuf> },
    /// Takes a node, 1 or 2, off the network.
    Isolate { node: u8 },
    /// Puts it back.
    Rejoin { node: u8 },
    /// Ends everything that runs on a node, 1 or 2, as a cut of its power does.
    PowerOff { node: u8 },
    /// Starts the node again, with what it had stored.
    PowerOn { node: u8 },
    /// Makes volumes for claims; `up` starts it.
    #[command(hide = true)]
    Provision,
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What went wrong, with the end of the log of the component that did not start.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Build => compile().map(drop),
            Self::Up { nodes, control_plane_only, load } => {
                start(if control_plane_only { 0 } else { nodes }, &load)
            }
            Self::Down => down(),
            Self::Run { command } => inside(&command),
            Self::Load { archives } => {
                let cluster = attach()?;
                archives.iter().try_for_each(|archive| cluster.load(archive))
            }
            Self::Isolate { node } => network::plug_in(expendable(node)?, false),
            Self::Rejoin { node } => network::plug_in(expendable(node)?, true),
            Self::PowerOff { node } => teardown::power_off(&Place::new()?, expendable(node)?),
            Self::PowerOn { node } => attach()?.power_on(expendable(node)?),
            Self::Provision => {
                let place = Place::new()?;
                volumes::provision(&place, &super::Programs::of(&place))
            }
        }
    }
}

fn compile() -> Result<super::Programs> {
    let mut progress = Progress::new(0);
    build(&mut |text| progress.note(text))
}

fn start(nodes: u8, archives: &[PathBuf]) -> Result<()> {
    let programs = compile()?;
    let cluster = up(&Options { nodes }, &programs)?;
    archives.iter().try_for_each(|archive| cluster.load(archive))?;
    println!(
        "ready: cargo xtask cluster run kubectl get nodes\nkubeconfig: {}\nlogs: {}",
        cluster.kubeconfig().display(),
        cluster.logs().display()
    );
    cluster.keep();
    Ok(())
}

/// Becomes the command, so that the terminal and the exit code are its own.
fn inside(words: &[OsString]) -> Result<()> {
    let Some((program, arguments)) = words.split_first() else {
        bail!("name a command");
    };
    let error = attach()?.command(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

/// A node that the cluster can do without for a while.
fn expendable(node: u8) -> Result<u8> {
    let nodes = Place::new()?.nodes().unwrap_or_default();
    if node == 0 || node >= nodes {
        bail!(
            "node {node} cannot be taken away: the cluster has the nodes 0 to {}, and 0 is the control plane's",
            nodes.saturating_sub(1)
        );
    }
    Ok(node)
}
