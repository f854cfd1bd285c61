//! Where a cluster keeps its files, and the names and addresses of its parts.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::repo;

/// Most nodes of a cluster.
pub const NODES_MAX: u8 = 3;
/// Address of the API server, and of the first node.
pub const CONTROL_PLANE: &str = "10.10.0.1";
/// Addresses of Services.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// Address of the Service `kubernetes`.
pub const API_SERVICE: &str = "10.96.0.1";
/// Address of the Service `kube-dns`; `tests/cluster/base.yaml` repeats it.
pub const DNS_SERVICE: &str = "10.96.0.10";

/// The folder of the one cluster that a machine has at a time.
#[derive(Debug, Clone)]
pub struct Place {
    root: PathBuf,
    bin: PathBuf,
}

impl Place {
    /// Under the cache folder.
    ///
    /// # Errors
    /// There is no cache folder.
    pub fn new() -> Result<Self> {
        let cache = repo::cache()?;
        Ok(Self { root: cache.join("cluster"), bin: cache.join("cluster-programs") })
    }

    /// Everything that goes with the cluster.
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Programs, kept between clusters.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Logs of the components; kept until the next cluster.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Ids of the processes of components.
    pub fn pids(&self) -> PathBuf {
        self.state().join("pids")
    }

    /// Keys, certificates and kubeconfigs.
    pub fn pki(&self) -> PathBuf {
        self.state().join("pki")
    }

    /// The kubeconfig of a user of the cluster.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.pki().join(format!("{user}.kubeconfig"))
    }

    /// Images and mounts of volumes.
    pub fn volumes(&self) -> PathBuf {
        self.state().join("volumes")
    }

    /// What belongs to a node.
    pub fn node(&self, node: u8) -> PathBuf {
        self.state().join(format!("node-{node}"))
    }

    /// The socket of a node's container runtime.
    pub fn containerd(&self, node: u8) -> PathBuf {
        self.node(node).join("containerd.sock")
    }

    /// Makes the folders, with no one else's eyes on the keys.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn make(&self) -> Result<()> {
        for folder in [self.logs(), self.pids(), self.pki(), self.volumes()] {
            std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(())
    }

    /// Makes sure that no other run starts or ends the cluster while the lock lives.
    ///
    /// # Errors
    /// Another run has it, or the disk refuses.
    pub fn lock(&self) -> Result<File> {
        std::fs::create_dir_all(&self.root)
            .with_context(|| format!("cannot make {}", self.root.display()))?;
        let path = self.root.join("lock");
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => bail!(
                "another run uses the test cluster of this machine ({} is locked): wait until it ends",
                path.display()
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// Notes how many nodes the cluster has.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn set_nodes(&self, nodes: u8) -> Result<()> {
        std::fs::write(self.state().join("nodes"), nodes.to_string())
            .context("cannot note the number of nodes")
    }

    /// How many nodes the cluster has; nothing without a cluster.
    pub fn nodes(&self) -> Option<u8> {
        std::fs::read_to_string(self.state().join("nodes")).ok()?.trim().parse().ok()
    }
}

/// The network namespace of a node.
pub fn namespace(node: u8) -> String {
    format!("capstan-test-{node}")
}

/// The file by which others enter it.
pub fn namespace_file(node: u8) -> String {
    format!("/run/netns/{}", namespace(node))
}

/// A node's name in the cluster.
pub fn node_name(node: u8) -> String {
    format!("node-{node}")
}

/// A node's address.
pub fn node_address(node: u8) -> String {
    format!("10.10.0.{}", node + 1)
}

/// The addresses of a node's pods.
pub fn pod_cidr(node: u8) -> String {
    format!("10.244.{node}.0/24")
}
