//! `capstan dev` as a process.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use capstan_api::Client;
use rustix::process::{Pid, Signal, kill_process};

use super::program::{Log, program};

/// What takes longer has failed: an application may be compiled first.
const PATIENCE: Duration = Duration::from_secs(120);

/// Local mode on ports of its own. Killed when dropped, and its application with it.
pub struct Dev {
    child: Child,
    log: Log,
    lines: Receiver<String>,
}

impl Dev {
    /// Runs `files`, with the data in `data` and more of the command line.
    ///
    /// # Panics
    /// When there is no such program, or it cannot be started.
    pub fn start(files: &[&Path], data: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(program("capstan"));
        command.arg("dev").args(files).args(["--listen", "127.0.0.1:0", "--data"]).arg(data);
        command.args(more).env_remove("CAPSTAN_LOG").env_remove("CAPSTAN_URL");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("local mode starts");
        let (log, lines) = Log::follow(child.stdout.take().expect("its stdout is a pipe"));
        Self { child, log, lines }
    }

    /// The next line that has all of `parts`.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait(&self, parts: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if parts.iter().all(|part| line.contains(part)) => return line,
                Ok(_) => {}
                Err(_) => panic!("no line with {parts:?}:\n{}", self.log),
            }
        }
    }

    /// A client of its API, once it serves.
    ///
    /// # Panics
    /// As [`Self::wait`].
    pub fn client(&self) -> Client {
        let line = self.wait(&["API", "http://127.0.0.1:"]);
        Client::new(line.split_whitespace().last().expect("the line has words")).expect("an address")
    }

    /// What it wrote last.
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// Ends it with Ctrl-C.
    ///
    /// # Panics
    /// When it does not end.
    pub fn interrupt(mut self) -> ExitStatus {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(id, Signal::INT).expect("it runs");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.log);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
