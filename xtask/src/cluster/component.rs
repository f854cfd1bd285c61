//! The programs of a cluster as processes: started in a namespace, found again by a later run, ended.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use super::place::{Place, namespace_file};
use crate::{interrupt, run};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long a killed component may take to be gone.
const END: Duration = Duration::from_secs(5);
/// Lines of a log that an error repeats.
const TAIL: usize = 25;

/// A command that runs in the network namespace of a node.
pub fn inside(node: u8, program: impl AsRef<std::ffi::OsStr>) -> Command {
    // `ip netns exec` would remount /sys and hide the control groups from kubelet and containerd.
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace_file(node))).arg("--").arg(program);
    command
}

/// Starts a component, with its log in a file. It outlives this program.
///
/// # Errors
/// It cannot be started.
pub fn start(place: &Place, name: &str, command: &mut Command) -> Result<()> {
    let log = place.logs().join(format!("{name}.log"));
    let log = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let errors = log.try_clone().context("cannot share a log")?;
    command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
    let child = command.spawn().with_context(|| format!("cannot start {name}: {}", run::name(command)))?;
    let identity = identity(child.id()).unwrap_or_default();
    std::fs::write(place.pids().join(name), format!("{} {identity}", child.id()))
        .with_context(|| format!("cannot note the process of {name}"))
}

/// Waits until `ready` says so.
///
/// # Errors
/// A component ended, the time is over, or the user asked to stop; shows the end of the log.
pub fn wait(place: &Place, name: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    loop {
        interrupt::check()?;
        if ready() {
            return Ok(());
        }
        if !is_alive(place, name) {
            bail!("{name} ended; {}", log(place, name));
        }
        if start.elapsed() > limit {
            bail!("{name} is not ready after {} s; {}", limit.as_secs(), log(place, name));
        }
        std::thread::sleep(LOOK);
    }
}

/// Ends a component and what it started; nothing when it does not run. Not gently: nothing of a cluster's state is kept.
pub fn stop(place: &Place, name: &str) {
    let file = place.pids().join(name);
    if let Some(pid) = running(&file) {
        // A process that is gone is what we want.
        let _ = kill_process_group(pid, Signal::KILL);
        let start = Instant::now();
        while running(&file).is_some() && start.elapsed() < END {
            std::thread::sleep(LOOK);
        }
    }
    let _ = std::fs::remove_file(&file);
}

/// Whether a component runs.
pub fn is_alive(place: &Place, name: &str) -> bool {
    running(&place.pids().join(name)).is_some()
}

/// The components that were started and not stopped, by name.
pub fn started(place: &Place) -> Vec<String> {
    let entries = std::fs::read_dir(place.pids()).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The process that a file names, if it still is that process.
fn running(file: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(file).ok()?;
    let (pid, noted) = text.split_once(' ')?;
    let pid: u32 = pid.parse().ok()?;
    let is_same = identity(pid).is_some_and(|now| now == noted);
    if is_same { Pid::from_raw(i32::try_from(pid).ok()?) } else { None }
}

/// What tells a process from a later one with the same id: when it started. Nothing of one that ended.
fn identity(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the state is the first field behind it, the start the twentieth.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    if state == "Z" { None } else { fields.nth(18).map(str::to_owned) }
}

/// The end of a component's log.
fn log(place: &Place, name: &str) -> String {
    let path = place.logs().join(format!("{name}.log"));
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n");
    format!("the end of {}:\n{tail}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_id() {
        let own = identity(std::process::id()).unwrap();
        assert!(own.parse::<u64>().is_ok(), "{own}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("one");
        std::fs::write(&file, format!("{} {own}", std::process::id())).unwrap();
        assert!(running(&file).is_some());
        std::fs::write(&file, format!("{} {own}0", std::process::id())).unwrap();
        assert!(running(&file).is_none());
    }

    #[test]
    fn a_process_that_ended_is_not_running() {
        let mut child = Command::new("true").spawn().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{} 0", child.id())).unwrap();
        child.wait().unwrap();
        assert!(running(file.path()).is_none());
    }
}
