//! Where a cluster keeps its files, and the names and addresses of its parts.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{interrupt, repo};

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

/// Where the machine's clusters are noted and locked: network namespaces have names that the whole machine shares, whatever
/// the cache folder is.
const RUN: &str = "/run";
/// How often a lock is tried.
const LOOK: Duration = Duration::from_millis(200);

/// Whether a cluster has nodes. A machine has one cluster of each kind at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// At least one: pods run.
    Nodes,
    /// A control plane alone.
    ControlPlane,
}

impl Kind {
    /// Both. Where either will do, the first is meant.
    pub const ALL: [Self; 2] = [Self::Nodes, Self::ControlPlane];

    /// The kind of a cluster of so many nodes.
    pub fn of(nodes: u8) -> Self {
        if nodes == 0 { Self::ControlPlane } else { Self::Nodes }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Nodes => Self::ControlPlane,
            Self::ControlPlane => Self::Nodes,
        }
    }

    /// In names of files and folders.
    fn name(self) -> &'static str {
        match self {
            Self::Nodes => "cluster",
            Self::ControlPlane => "control-plane",
        }
    }

    /// What the network namespaces' names begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Nodes => "capstan-test",
            Self::ControlPlane => "capstan-test-control-plane",
        }
    }

    /// The file that says which cache folder the machine's cluster of this kind has.
    fn note(self) -> PathBuf {
        Path::new(RUN).join(format!("capstan-test-{}", self.name()))
    }

    fn lock(self) -> PathBuf {
        self.note().with_extension("lock")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nodes => "test cluster with nodes",
            Self::ControlPlane => "test cluster without nodes",
        })
    }
}

/// The folder of the machine's one cluster of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    kind: Kind,
    cache: PathBuf,
}

impl Place {
    /// Under the cache folder.
    ///
    /// # Errors
    /// There is no cache folder.
    pub fn new(kind: Kind) -> Result<Self> {
        Ok(Self::under(&repo::cache()?, kind))
    }

    /// Under another folder.
    pub fn under(cache: &Path, kind: Kind) -> Self {
        Self { kind, cache: cache.to_owned() }
    }

    fn root(&self) -> PathBuf {
        self.cache.join(self.kind.name())
    }

    /// Everything that goes with the cluster.
    pub fn state(&self) -> PathBuf {
        self.root().join("state")
    }

    /// Programs, kept between clusters and shared by both kinds.
    pub fn bin(&self) -> PathBuf {
        bin(&self.cache)
    }

    /// Logs of the components; kept until the next cluster.
    pub fn logs(&self) -> PathBuf {
        self.root().join("logs")
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

    /// The network namespace of a node.
    pub fn namespace(&self, node: u8) -> String {
        format!("{}-{node}", self.kind.prefix())
    }

    /// The file by which others enter it.
    pub fn namespace_file(&self, node: u8) -> PathBuf {
        Path::new(RUN).join("netns").join(self.namespace(node))
    }

    /// The name of a node's control groups and of its pods' network. The whole machine sees both, so they differ from those
    /// of a cluster with another cache folder, which a container's own `/run` may hide from this one.
    pub fn label(&self, node: u8) -> String {
        let fingerprint = fingerprint(self.root().as_os_str().as_encoded_bytes());
        format!("{}-{fingerprint:08x}", self.namespace(node))
    }

    /// The socket of a node's container runtime.
    pub fn containerd(&self, node: u8) -> PathBuf {
        self.node(node).join("containerd.sock")
    }

    /// Makes the folders, and empties that of the logs. Keys are for the user alone.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn make(&self) -> Result<()> {
        let logs = self.logs();
        if logs.exists() {
            std::fs::remove_dir_all(&logs).with_context(|| format!("cannot empty {}", logs.display()))?;
        }
        for (folder, mode) in
            [(logs, 0o755), (self.pids(), 0o755), (self.volumes(), 0o755), (self.pki(), 0o700)]
        {
            let made = DirBuilder::new().recursive(true).mode(mode).create(&folder);
            made.with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(())
    }

    /// Where the machine's cluster of this kind has its files, whatever the cache folder was when it started.
    pub fn noted(&self) -> Option<Self> {
        let cache = std::fs::read_to_string(self.kind.note()).ok()?;
        Some(Self::under(Path::new(&cache), self.kind))
    }

    /// Notes that this is the machine's cluster of its kind.
    ///
    /// # Errors
    /// Not root, for one.
    pub fn note(&self) -> Result<()> {
        let note = self.kind.note();
        let noted = std::fs::write(&note, self.cache.as_os_str().as_encoded_bytes());
        noted.with_context(|| format!("cannot write {}: a cluster needs root", note.display()))
    }

    /// Makes sure that no other run starts or ends the machine's cluster of this kind while the lock lives. Waits as long
    /// as `patience` for another run to end.
    ///
    /// # Errors
    /// Another run has it, the user asked to stop, or not root.
    pub fn lock(&self, patience: Duration) -> Result<File> {
        lock(&self.kind.lock(), self.kind, patience)
    }

    /// Notes that the cluster came up.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn set_up(&self) -> Result<()> {
        std::fs::write(self.state().join("up"), "").context("cannot note that the cluster is up")
    }

    /// Whether the cluster came up.
    pub fn is_up(&self) -> bool {
        self.state().join("up").exists()
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

/// The folder of the clusters' programs in a cache folder.
pub fn bin(cache: &Path) -> PathBuf {
    cache.join("cluster-programs")
}

/// Locks a file, which says by which process.
fn lock(path: &Path, kind: Kind, patience: Duration) -> Result<File> {
    let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
    let mut file = open.with_context(|| format!("cannot write {}: a cluster needs root", path.display()))?;
    let (start, mut told) = (Instant::now(), false);
    while let Err(error) = file.try_lock() {
        interrupt::check()?;
        if let TryLockError::Error(error) = error {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
        let holder = std::fs::read_to_string(path).unwrap_or_default();
        let holder = holder.trim();
        if start.elapsed() >= patience {
            bail!("process {holder} uses this machine's {kind}: try again when it ended");
        }
        if !told {
            eprintln!("waiting for process {holder} to end, which uses this machine's {kind}");
            told = true;
        }
        std::thread::sleep(LOOK);
    }
    // Only for these messages.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// FNV-1a: the same in every build.
fn fingerprint(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_up_once_that_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::under(folder.path(), Kind::Nodes);
        assert_eq!((place.nodes(), place.is_up()), (None, false));
        place.make().unwrap();
        place.set_nodes(0).unwrap();
        assert_eq!((place.nodes(), place.is_up()), (Some(0), false));
        place.set_up().unwrap();
        assert!(place.is_up());
    }

    #[test]
    fn logs_of_the_cluster_before_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::under(folder.path(), Kind::Nodes);
        place.make().unwrap();
        std::fs::write(place.logs().join("etcd.log"), "old").unwrap();
        place.make().unwrap();
        assert_eq!(std::fs::read_dir(place.logs()).unwrap().count(), 0);
    }

    #[test]
    fn a_lock_is_held_once_and_free_again_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = lock(&path, Kind::Nodes, Duration::ZERO).unwrap();
        let error = lock(&path, Kind::Nodes, Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains(&format!("process {} ", std::process::id())), "{error}");
        let waiting = std::thread::spawn(move || lock(&path, Kind::Nodes, Duration::from_secs(60)));
        drop(first);
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn clusters_of_other_folders_have_other_labels() {
        let [one, other] = ["/a", "/b"].map(|cache| Place::under(Path::new(cache), Kind::Nodes));
        assert_ne!(one.label(0), other.label(0));
        assert_ne!(one.label(0), one.label(1));
        assert_eq!(one.label(0), Place::under(Path::new("/a"), Kind::Nodes).label(0));
    }

    #[test]
    fn the_two_kinds_share_programs_alone() {
        let [nodes, plane] = Kind::ALL.map(|kind| Place::under(Path::new("/cache"), kind));
        assert_eq!(nodes.bin(), plane.bin());
        assert_ne!(nodes.kind.note(), plane.kind.note());
        assert_ne!(nodes.kind.lock(), plane.kind.lock());
        // Processes are found by the runtime's socket in a command line, mounts by the folder that they are below.
        let (socket, other) = (nodes.containerd(0), plane.containerd(0));
        let [socket, other] = [socket, other].map(|path| path.display().to_string());
        assert!(!socket.contains(&other) && !other.contains(&socket), "{socket} {other}");
        for (one, other) in [(nodes.state(), plane.state()), (nodes.logs(), plane.logs())] {
            assert!(!one.starts_with(&other) && !other.starts_with(&one), "{one:?} {other:?}");
        }
        for node in 0..NODES_MAX {
            for other in 0..NODES_MAX {
                assert_ne!(nodes.namespace(node), plane.namespace(other));
                assert!(!plane.label(other).starts_with(&nodes.label(node)));
            }
        }
    }

    #[test]
    fn names_are_those_that_earlier_versions_gave_a_cluster() {
        // Else a checkout of them and this one would not know of each other's.
        let place = Place::under(Path::new("/cache"), Kind::of(3));
        assert_eq!(place.namespace_file(2), Path::new("/run/netns/capstan-test-2"));
        assert_eq!(place.state(), Path::new("/cache/cluster/state"));
        assert_eq!(place.kind.note(), Path::new("/run/capstan-test-cluster"));
        assert_eq!(place.kind.lock(), Path::new("/run/capstan-test-cluster.lock"));
    }

    #[test]
    fn the_first_node_has_the_address_of_the_control_plane() {
        assert_eq!(node_address(0), CONTROL_PLANE);
    }
}
