//! The control groups of nodes: one root for each kubelet, in every hierarchy that this machine has.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::place::{NODES_MAX, Place};

const MOUNT: &str = "/sys/fs/cgroup";
/// Version 2 beside version 1.
const HYBRID: &str = "unified";
/// How long a group may be in use after its processes were killed.
const BUSY: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);
/// What the kubelet asks for, which version 2 hands down by name.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "hugetlb"];
/// Files that a new cpuset needs before it takes processes.
const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// The root of a node's pods, as the kubelet names it.
pub fn root(place: &Place, node: u8) -> String {
    format!("/{}", place.label(node))
}

/// Makes a node's groups.
///
/// # Errors
/// The machine allows no control groups.
pub fn make(place: &Place, node: u8) -> Result<()> {
    let handed_down = Path::new(MOUNT).join("cgroup.subtree_control");
    if handed_down.exists() {
        for controller in CONTROLLERS {
            // One at a time, for kernels that lack some; the kubelet names what it misses.
            let _ = std::fs::write(&handed_down, format!("+{controller}"));
        }
    }
    for hierarchy in hierarchies() {
        let group = hierarchy.join(place.label(node));
        std::fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
        if hierarchy.ends_with("cpuset") {
            for file in CPUSET {
                let copy =
                    std::fs::read(hierarchy.join(file)).and_then(|all| std::fs::write(group.join(file), all));
                copy.with_context(|| format!("cannot set {}", group.join(file).display()))?;
            }
        }
    }
    Ok(())
}

/// The processes in the groups of these nodes.
pub fn processes(place: &Place, nodes: Range<u8>) -> Vec<u32> {
    let lists = groups(place, nodes)
        .into_iter()
        .filter_map(|group| std::fs::read_to_string(group.join("cgroup.procs")).ok());
    lists.flat_map(|list| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Removes the groups of all nodes.
///
/// # Errors
/// One stays in use.
pub fn remove(place: &Place) -> Result<()> {
    let start = Instant::now();
    loop {
        let groups = groups(place, 0..NODES_MAX);
        let Some(first) = groups.first() else { return Ok(()) };
        if start.elapsed() > BUSY {
            bail!("cannot remove the control group {}", first.display());
        }
        for group in &groups {
            // In use for a moment after its last process was killed; looked at again.
            let _ = std::fs::remove_dir(group);
        }
        std::thread::sleep(LOOK);
    }
}

/// All groups of these nodes, the innermost first; also the ones in version 2 beside version 1, where runtimes make their
/// own.
fn groups(place: &Place, nodes: Range<u8>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in hierarchies().into_iter().chain([Path::new(MOUNT).join(HYBRID)]) {
        for node in nodes.clone() {
            collect(&hierarchy.join(place.label(node)), &mut found);
        }
    }
    found
}

/// One in version 2; in version 1 one for each controller, some of them by a link from another name.
fn hierarchies() -> Vec<PathBuf> {
    let mount = Path::new(MOUNT);
    if mount.join("cgroup.controllers").exists() {
        return vec![mount.to_owned()];
    }
    let entries = std::fs::read_dir(mount).into_iter().flatten().flatten();
    let is_folder = |path: &PathBuf| path.is_dir() && !path.is_symlink() && !path.ends_with(HYBRID);
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_folder).collect();
    found.sort();
    found
}

fn collect(group: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(group) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        collect(&entry.path(), found);
    }
    found.push(group.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_group_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/cgroup.procs"), "").unwrap();
        let mut found = Vec::new();
        collect(folder.path(), &mut found);
        assert_eq!(found, [folder.path().join("a/b"), folder.path().join("a"), folder.path().to_owned()]);
    }
}
