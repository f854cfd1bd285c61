//! Runs commands: each in a process group of its own, its lines handed on as they come, nothing of it left afterwards.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::interrupt::{self, Group};

/// How often a caller hears from a command that prints nothing.
const TICK: Duration = Duration::from_secs(1);
/// How long output may stay open after its program ended: a process it left behind holds it.
const LINGER: Duration = Duration::from_secs(3);
/// Lines of a failed command that its error repeats.
const TAIL: usize = 60;

/// What a running command has to say.
pub enum Event<'a> {
    /// A line of its standard output, without the line break.
    Out(&'a str),
    /// A line of its standard error.
    Err(&'a str),
    /// A second went by without a line.
    Tick,
}

enum Piece {
    Out(String),
    Err(String),
}

/// Runs a command without input and tells `hear` what it prints.
///
/// # Errors
/// It cannot be started.
pub fn listen(command: &mut Command, mut hear: impl FnMut(Event<'_>)) -> Result<ExitStatus> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", name(command)))?;
    let group = Group::new(child.id());
    let (sender, receiver) = sync_channel(1024);
    if let Some(out) = child.stdout.take() {
        forward(out, sender.clone(), Piece::Out);
    }
    if let Some(err) = child.stderr.take() {
        forward(err, sender.clone(), Piece::Err);
    }
    drop(sender);
    let mut ended = None;
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(Piece::Out(line)) => hear(Event::Out(&line)),
            Ok(Piece::Err(line)) => hear(Event::Err(&line)),
            Err(RecvTimeoutError::Timeout) => hear(Event::Tick),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if overdue(&mut child, &mut ended)? {
            break;
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for {}", name(command)))?;
    drop(group);
    Ok(status)
}

/// Runs a command that must succeed and returns its standard output.
///
/// # Errors
/// It cannot be started, or fails; the error repeats the end of what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let (mut out, mut all) = (String::new(), Vec::new());
    let status = listen(command, |event| match event {
        Event::Out(line) => {
            out.push_str(line);
            out.push('\n');
            all.push(line.to_owned());
        }
        Event::Err(line) => all.push(line.to_owned()),
        Event::Tick => {}
    })?;
    ensure(command, status, &all)?;
    Ok(out)
}

/// An error unless the command succeeded.
///
/// # Errors
/// The status is not success; repeats the end of `lines`.
pub fn ensure(command: &Command, status: ExitStatus, lines: &[String]) -> Result<()> {
    interrupt::check()?;
    if status.success() {
        return Ok(());
    }
    let tail = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n");
    bail!("{} failed ({status}):\n{tail}", name(command))
}

/// A command as one would type it.
pub fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Whether the program ended so long ago that only something it left behind keeps its output open.
fn overdue(child: &mut Child, ended: &mut Option<Instant>) -> Result<bool> {
    if ended.is_none() && child.try_wait().context("cannot wait for a command")?.is_some() {
        *ended = Some(Instant::now());
    }
    Ok(ended.is_some_and(|at| at.elapsed() > LINGER))
}

fn forward(pipe: impl Read + Send + 'static, sender: SyncSender<Piece>, wrap: fn(String) -> Piece) {
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line);
            if sender.send(wrap(text.trim_end_matches(['\n', '\r']).to_owned())).is_err() {
                return;
            }
            line.clear();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_streams_arrive() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = listen(&mut shell("echo a; echo b >&2; printf c; exit 3"), |event| match event {
            Event::Out(line) => out.push(line.to_owned()),
            Event::Err(line) => err.push(line.to_owned()),
            Event::Tick => {}
        });
        assert_eq!(status.unwrap().code(), Some(3));
        assert_eq!((out, err), (vec!["a".to_owned(), "c".to_owned()], vec!["b".to_owned()]));
    }

    #[test]
    fn what_a_command_leaves_behind_is_ended() {
        let out = output(&mut shell("sleep 600 & echo $!")).unwrap();
        let left = format!("/proc/{}/stat", out.trim());
        let gone = || std::fs::read_to_string(&left).map_or(true, |stat| stat.contains(") Z "));
        let start = Instant::now();
        while !gone() {
            assert!(start.elapsed() < Duration::from_secs(20), "{left} is still there");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn an_error_repeats_what_was_printed() {
        let error = output(&mut shell("echo about to fail; exit 1")).unwrap_err().to_string();
        assert!(error.contains("about to fail") && error.contains("exit 1"), "{error}");
    }
}
