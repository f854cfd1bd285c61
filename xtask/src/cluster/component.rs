//! The programs of a cluster as processes: started in a namespace, found again by a later run, ended.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::place::Place;
use super::processes::Identity;
use crate::{interrupt, run};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of a log that an error repeats.
const TAIL: usize = 25;

/// Set on many machines; in a namespace that reaches no proxy they break every client.
const PROXIES: [&str; 6] =
    ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

/// A command that runs in the network namespace of a node.
pub fn inside(place: &Place, node: u8, program: impl AsRef<std::ffi::OsStr>) -> Command {
    // `ip netns exec` would remount /sys and hide the control groups from kubelet and containerd.
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", place.namespace_file(node).display())).arg("--").arg(program);
    for name in PROXIES {
        command.env_remove(name);
    }
    // By default kubectl and Helm keep what an API server offers in the home folder, by its address, which all clusters share.
    command.env("KUBECACHEDIR", place.state().join("discovery"));
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
    let noted = Identity::of(child.id()).map(|identity| identity.to_string()).unwrap_or_default();
    std::fs::write(place.pids().join(name), noted)
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
        if let Some(ended) = started(place).iter().find(|name| !is_alive(place, name)) {
            bail!("{ended} ended; {}", log(place, ended));
        }
        if start.elapsed() > limit {
            bail!("{name} is not ready after {} s; {}", limit.as_secs(), log(place, name));
        }
        std::thread::sleep(LOOK);
    }
}

/// Ends a component and what it started; nothing when it does not run.
pub fn kill(place: &Place, name: &str) {
    if let Some(process) = running(place, name) {
        process.kill_group();
    }
}

/// Ends a component that is to be away for a while: nobody waits for it or misses it until it is started again.
pub fn stop(place: &Place, name: &str) {
    kill(place, name);
    // Without a note it counts as never started.
    let _ = std::fs::remove_file(place.pids().join(name));
}

/// Whether a component runs.
pub fn is_alive(place: &Place, name: &str) -> bool {
    running(place, name).is_some()
}

/// The components that were started and not stopped, by name.
pub fn started(place: &Place) -> Vec<String> {
    let entries = std::fs::read_dir(place.pids()).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The process of a component, if it still is that process.
fn running(place: &Place, name: &str) -> Option<Identity> {
    let text = std::fs::read_to_string(place.pids().join(name)).ok()?;
    text.parse::<Identity>().ok().filter(Identity::is_alive)
}

/// The end of a component's log.
fn log(place: &Place, name: &str) -> String {
    let path = place.logs().join(format!("{name}.log"));
    let text = std::fs::read(&path).unwrap_or_default();
    format!("the end of {}:\n{}", path.display(), tail(&String::from_utf8_lossy(&text)))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::place::Kind;
    use super::*;

    fn place() -> (tempfile::TempDir, Place) {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::under(folder.path(), Kind::Nodes);
        place.make().unwrap();
        (folder, place)
    }

    #[test]
    fn what_one_cluster_offers_is_not_remembered_of_the_other() {
        let folder = |kind| {
            let command = inside(&Place::under("/cache".as_ref(), kind), 0, "kubectl");
            let found = command.get_envs().find(|(name, _)| *name == "KUBECACHEDIR");
            found.and_then(|(_, value)| value).unwrap().to_owned()
        };
        assert_ne!(folder(Kind::Nodes), folder(Kind::ControlPlane));
    }

    #[test]
    fn a_component_that_ended_is_named_with_its_last_words() {
        let (_folder, place) = place();
        start(&place, "etcd", Command::new("sh").args(["-c", "echo out of luck; exit 1"])).unwrap();
        let error = wait(&place, "api", Duration::from_secs(20), || false).unwrap_err().to_string();
        assert!(error.starts_with("etcd ended") && error.ends_with("out of luck"), "{error}");
    }

    #[test]
    fn a_component_that_does_not_get_ready_is_named() {
        let (_folder, place) = place();
        start(&place, "etcd", Command::new("sleep").arg("600")).unwrap();
        let error = wait(&place, "etcd", Duration::ZERO, || false).unwrap_err().to_string();
        assert!(error.starts_with("etcd is not ready after 0 s"), "{error}");
        kill(&place, "etcd");
    }

    #[test]
    fn a_log_is_cut_to_its_end() {
        let text: String = (0..100).map(|i| format!("{i}\n")).collect();
        let end = tail(&text);
        assert!(end.starts_with("75\n") && end.ends_with("\n99"), "{end}");
    }
}
