//! `capstan-broker` as a process.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use capstan_api::{Client, ControlClient};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use super::clock::Clock;
use super::program::{Log, program};

/// A start that takes longer has failed: it replays a journal of tens of megabytes at most.
const START_MAX: Duration = Duration::from_secs(60);
/// An end that takes longer has failed: the broker gives open requests ten seconds.
const END_MAX: Duration = Duration::from_secs(30);

/// A broker process that may not listen yet. Killed when dropped.
pub struct Starting {
    child: Child,
    log: Log,
    lines: Receiver<String>,
}

impl Starting {
    /// Starts a process over the store in `data`.
    ///
    /// # Panics
    /// When there is no such program, or it cannot be started.
    pub fn spawn(data: &Path) -> Self {
        Self::after("", data, &[])
    }

    /// The same, with the HTTP API at `address`, where one that was killed listened.
    ///
    /// # Panics
    /// As [`Self::spawn`].
    pub fn at(data: &Path, address: SocketAddr) -> Self {
        Self::listening("", data, address, &[])
    }

    /// The same, with a wall clock that `clock` steps.
    ///
    /// # Panics
    /// As [`Self::spawn`].
    pub fn with_clock(data: &Path, clock: &Clock) -> Self {
        Self::after("", data, &clock.environment())
    }

    /// The same, with at most `count` files and connections open at once.
    ///
    /// # Panics
    /// As [`Self::spawn`].
    pub fn with_open_files(data: &Path, count: u64) -> Self {
        Self::after(&format!("ulimit -n {count};"), data, &[])
    }

    fn after(script: &str, data: &Path, environment: &[(&str, OsString)]) -> Self {
        Self::listening(script, data, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), environment)
    }

    fn listening(script: &str, data: &Path, address: SocketAddr, environment: &[(&str, OsString)]) -> Self {
        // A file that may not grow then fails the write, as a full disk does, instead of killing the process.
        let script = format!("{script} trap '' XFSZ; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(program("capstan-broker"));
        command
            .arg("--listen")
            .arg(address.to_string())
            .args(["--admin-listen", "127.0.0.1:0", "--data"])
            .arg(data);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CAPSTAN_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("a broker starts");
        let (log, lines) = Log::follow(child.stderr.take().expect("its stderr is a pipe"));
        Self { child, log, lines }
    }

    /// Waits until both ports listen.
    ///
    /// # Panics
    /// When the process ends before, or takes longer than a minute.
    pub fn ready(mut self) -> Broker {
        let deadline = Instant::now() + START_MAX;
        let (mut api, mut admin) = (None, None);
        loop {
            if let (Some(api), Some(admin)) = (api, admin) {
                return Broker { starting: self, api, admin };
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => match listening(&line) {
                    Some((port, address)) if port == "api" => api = Some(address),
                    Some((_, address)) => admin = Some(address),
                    None => {}
                },
                Err(RecvTimeoutError::Timeout) => panic!("the broker does not listen:\n{}", self.log),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the broker ended at its start with {:?}:\n{}", self.child.wait(), self.log)
                }
            }
        }
    }

    /// Waits for the process to end by itself; answers how it did, and its log.
    ///
    /// # Panics
    /// When it does not within 30 seconds.
    pub fn ended(mut self) -> (ExitStatus, Log) {
        let status = wait(&mut self.child, &self.log);
        // Its last lines may not have been read yet; the channel ends with them.
        while self.lines.recv_timeout(END_MAX).is_ok() {}
        (status, self.log.clone())
    }

    /// Kills the process (SIGKILL) and waits until it is gone.
    pub fn kill(mut self) {
        kill(&mut self.child);
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        kill(&mut self.child);
    }
}

/// A broker process that serves. Killed when dropped.
pub struct Broker {
    starting: Starting,
    api: SocketAddr,
    admin: SocketAddr,
}

impl Broker {
    /// Starts a broker over the store in `data` and waits until it serves.
    ///
    /// # Panics
    /// As [`Starting::ready`].
    pub fn start(data: &Path) -> Self {
        Starting::spawn(data).ready()
    }

    /// Where the HTTP API listens.
    pub fn address(&self) -> SocketAddr {
        self.api
    }

    /// `http://HOST:PORT` of the HTTP API.
    pub fn url(&self) -> String {
        format!("http://{}", self.api)
    }

    /// `http://HOST:PORT` of the admin port.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// A client of the HTTP API.
    pub fn client(&self) -> Client {
        Client::new(&self.url()).unwrap()
    }

    /// A client of the control API.
    pub fn control(&self) -> ControlClient {
        ControlClient::new(&self.admin_url()).unwrap()
    }

    /// What it logged last.
    pub fn log(&self) -> Log {
        self.starting.log.clone()
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.starting.child.try_wait(), Ok(None))
    }

    /// Bytes of memory that it has for itself and its share of what others have too.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn memory(&self) -> u64 {
        memory(self.starting.child.id())
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(self) {
        self.starting.kill();
    }

    /// Asks it to end (SIGTERM); [`Self::ended`] waits.
    pub fn terminate(&self) {
        self.killer().signal(Signal::TERM);
    }

    /// Sends it SIGHUP, as a terminal does that is closed.
    pub fn hang_up(&self) {
        self.killer().signal(Signal::HUP);
    }

    /// Lets it run no more (SIGSTOP), as a machine does that freezes.
    pub fn freeze(&self) {
        self.killer().signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) {
        self.killer().signal(Signal::CONT);
    }

    /// A way to kill it from elsewhere.
    pub fn killer(&self) -> Killer {
        Killer(self.id())
    }

    /// From now on it can write nothing to a file behind the first `bytes`.
    pub fn limit_files(&self, bytes: u64) {
        let limit = Rlimit { current: Some(bytes), maximum: None };
        prlimit(Some(self.id()), Resource::Fsize, limit).expect("the limit of a child can be set");
    }

    fn id(&self) -> Pid {
        let id = i32::try_from(self.starting.child.id()).ok().and_then(Pid::from_raw);
        id.expect("a process id")
    }

    /// Waits for its end; answers how it ended, and its log.
    ///
    /// # Panics
    /// When it does not end within 30 seconds.
    pub fn ended(self) -> (ExitStatus, Log) {
        self.starting.ended()
    }

    /// Ends it as Kubernetes does (SIGTERM).
    ///
    /// # Panics
    /// When it does not end well.
    pub fn stop(self) {
        self.terminate();
        let (status, log) = self.ended();
        assert!(status.success(), "the broker ended with {status}:\n{log}");
    }
}

/// Kills a broker that somebody else holds. Not to be used when the [`Broker`] is gone.
#[derive(Debug, Clone, Copy)]
pub struct Killer(Pid);

impl Killer {
    /// Kills the process (SIGKILL), without waiting.
    pub fn kill(self) {
        self.signal(Signal::KILL);
    }

    fn signal(self, signal: Signal) {
        kill_process(self.0, signal).expect("the process is a child that nobody waited for");
    }
}

/// Bytes of memory that a process has for itself and its share of what others have too.
pub(super) fn memory(process: u32) -> u64 {
    let text =
        std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).expect("the process is there");
    let pss = text.lines().find_map(|line| line.strip_prefix("Pss:")?.strip_suffix("kB"));
    pss.and_then(|text| text.trim().parse::<u64>().ok()).expect("a line Pss") * 1024
}

/// The port and address of a log line that tells of them.
fn listening(line: &str) -> Option<(String, SocketAddr)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").filter(|fields| fields["message"] == "listening")?;
    Some((fields["port"].as_str()?.to_owned(), fields["address"].as_str()?.parse().ok()?))
}

fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn wait(child: &mut Child, log: &Log) -> ExitStatus {
    let deadline = Instant::now() + END_MAX;
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        assert!(Instant::now() < deadline, "the broker does not end:\n{log}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
