//! `capstan-sidecar` as a process.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::broker::memory;
use super::program::{Log, program};

/// A start or an end that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A sidecar process whose gateway listens. Killed when dropped.
pub struct Sidecar {
    child: Child,
    log: Log,
    gateway: SocketAddr,
    admin: SocketAddr,
}

impl Sidecar {
    /// Starts the sidecar of a pod of `workload` in the namespace `shop`, with more environment.
    ///
    /// # Panics
    /// When there is no such program, or its gateway does not listen within a minute.
    pub fn start(broker_url: &str, workload: &str, pod: &str, more: &[(&str, &str)]) -> Self {
        // Each has ports of its own: several run on this machine.
        let (gateway, admin) = (free(), free());
        let mut command = Command::new(program("capstan-sidecar"));
        command.env_clear().env("CAPSTAN_BROKER_URL", broker_url).env("CAPSTAN_NAMESPACE", "shop");
        command.env("CAPSTAN_WORKLOAD", workload).env("CAPSTAN_POD", pod);
        // As its image has it.
        command.env("MALLOC_ARENA_MAX", "1").env("MALLOC_MMAP_THRESHOLD_", "65536");
        command.env("MALLOC_TRIM_THRESHOLD_", "131072");
        command.env("CAPSTAN_GATEWAY_PORT", gateway.port().to_string());
        command.env("CAPSTAN_ADMIN_PORT", admin.port().to_string()).envs(more.iter().copied());
        let mut child =
            command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("a sidecar starts");
        let (log, lines) = Log::follow(child.stderr.take().expect("its stderr is a pipe"));
        let sidecar = Self { child, log, gateway, admin };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains("\"port\":\"gateway\"") => return sidecar,
                Ok(_) => {}
                Err(error) => panic!("the gateway does not listen ({error}):\n{}", sidecar.log),
            }
        }
    }

    /// `http://HOST:PORT` of the gateway.
    pub fn gateway_url(&self) -> String {
        format!("http://{}", self.gateway)
    }

    /// Where the gateway listens.
    pub fn gateway(&self) -> SocketAddr {
        self.gateway
    }

    /// Address of a page of the admin port, such as `/metrics`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    /// What it logged last.
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// Bytes of memory that it has for itself and its share of what others have too.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn memory(&self) -> u64 {
        memory(self.child.id())
    }

    /// Most bytes of memory that it had at once, what it shares with others included.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn memory_peak(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let text = text.expect("the process is there");
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
        peak.and_then(|text| text.trim().parse::<u64>().ok()).expect("a line VmHWM") * 1024
    }

    /// Asks it to end, as Kubernetes does (SIGTERM); [`Self::ended`] waits.
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
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return (status, self.log.clone());
            }
            assert!(Instant::now() < deadline, "the sidecar does not end:\n{}", self.log);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it.
    ///
    /// # Panics
    /// When it does not end well within a minute.
    pub fn stop(self) {
        self.terminate();
        let (status, log) = self.ended();
        assert!(status.success(), "the sidecar ended with {status}:\n{log}");
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free")
}
