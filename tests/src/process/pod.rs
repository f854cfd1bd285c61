//! The sidecar of a pod, as a process.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::program::{Log, program};

/// An end that takes longer has failed.
const END_MAX: Duration = Duration::from_secs(60);

/// What Capstan adds to a pod: `capstan-sidecar`. Killed when dropped.
pub struct Pod {
    child: Child,
    log: Log,
    admin: u16,
}

impl Pod {
    /// Starts the sidecar of a pod of `workload` in the namespace `shop`, with more environment.
    ///
    /// # Panics
    /// When there is no such program, or it cannot be started.
    pub fn start(broker_url: &str, workload: &str, pod: &str, more: &[(&str, &str)]) -> Self {
        let admin = free_port();
        let mut command = Command::new(program("capstan-sidecar"));
        command.env_clear().env("CAPSTAN_BROKER_URL", broker_url).env("CAPSTAN_NAMESPACE", "shop");
        command.env("CAPSTAN_WORKLOAD", workload).env("CAPSTAN_POD", pod);
        // Each has ports of its own: several run on this machine.
        command
            .env("CAPSTAN_ADMIN_PORT", admin.to_string())
            .env("CAPSTAN_GATEWAY_PORT", free_port().to_string());
        command.envs(more.iter().copied());
        let mut child =
            command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("a sidecar starts");
        let (log, _) = Log::follow(child.stderr.take().expect("its stderr is a pipe"));
        Self { child, log, admin }
    }

    /// Address of one of its pages, such as `/metrics`.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.admin)
    }

    /// What it logged last.
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// Bytes of memory that it had most at any time.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn memory_peak(&self) -> u64 {
        let file = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(file).expect("the process is there");
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
        peak.and_then(|text| text.trim().parse::<u64>().ok()).expect("a line VmHWM") * 1024
    }

    /// Asks it to end (SIGTERM); [`Self::ended`] waits.
    ///
    /// # Panics
    /// When it is gone.
    pub fn terminate(&self) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(id, Signal::TERM).expect("the process is a child that nobody waited for");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within a minute.
    pub fn ended(mut self) -> (ExitStatus, Log) {
        let deadline = Instant::now() + END_MAX;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return (status, self.log.clone());
            }
            assert!(Instant::now() < deadline, "the sidecar does not end:\n{}", self.log);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody has at this moment.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there are free ports");
    listener.local_addr().expect("it is bound").port()
}
