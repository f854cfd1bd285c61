//! `cargo xtask cluster`: a cluster to try things on.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::place::{Kind, Place};
use super::{Options, attach, build, down, network, teardown, up, volumes};
use crate::progress::Progress;

/// A Kubernetes of its own on this machine, in network namespaces without a way out. Needs root.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Compiles its programs.
    Build,
    /// Starts it; an earlier one is ended first, but not one that a run of the tests uses.
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
    /// Ends it, and any that a run of the tests kept; nothing is left but logs.
    Down,
    /// Runs a command inside, with KUBECONFIG, kubectl, helm and helm3: cargo xtask cluster run kubectl get pods -A
    Run {
        /// In the cluster without nodes, where one with nodes is up too.
        #[arg(long)]
        control_plane_only: bool,
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
            Self::Run { control_plane_only, command } => inside(control_plane_only, &command),
            Self::Load { archives } => {
                let cluster = attach(&Kind::ALL)?;
                archives.iter().try_for_each(|archive| cluster.load(archive))
            }
            Self::Isolate { node } => network::plug_in(&expendable(node)?, node, false),
            Self::Rejoin { node } => network::plug_in(&expendable(node)?, node, true),
            Self::PowerOff { node } => teardown::power_off(&expendable(node)?, node),
            Self::PowerOn { node } => {
                expendable(node)?;
                attach(&[Kind::Nodes])?.power_on(node)
            }
            Self::Provision => {
                let place = Place::new(Kind::Nodes)?;
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
    // Whoever starts one means it and not what was left before, of whatever kind.
    let other = Place::new(Kind::of(nodes).other())?;
    if let Ok(_lock) = other.lock(Duration::ZERO) {
        teardown::earlier(&other)?;
    }
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
fn inside(control_plane_only: bool, words: &[OsString]) -> Result<()> {
    let Some((program, arguments)) = words.split_first() else {
        bail!("name a command");
    };
    let kinds = if control_plane_only { &[Kind::ControlPlane][..] } else { &Kind::ALL };
    let error = attach(kinds)?.command(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

/// The cluster of a node, if it can do without that one for a while.
fn expendable(node: u8) -> Result<Place> {
    let place = Place::new(Kind::Nodes)?;
    let nodes = place.nodes().unwrap_or_default();
    if node == 0 || node >= nodes {
        bail!(
            "node {node} cannot be taken away: the cluster has the nodes 0 to {}, and 0 is the control plane's",
            nodes.saturating_sub(1)
        );
    }
    Ok(place)
}
