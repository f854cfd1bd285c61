//! `--app`: starts the application, shows what it writes, starts it again when it ends.

use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Child;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::happening::Happening;

/// Wait before it is started again: doubled each time up to the second, the first again once it ran for a while.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);
const RAN_WELL: Duration = Duration::from_secs(10);
/// How long it may take to end before it is killed.
const END_MAX: Duration = Duration::from_secs(5);
/// Longest line that is shown whole, in bytes.
const LINE_BYTES_MAX: usize = 4096;

/// Begins the application's group: a process in it that waits for the end of standard input, a pipe from this program,
/// and then kills the group. So the application ends with this program however that ends, and holds no port afterwards.
/// The process is no child of the application, which would not expect one, and has none of its outputs.
const GUARDED: &str = "\
exec 3<&0 </dev/null
( { trap '' HUP INT TERM; read -r _; kill -s KILL 0; } <&3 3<&- >/dev/null 2>&1 & )
exec 3<&-
exec sh -c \"$1\"";

/// How it is started.
#[derive(Debug)]
pub(super) struct Command {
    /// For the shell.
    pub(super) line: String,
    pub(super) port: Option<u16>,
    /// The broker.
    pub(super) url: String,
    /// What it sends to.
    pub(super) gateway: String,
}

/// Runs it until `stop`; then it is ended, with everything it started.
pub(super) async fn run(command: Command, sender: Sender<Happening>, stop: CancellationToken) {
    let mut wait = WAIT_MIN;
    loop {
        let began = Instant::now();
        let how = match spawn(&command) {
            Ok(child) => match watch(child, &sender, &stop).await {
                Some(status) => describe(status),
                None => return,
            },
            Err(error) => format!("cannot be started: {error}"),
        };
        if began.elapsed() >= RAN_WELL {
            wait = WAIT_MIN;
        }
        if sender.send(Happening::Exited { how, wait }).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
        wait = (wait * 2).min(WAIT_MAX);
    }
}

fn spawn(command: &Command) -> std::io::Result<Child> {
    let mut shell = tokio::process::Command::new("sh");
    // A group of its own: Ctrl-C reaches this program alone, which ends the application when its calls are finished.
    shell.args(["-c", GUARDED, "sh"]).arg(&command.line).process_group(0);
    shell.env("CAPSTAN_URL", &command.url).env("CAPSTAN_GATEWAY_URL", &command.gateway);
    if let Some(port) = command.port {
        shell.env("PORT", port.to_string());
    }
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// Follows it to its end; nothing when it was ended by `stop`.
async fn watch(mut child: Child, sender: &Sender<Happening>, stop: &CancellationToken) -> Option<ExitStatus> {
    let group = Group::of(&child);
    // Closed when this program ends; waiting for the child would close it sooner.
    let _guarded = child.stdin.take();
    for output in
        [child.stdout.take().map(Output::Out), child.stderr.take().map(Output::Err)].into_iter().flatten()
    {
        let sender = sender.clone();
        // Ends with the last process that holds the pipe.
        tokio::spawn(async move {
            match output {
                Output::Out(out) => copy(out, sender).await,
                Output::Err(err) => copy(err, sender).await,
            }
        });
    }
    tokio::select! {
        status = child.wait() => return status.ok(),
        () = stop.cancelled() => {}
    }
    group.signal(Signal::TERM);
    if tokio::time::timeout(END_MAX, child.wait()).await.is_err() {
        let seconds = END_MAX.as_secs();
        // The view may be full or gone; ending goes on.
        let _ = sender.try_send(Happening::Warning(format!(
            "the application did not end within {seconds} s and was killed"
        )));
    }
    None
}

enum Output {
    Out(tokio::process::ChildStdout),
    Err(tokio::process::ChildStderr),
}

/// The application's processes; killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // It may be gone already.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    }
}

/// Shows each line.
async fn copy(source: impl AsyncRead + Unpin, sender: Sender<Happening>) {
    let mut source = BufReader::with_capacity(LINE_BYTES_MAX, source);
    let mut line: Vec<u8> = Vec::new();
    while let Ok(chunk) = source.fill_buf().await {
        if chunk.is_empty() {
            break;
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(chunk.len(), |end| end + 1);
        line.extend(chunk[..end.unwrap_or(used)].iter().take(LINE_BYTES_MAX.saturating_sub(line.len())));
        source.consume(used);
        if end.is_some() && !show(&mut line, &sender).await {
            return;
        }
    }
    if !line.is_empty() {
        show(&mut line, &sender).await;
    }
}

async fn show(line: &mut Vec<u8>, sender: &Sender<Happening>) -> bool {
    // Colours and cursor movements would get in the way of the view's own.
    let text = String::from_utf8_lossy(line);
    let text = console::strip_ansi_codes(text.trim_end()).replace(char::is_control, " ");
    line.clear();
    sender.send(Happening::Line(text)).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(source: &[u8]) -> Vec<String> {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(100);
        copy(source, sender).await;
        let mut lines = Vec::new();
        while let Some(Happening::Line(line)) = receiver.recv().await {
            lines.push(line);
        }
        lines
    }

    #[tokio::test]
    async fn lines_are_cut_at_a_bound_and_the_last_needs_no_end() {
        let long = "x".repeat(3 * LINE_BYTES_MAX);
        let text = format!("\x1b[31ma\x1b[0m\tb\r\n\n{long}\nlast");
        let expected = ["a b".to_owned(), String::new(), "x".repeat(LINE_BYTES_MAX), "last".to_owned()];
        assert_eq!(lines(text.as_bytes()).await, expected);
    }
}
