//! The control groups of nodes: one root for each kubelet, in every hierarchy that this machine has.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::place::namespace;

const MOUNT: &str = "/sys/fs/cgroup";
/// Files that a new cpuset needs before it takes processes.
const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// The root of a node's pods, as the kubelet names it.
pub fn root(node: u8) -> String {
    format!("/{}", namespace(node))
}

/// Makes a node's groups.
///
/// # Errors
/// The machine allows no control groups.
pub fn make(node: u8) -> Result<()> {
    for hierarchy in hierarchies() {
        let group = hierarchy.join(namespace(node));
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

/// Removes a node's groups, as far as they are empty.
pub fn remove(node: u8) {
    for hierarchy in hierarchies() {
        remove_below(&hierarchy.join(namespace(node)));
    }
}

/// One in version 2; in version 1 one for each controller, some of them by a link from another name.
fn hierarchies() -> Vec<PathBuf> {
    let mount = Path::new(MOUNT);
    if mount.join("cgroup.controllers").exists() {
        return vec![mount.to_owned()];
    }
    let entries = std::fs::read_dir(mount).into_iter().flatten().flatten();
    let is_folder = |path: &PathBuf| path.is_dir() && !path.is_symlink() && !path.ends_with("unified");
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_folder).collect();
    found.sort();
    found
}

fn remove_below(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_below(&entry.path());
        }
    }
    // A group that is still in use stays, and the next run tries again.
    let _ = std::fs::remove_dir(group);
}
