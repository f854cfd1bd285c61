//! The levels that need a cluster: each has one of its own, so that pods of one do not disturb the other.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::collect;
use super::level::Level;
use crate::cluster::{self, Cluster, Options, Programs};
use crate::images::{keda, previous};
use crate::interrupt;
use crate::progress::Progress;

/// Nodes of the level that has pods: one can be lost, and another is there to move to.
const NODES: u8 = 3;

/// Where the tests of a level run.
pub enum Place {
    /// In a cluster that was started for them.
    Own(Cluster),
    /// In the cluster of KUBECONFIG.
    Existing,
}

impl Place {
    /// Starts the cluster that a level needs, with the images loaded.
    ///
    /// # Errors
    /// It does not start; the error shows the end of a log.
    pub fn start(
        level: Level,
        programs: &Programs,
        archives: &[PathBuf],
        progress: &mut Progress,
    ) -> Result<Self> {
        let nodes = if level == Level::Node { NODES } else { 0 };
        let cluster = cluster::up(&Options { nodes }, programs)?;
        progress.note("the cluster is up");
        if nodes > 0 {
            for archive in archives {
                interrupt::check()?;
                cluster.load(archive)?;
            }
        }
        Ok(Self::Own(cluster))
    }

    /// The cluster that is already there.
    ///
    /// # Errors
    /// KUBECONFIG does not say where.
    pub fn existing() -> Result<Self> {
        let there = std::env::var_os("KUBECONFIG").is_some_and(|path| !path.is_empty());
        ensure!(there, "--cluster existing: set KUBECONFIG to the file that says where the cluster is");
        Ok(Self::Existing)
    }

    /// A command that reaches the cluster.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = match self {
            Self::Own(cluster) => cluster.command(program),
            Self::Existing => {
                let mut command = Command::new(program);
                command.env("CAPSTAN_TEST_CLUSTER", "existing");
                command
            }
        };
        command.env("CAPSTAN_TEST_PREVIOUS", previous::charts());
        command.env("CAPSTAN_TEST_KEDA", keda::definitions());
        command
    }

    /// Keeps what the cluster looks like.
    pub fn collect(&self, level: Level, progress: &mut Progress) {
        let _cleaning = interrupt::cleaning();
        let logs = match self {
            Self::Own(cluster) => Some(cluster.logs()),
            Self::Existing => None,
        };
        match collect::cluster(level.name(), |tool| self.command(tool), logs.as_deref()) {
            Ok(folder) => {
                progress.note(&format!("objects, events and logs of the cluster: {}", folder.display()));
            }
            Err(error) => progress.note(&format!("what the cluster looked like was not kept: {error:#}")),
        }
    }

    /// Ends a cluster of ours, or leaves it up.
    ///
    /// # Errors
    /// Something of it is left.
    pub fn end(self, keep: bool, level: Level, progress: &mut Progress) -> Result<()> {
        let Self::Own(cluster) = self else { return Ok(()) };
        if keep {
            progress.note(&format!("the cluster stays up ({})", cluster.kubeconfig().display()));
            let (option, kind) =
                if level == Level::Node { ("", "pods") } else { ("--control-plane-only ", "queues") };
            progress.note(&format!(
                "cargo xtask cluster run {option}kubectl get {kind} -A; cargo xtask cluster down"
            ));
            cluster.keep();
            return Ok(());
        }
        cluster.down().context("the cluster was not taken down: cargo xtask cluster down")
    }
}
