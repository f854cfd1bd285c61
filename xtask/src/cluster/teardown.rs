//! Ends a cluster by what it left, not by what is remembered: the same for a running one and for one whose starter was
//! killed. Nothing is ended gently, since nothing of a cluster's state is kept.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::place::{NODES_MAX, Place};
use super::processes::{self, Marks};
use super::{component, control_groups, network, node, volumes};
use crate::{interrupt, run};

/// How long killed processes may take to be gone.
const PROCESSES: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);
/// Where network plugins remember pods, and kubelets link to logs, whatever their configuration says.
const POD_RESULTS: &str = "/var/lib/cni/results";
const LOG_LINKS: &str = "/var/log/containers";

/// Ends whatever any earlier run left, here or under another cache folder.
///
/// # Errors
/// Something is left; says what.
pub fn earlier(place: &Place) -> Result<()> {
    if let Some(other) = place.noted().filter(|other| other != place) {
        run(&other)?;
    }
    run(place)
}

/// Ends whatever there is of a cluster.
///
/// # Errors
/// Something is left; says what.
pub fn run(place: &Place) -> Result<()> {
    let _cleaning = interrupt::cleaning();
    end_processes(place)?;
    let sockets = shim_sockets(place);
    unmount(&place.state())?;
    network::remove(place)?;
    control_groups::remove(place)?;
    remove_strays(place, &sockets);
    let state = place.state();
    if state.exists() {
        std::fs::remove_dir_all(&state).with_context(|| format!("cannot remove {}", state.display()))?;
    }
    Ok(())
}

/// Ends everything that runs on one node, as a cut of its power does; what it stored stays.
///
/// # Errors
/// Something still runs; says what.
pub fn power_off(place: &Place, node: u8) -> Result<()> {
    let _cleaning = interrupt::cleaning();
    for name in node::components(node) {
        component::stop(place, &name);
    }
    end(place, node..node + 1)
}

/// Ends all processes: components first, since they start others anew.
fn end_processes(place: &Place) -> Result<()> {
    for name in component::started(place) {
        component::kill(place, &name);
    }
    end(place, 0..NODES_MAX)
}

/// Ends whatever runs on these nodes, again until nothing does.
fn end(place: &Place, nodes: Range<u8>) -> Result<()> {
    let marks = marks(place, nodes.clone());
    let start = Instant::now();
    loop {
        let mut left = marks.find();
        left.extend(control_groups::processes(place, nodes.clone()));
        if left.is_empty() {
            return Ok(());
        }
        if start.elapsed() > PROCESSES {
            let names: Vec<String> = left.into_iter().map(processes::name).collect();
            bail!("these processes do not end: {}", names.join(", "));
        }
        left.into_iter().for_each(processes::kill);
        std::thread::sleep(LOOK);
    }
}

/// What tells the processes of these nodes from others: the network of a node, or being the runtime's helper for a pod.
fn marks(place: &Place, nodes: Range<u8>) -> Marks {
    let own = ["/proc/self/ns/net", "/proc/1/ns/net"].map(|file| processes::namespace(Path::new(file)));
    let inodes = nodes.clone().filter_map(|node| processes::namespace(&place.namespace_file(node)));
    // Were a name of ours to stand for the machine's own network, everything would have the mark.
    let namespaces: BTreeSet<u64> = inodes.filter(|inode| !own.contains(&Some(*inode))).collect();
    let words = nodes.map(|node| place.containerd(node).display().to_string()).collect();
    Marks { namespaces, words }
}

/// Unmounts everything below a folder, the innermost first.
fn unmount(folder: &Path) -> Result<()> {
    let left = || volumes::mounts().into_iter().filter(|path| path.starts_with(folder)).rev();
    for options in [[].as_slice(), &["--lazy"]] {
        let paths: Vec<PathBuf> = left().collect();
        if !paths.is_empty() {
            // What stays is seen in the next look.
            let _ = run::output(Command::new("umount").args(options).args(paths));
        }
    }
    // To remove a folder with something mounted in it would empty that.
    match left().next() {
        Some(path) => bail!("cannot unmount {}", path.display()),
        None => Ok(()),
    }
}

/// The sockets of the runtime's helpers; it puts them elsewhere, and notes where.
fn shim_sockets(place: &Place) -> Vec<PathBuf> {
    let tasks = (0..NODES_MAX).flat_map(|node| {
        let folder = place.node(node).join("containerd/state/io.containerd.runtime.v2.task/k8s.io");
        std::fs::read_dir(folder).into_iter().flatten().flatten()
    });
    let notes = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("address")).ok());
    notes.filter_map(|note| note.trim().strip_prefix("unix://").map(PathBuf::from)).collect()
}

/// Removes the little that lies outside the cluster's folder. What stays harms no one.
fn remove_strays(place: &Place, sockets: &[PathBuf]) {
    let entries = |folder: &str| {
        std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect::<Vec<_>>()
    };
    let results = entries(POD_RESULTS);
    let pods: BTreeSet<String> =
        results.iter().filter_map(|path| pod_of_result(place, path.file_name()?)).collect();
    let is_of_pod = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        pods.iter().any(|pod| name.contains(pod.as_str()))
    };
    let state = place.state();
    let links = entries(LOG_LINKS);
    let is_link_to_us =
        |path: &&PathBuf| std::fs::read_link(path).is_ok_and(|target| target.starts_with(&state));
    let strays = results.iter().filter(is_of_pod).chain(links.iter().filter(is_link_to_us)).chain(sockets);
    for path in strays {
        let _ = std::fs::remove_file(path);
    }
}

/// The id of a pod of ours in the name of a file `<network>-<pod>-eth0`. There are more files with that id.
fn pod_of_result(place: &Place, name: &OsStr) -> Option<String> {
    let ours =
        |node| name.to_str()?.strip_prefix(&place.label(node))?.strip_prefix('-')?.strip_suffix("-eth0");
    (0..NODES_MAX).find_map(ours).filter(|pod| !pod.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::place::Kind;
    use super::*;

    #[test]
    fn pods_of_ours_are_known_by_their_network() {
        let [place, other] = ["/cache", "/other"].map(|cache| Place::under(Path::new(cache), Kind::Nodes));
        let plane = Place::under(Path::new("/cache"), Kind::ControlPlane);
        let pod = |name: &str| pod_of_result(&place, OsStr::new(name));
        assert_eq!(pod(&format!("{}-0a2b-eth0", place.label(1))).as_deref(), Some("0a2b"));
        assert_eq!(pod(&format!("{}-0a2b-eth0", other.label(1))), None);
        assert_eq!(pod(&format!("{}-0a2b-eth0", plane.label(1))), None);
        assert_eq!(pod("cni-loopback-0a2b-lo"), None);
        assert_eq!(pod("pods-0a2b-eth0"), None);
        assert_eq!(pod(&format!("{}--eth0", place.label(1))), None);
    }

    #[test]
    fn the_machines_own_network_is_no_mark() {
        let folder = tempfile::tempdir().unwrap();
        let found = marks(&Place::under(folder.path(), Kind::Nodes), 0..NODES_MAX).find();
        assert!(!found.contains(&std::process::id()) && !found.contains(&1), "{found:?}");
    }

    #[test]
    fn nothing_mounted_is_nothing_to_unmount() {
        let folder = tempfile::tempdir().unwrap();
        unmount(folder.path()).unwrap();
        assert!(shim_sockets(&Place::under(folder.path(), Kind::Nodes)).is_empty());
    }
}
