//! A pod's process, where the node is this machine: found by its container group, ended as the kernel ends processes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

/// Whether the processes of a pod are visible here.
#[must_use]
pub fn is_local(uid: &str, program: &str) -> bool {
    !processes(uid, program).is_empty()
}

/// Sends SIGKILL to the container that runs `program` in the pod: no hook, no grace.
///
/// # Panics
/// When there is not exactly one such process.
pub fn kill_container(uid: &str, program: &str) {
    let found = processes(uid, program);
    let [pid] = found[..] else { panic!("not one process {program} in pod {uid}: {found:?}") };
    println!("SIGKILL to process {pid} ({program})");
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

fn processes(uid: &str, program: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| runs(*pid, program) && is_of(*pid, uid)).collect()
}

fn runs(pid: i32, program: &str) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
    let path = PathBuf::from(String::from_utf8_lossy(first).into_owned());
    path.file_name().is_some_and(|name| name == program)
}

/// Container groups are named after the pod: with its UID as it is, or with '_' where systemd manages them.
fn is_of(pid: i32, uid: &str) -> bool {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    groups.contains(uid) || groups.contains(&uid.replace('-', "_"))
}
