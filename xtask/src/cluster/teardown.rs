//! Ends a cluster, also one whose starter was killed: pods, programs, mounts, control groups, namespaces, files.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::place::{NODES_MAX, Place, namespace_file};
use super::{component, control_groups, network, node, volumes};
use crate::{interrupt, run};

/// The order in which components end: who would start things anew goes first, container runtimes come later.
const FIRST: [&str; 9] = [
    "volumes",
    "kube-scheduler",
    "kube-controller-manager",
    "kubelet-0",
    "kubelet-1",
    "kubelet-2",
    "kube-proxy-0",
    "kube-proxy-1",
    "kube-proxy-2",
];
/// How long killed containers may take to be gone.
const CONTAINERS: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

/// Ends whatever there is of a cluster.
///
/// # Errors
/// Something is left; says what.
pub fn run(place: &Place) -> Result<()> {
    let _cleaning = interrupt::cleaning();
    for name in FIRST {
        component::stop(place, name);
    }
    for node in 0..NODES_MAX {
        if component::is_alive(place, &format!("containerd-{node}")) {
            end_containers(place, node);
        }
    }
    for name in component::started(place) {
        component::stop(place, &name);
    }
    end_shims(place);
    unmount(&place.state());
    for node in 0..NODES_MAX {
        remove_pod_namespaces(node);
        control_groups::remove(node);
    }
    network::remove(NODES_MAX);
    let state = place.state();
    if state.exists() {
        std::fs::remove_dir_all(&state).with_context(|| format!("cannot remove {}", state.display()))?;
    }
    Ok(())
}

/// Kills all containers of a node and waits until they are gone.
fn end_containers(place: &Place, node: u8) {
    let list = |what: &str| {
        let out = run::output(node::ctr(place, node).args([what, "list", "--quiet"])).unwrap_or_default();
        out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let start = Instant::now();
    loop {
        let tasks = list("tasks");
        if tasks.is_empty() || start.elapsed() > CONTAINERS {
            break;
        }
        for task in tasks {
            let _ = run::output(node::ctr(place, node).args(["tasks", "delete", "--force", &task]));
        }
        std::thread::sleep(LOOK);
    }
    for container in list("containers") {
        let _ = run::output(node::ctr(place, node).args(["containers", "delete", &container]));
    }
}

/// Ends the runtime's helpers of this cluster, which outlive it, and what they run.
fn end_shims(place: &Place) {
    let root = place.state();
    let (mut shims, mut all) = (Vec::new(), Vec::new());
    for (pid, parent, arguments) in processes() {
        let is_shim = arguments.first().is_some_and(|program| program.ends_with("containerd-shim-runc-v2"));
        if is_shim && arguments.iter().any(|argument| Path::new(argument).starts_with(&root)) {
            shims.push(pid);
        }
        all.push((pid, parent));
    }
    let children = all.iter().filter(|(_, parent)| shims.contains(parent)).map(|(pid, _)| *pid);
    for pid in children.chain(shims.iter().copied()) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Every process: its id, its parent's, its arguments.
fn processes() -> Vec<(i32, i32, Vec<String>)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        Some((pid, parent, arguments.split('\0').map(str::to_owned).collect()))
    })
    .collect()
}

/// Unmounts everything below a folder, the innermost first.
fn unmount(folder: &Path) {
    let below = |path: &PathBuf| path.starts_with(folder);
    for path in volumes::mounts().into_iter().filter(below).rev() {
        let _ = run::output(Command::new("umount").arg("--lazy").arg(path));
    }
}

/// Removes the namespaces of pods, which the runtime makes beside those of nodes. Those of others are left alone: only
/// a namespace that is a peer of this node's bridge is of this cluster.
fn remove_pod_namespaces(node: u8) {
    if !Path::new(&namespace_file(node)).exists() {
        return;
    }
    let peers = run::output(component::inside(node, "ip").args(["-o", "link", "show", "master", "cni0"]))
        .unwrap_or_default();
    let ids: Vec<&str> = peers
        .lines()
        .filter_map(|line| line.split("link-netns ").nth(1)?.split_whitespace().next())
        .collect();
    for id in ids.into_iter().filter(|id| id.starts_with("cni-")) {
        let _ = run::output(Command::new("ip").args(["netns", "del", id]));
    }
}
