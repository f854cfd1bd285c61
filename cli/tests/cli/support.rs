//! Running `capstan dev` and the client commands, and waiting for what they write.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Far longer than anything takes, so that a slow machine is no failure.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// A port on which nothing listens.
pub(crate) const NOBODY: &str = "1";

/// The program, with nothing of this shell's configuration.
pub(crate) fn capstan() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_capstan"));
    for name in ["CAPSTAN_URL", "CAPSTAN_NAMESPACE", "CAPSTAN_LOG", "PORT"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The quickstart's application.
pub(crate) fn example() -> String {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().join("../examples/orders");
    assert!(
        path.exists(),
        "{} is missing: `cargo build -p capstan --example orders` makes it",
        path.display()
    );
    path.canonicalize().unwrap().display().to_string()
}

/// A folder with one YAML file.
pub(crate) fn yaml(text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("all.yaml"), text).unwrap();
    folder
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// The lines of `-o json`.
    pub(crate) fn objects(&self) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}

/// Runs a command to its end.
pub(crate) fn run(args: &[&str]) -> Done {
    run_with(args, "")
}

/// Runs a command with standard input.
pub(crate) fn run_with(args: &[&str], input: &str) -> Done {
    let mut command = capstan();
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[derive(Default)]
struct Written {
    lines: Mutex<Vec<String>>,
    /// Standard output and standard error that have come to their end.
    ended: AtomicUsize,
    more: Condvar,
}

/// A running `capstan dev`.
pub(crate) struct Dev {
    child: Child,
    written: Arc<Written>,
}

impl Dev {
    /// Starts it, on any free port unless `args` name one. Use [`Dev::url`] to wait until it serves.
    pub(crate) fn start(files: &Path, data: &Path, args: &[&str]) -> Self {
        Self::launch(capstan(), files, data, args)
    }

    /// The same through a command that runs what follows it.
    pub(crate) fn start_as(mut command: Command, files: &Path, data: &Path, args: &[&str]) -> Self {
        command.arg(env!("CARGO_BIN_EXE_capstan")).stdin(Stdio::null());
        Self::launch(command, files, data, args)
    }

    fn launch(mut command: Command, files: &Path, data: &Path, args: &[&str]) -> Self {
        command.arg("dev").arg(files).arg("--data").arg(data).args(args);
        if !args.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let written = Arc::new(Written::default());
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        collect(out, Arc::clone(&written));
        collect(err, Arc::clone(&written));
        Self { child, written }
    }

    /// The first line of which `wanted` is true.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + DEADLINE;
        let mut lines = self.written.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|line| wanted(line)) {
                return line.clone();
            }
            let ended = self.written.ended.load(Ordering::SeqCst) == 2;
            assert!(!ended, "it ended without a line with {what}:\n{}", lines.join("\n"));
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no line with {what} within {DEADLINE:?}:\n{}", lines.join("\n"));
            lines = self.written.more.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// The first line that has all of `parts`.
    pub(crate) fn wait(&self, parts: &[&str]) -> String {
        self.wait_for(&format!("{parts:?}"), |line| parts.iter().all(|part| line.contains(part)))
    }

    /// Where its API listens.
    pub(crate) fn url(&self) -> String {
        let line = self.wait(&["API", "http://127.0.0.1:"]);
        line.split_whitespace().last().unwrap().to_owned()
    }

    /// Where its gateway listens.
    pub(crate) fn gateway(&self) -> String {
        let line = self.wait(&["Sends", "http://127.0.0.1:"]);
        line.split_whitespace().nth(1).unwrap().to_owned()
    }

    /// Runs a client command against it.
    pub(crate) fn client(&self, args: &[&str]) -> Done {
        let url = self.url();
        run(&[&[args[0], "--url", &url], &args[1..]].concat())
    }

    /// The backlog of a queue.
    pub(crate) fn backlog(&self, queue: &str) -> u64 {
        let queues = self.client(&["queues", "-o", "json"]).objects();
        let queue = queues.iter().find(|one| one["queue"] == queue).expect(queue);
        queue["backlog_count"].as_u64().unwrap()
    }

    /// All lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.written.lines.lock().unwrap().clone()
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        match ended(&mut self.child) {
            Some(status) => status,
            None => panic!("it does not end:\n{}", self.lines().join("\n")),
        }
    }

    /// Ends it with Ctrl-C.
    pub(crate) fn interrupt(mut self) -> Vec<String> {
        self.signal(Signal::INT);
        assert_eq!(self.ended().code(), Some(0), "{}", self.lines().join("\n"));
        self.wait(&["ended; "]);
        self.lines()
    }
}

impl Drop for Dev {
    /// Also after a failed test, nothing is left running.
    fn drop(&mut self) {
        for signal in [Signal::TERM, Signal::TERM] {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            self.signal(signal);
        }
        let _ = self.child.wait();
    }
}

/// How a process ended, unless it does not.
pub(crate) fn ended(child: &mut Child) -> Option<ExitStatus> {
    let until = Instant::now() + DEADLINE;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    None
}

fn collect(source: impl Read + Send + 'static, written: Arc<Written>) {
    std::thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            written.lines.lock().unwrap().push(line);
            written.more.notify_all();
        }
        let _lines = written.lines.lock().unwrap();
        written.ended.fetch_add(1, Ordering::SeqCst);
        written.more.notify_all();
    });
}

/// A call of the application that waits for its answer.
pub(crate) struct Call {
    pub(crate) batch: Value,
    answer: TcpStream,
}

impl Call {
    /// Answers with a status and a body.
    pub(crate) fn answer(mut self, status: u16, body: &str) {
        let length = body.len();
        let text =
            format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        self.answer.write_all(text.as_bytes()).unwrap();
    }
}

/// An application whose answers the test gives.
pub(crate) struct App {
    address: SocketAddr,
    calls: Receiver<Call>,
    stopping: Arc<AtomicBool>,
    listening: JoinHandle<()>,
}

impl App {
    pub(crate) fn start() -> Self {
        Self::start_on(0)
    }

    pub(crate) fn start_on(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, calls) = channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let listening = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                // Whoever only looks whether it listens sends nothing.
                if let Some(call) = read(stream) {
                    let _ = sender.send(call);
                }
            }
        });
        Self { address, calls, stopping, listening }
    }

    /// Listens no more when this returns.
    pub(crate) fn stop(self) {
        self.stopping.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address).unwrap();
        self.listening.join().unwrap();
    }

    pub(crate) fn port(&self) -> String {
        self.address.port().to_string()
    }

    /// Waits for a call.
    pub(crate) fn call(&self) -> Call {
        self.calls.recv_timeout(DEADLINE).expect("the application is called")
    }
}

fn read(stream: TcpStream) -> Option<Call> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Call { batch: serde_json::from_slice(&body).ok()?, answer: reader.into_inner() })
}

/// Gets JSON from this machine.
pub(crate) fn get(port: &str, path: &str) -> Value {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port.parse().unwrap())).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    serde_json::from_str(body).expect(body)
}
