//! Keeps what a cluster looked like after a failure.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{repo, run};

/// Pods whose logs are kept, and lines of each.
const PODS: usize = 100;
const TAIL: &str = "--tail=2000";

const KINDS: &str = "all,queues.capstan.dev,consumers.capstan.dev,brokers.capstan.dev,pvc,pv,leases,nodes";
const OWN: &str = "queues.capstan.dev,consumers.capstan.dev,brokers.capstan.dev";

/// Writes objects, events and logs below `target/test-logs/<name>` and returns that folder. What cannot be had is left
/// out: the failure itself is told elsewhere.
///
/// # Errors
/// The folder cannot be written.
pub fn cluster(name: &str, tool: impl Fn(&str) -> Command, logs: Option<&Path>) -> Result<PathBuf> {
    let folder = repo::target().join("test-logs").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let kubectl = |arguments: &[&str]| {
        let mut command = tool("kubectl");
        run::output(command.args(arguments).arg("--request-timeout=20s"))
    };
    let keep = |file: &str, arguments: &[&str]| {
        let text = kubectl(arguments).unwrap_or_else(|error| format!("{error:#}\n"));
        std::fs::write(folder.join(file), text)
            .with_context(|| format!("cannot write to {}", folder.display()))
    };
    keep("objects.txt", &["get", KINDS, "--all-namespaces", "--output=wide"])?;
    keep("capstan.yaml", &["get", OWN, "--all-namespaces", "--output=yaml"])?;
    keep("pods.yaml", &["get", "pods", "--all-namespaces", "--output=yaml"])?;
    keep("events.txt", &["get", "events", "--all-namespaces", "--sort-by=.metadata.creationTimestamp"])?;
    let names = "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{\"\\n\"}{end}";
    let pods = kubectl(&["get", "pods", "--all-namespaces", "--output", names]).unwrap_or_default();
    for (namespace, pod) in pods.lines().filter_map(|line| line.split_once(' ')).take(PODS) {
        let file = format!("{namespace}-{pod}.log");
        keep(&file, &["logs", "--namespace", namespace, pod, "--all-containers", "--prefix", TAIL])?;
    }
    if let Some(logs) = logs {
        copy(logs, &folder)?;
    }
    Ok(folder)
}

/// Copies the logs of the cluster's own programs.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", from.display()))?.path();
        if let Some(name) = path.file_name().filter(|_| path.is_file()) {
            let name = format!("cluster-{}", name.to_string_lossy());
            std::fs::copy(&path, to.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_copied_under_names_of_their_own() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(from.path().join("etcd.log"), "started").unwrap();
        std::fs::create_dir(from.path().join("folder")).unwrap();
        copy(from.path(), to.path()).unwrap();
        assert_eq!(std::fs::read_to_string(to.path().join("cluster-etcd.log")).unwrap(), "started");
        assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 1);
    }
}
