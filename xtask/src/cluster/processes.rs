//! Processes: told apart by when they started, and found by what they belong to.

use std::collections::BTreeSet;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A process that cannot be mistaken for a later one with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pid: u32,
    /// Clock ticks since the machine started.
    start: u64,
}

impl Identity {
    /// Of a running process; nothing of one that ended.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; the state is the first field behind it, the start the twentieth.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        if fields.next()? == "Z" {
            return None;
        }
        Some(Self { pid, start: fields.nth(18)?.parse().ok()? })
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Ends it and its process group at once.
    pub fn kill_group(&self) {
        if let Some(pid) = raw(self.pid).filter(|_| self.is_alive()) {
            // A process that is gone is what we want.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.start)
    }
}

impl FromStr for Identity {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (pid, start) = text.split_once(' ').ok_or_else(|| anyhow::anyhow!("no process: {text:?}"))?;
        Ok(Self { pid: pid.parse()?, start: start.parse()? })
    }
}

/// Ends a process at once.
pub fn kill(pid: u32) {
    if let Some(pid) = raw(pid) {
        // A process that is gone is what we want.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// What a cluster's processes can be told by.
#[derive(Debug, Default)]
pub struct Marks {
    /// Inodes of network namespaces.
    pub namespaces: BTreeSet<u64>,
    /// Strings of which a command line has one.
    pub words: Vec<String>,
}

impl Marks {
    /// The running processes that have such a mark; this one is none of them.
    pub fn find(&self) -> BTreeSet<u32> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| *pid != std::process::id() && self.has(*pid) && Identity::of(*pid).is_some())
            .collect()
    }

    fn has(&self, pid: u32) -> bool {
        let namespace = namespace(Path::new(&format!("/proc/{pid}/ns/net")));
        if namespace.is_some_and(|inode| self.namespaces.contains(&inode)) {
            return true;
        }
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let has =
            |word: &String| !word.is_empty() && line.windows(word.len()).any(|part| part == word.as_bytes());
        self.words.iter().any(has)
    }
}

/// What tells a network namespace from others, by a file that stands for it.
pub fn namespace(file: &Path) -> Option<u64> {
    std::fs::metadata(file).ok().map(|data| data.ino())
}

/// A name for messages: the program's.
pub fn name(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{} ({pid})", name.trim())
}

fn raw(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok().filter(|pid| *pid > 1)?)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_id() {
        let own = Identity::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert_eq!(own.to_string().parse::<Identity>().unwrap(), own);
        assert!(!Identity { start: own.start + 1, ..own }.is_alive());
    }

    #[test]
    fn a_process_that_ended_is_not_alive() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        kill(child.id());
        child.wait().unwrap();
        assert!(!identity.is_alive());
    }

    #[test]
    fn processes_are_found_by_their_command_line() {
        let word = format!("600.{}", std::process::id());
        let mut child = Command::new("sleep").arg(&word).spawn().unwrap();
        // Until exec is through, the child is a copy of this process.
        let line = format!("/proc/{}/cmdline", child.id());
        let found = |words: Vec<String>| Marks { words, ..Marks::default() }.find();
        let start = std::time::Instant::now();
        while !String::from_utf8_lossy(&std::fs::read(&line).unwrap()).contains(&word) {
            assert!(start.elapsed().as_secs() < 20, "{line} does not show {word}");
            std::thread::yield_now();
        }
        assert_eq!(found(vec![word]), BTreeSet::from([child.id()]));
        assert!(found(vec![]).is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
