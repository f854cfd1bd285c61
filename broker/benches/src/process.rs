//! A server's processes: ended by their id, their processor time and memory read from `/proc`.

use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// An end that takes longer has failed.
const END_MAX: Duration = Duration::from_secs(30);
/// Ticks of the kernel's clock in a second, on every Linux of today.
const TICKS: f64 = 100.0;

/// A process and those that it started. Ended when dropped.
pub struct Process {
    child: Child,
    signal: Signal,
}

impl Process {
    /// Starts a command that `signal` ends.
    ///
    /// # Errors
    /// There is no such program.
    pub fn spawn(command: &mut Command, signal: Signal) -> Result<Self> {
        let child = command.spawn().with_context(|| {
            format!("cannot start {:?}: `cargo xtask bench` installs what is missing", command.get_program())
        })?;
        Ok(Self { child, signal })
    }

    /// Whether it ended by itself.
    ///
    /// # Errors
    /// The system does not say.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Ends it, and waits until it is gone.
    ///
    /// # Errors
    /// It does not end.
    pub fn end(&mut self) -> Result<()> {
        let deadline = Instant::now() + END_MAX;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
                bail!("process {} did not end by {:?}", self.child.id(), self.signal);
            }
            if let Some(id) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
                kill_process(id, self.signal)?;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Processor seconds of all its processes, ended ones that were waited for included.
    pub fn cpu(&self) -> f64 {
        self.tree().iter().map(|id| cpu(*id, true)).sum()
    }

    /// Bytes of memory of all its processes, shared pages in proportion.
    pub fn memory(&self) -> u64 {
        self.tree().iter().map(|id| memory(*id)).sum()
    }

    fn tree(&self) -> Vec<u32> {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for id in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(id) = id.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(parent) = stat(id).and_then(|fields| fields.get(1)?.parse().ok()) {
                children.entry(parent).or_default().push(id);
            }
        }
        let (mut tree, mut next) = (vec![self.child.id()], 0);
        while let Some(id) = tree.get(next) {
            tree.extend(children.remove(id).unwrap_or_default());
            next += 1;
        }
        tree
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.end();
    }
}

/// Processor seconds of this program.
pub fn own_cpu() -> f64 {
    cpu(std::process::id(), false)
}

/// Processor seconds that the whole machine was busy or had to wait for its host.
///
/// # Errors
/// This is no Linux.
pub fn machine_cpu() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    busy(&text).context("/proc/stat says nothing")
}

fn busy(stat: &str) -> Option<f64> {
    let fields: Vec<f64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal: what follows is counted among user.
    Some(
        fields.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, t)| t).sum::<f64>()
            / TICKS,
    )
}

/// The fields behind the program's name, which may hold anything: state, parent, …
fn stat(id: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn cpu(id: u32, waited_for: bool) -> f64 {
    // utime, stime, cutime, cstime
    let last = if waited_for { 15 } else { 13 };
    let fields = stat(id).unwrap_or_default();
    let ticks = fields.get(11..last).unwrap_or_default();
    ticks.iter().filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

fn memory(id: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_counted_and_ended() {
        let mut command = Command::new("sh");
        // The loop ends with the shell above it, whatever becomes of this test.
        command.args(["-c", "sh -c 'while kill -0 $PPID 2>/dev/null; do :; done' & wait"]);
        let mut process = Process::spawn(&mut command, Signal::TERM).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while process.cpu() < 0.05 {
            assert!(Instant::now() < deadline, "the child's processor time does not count");
        }
        assert!(process.memory() > 0 && process.tree().len() == 2);
        assert!(!process.has_ended().unwrap());
        process.end().unwrap();
        assert!(process.has_ended().unwrap());
    }

    #[test]
    fn idle_and_waiting_for_the_disk_are_not_busy() {
        assert_eq!(busy("cpu  100 10 20 9999 8888 1 2 7 50 0\ncpu0 1").unwrap(), 1.4);
        assert!(machine_cpu().unwrap() > 0.0 && own_cpu() >= 0.0);
    }
}
