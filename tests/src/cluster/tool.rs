//! The command line tools that users have: kubectl and Helm.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// No command may take longer.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs a tool that must succeed, and gives back what it printed.
///
/// # Panics
/// When it fails; the message has everything it printed.
pub async fn run(program: &str, arguments: &[&str]) -> String {
    let printed = execute(program, arguments, None).await;
    printed.unwrap_or_else(|error| panic!("{program} {}: {error}", arguments.join(" ")))
}

/// Runs a tool that may fail: Err has everything it printed.
///
/// # Errors
/// When it fails, or takes longer than five minutes.
pub async fn execute(program: &str, arguments: &[&str], input: Option<&str>) -> Result<String, String> {
    println!("$ {program} {}", arguments.join(" "));
    let mut command = Command::new(path(program));
    command.args(arguments).kill_on_drop(true).current_dir(root());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{program} cannot be run: {error}"))?;
    let mut stdin = child.stdin.take().unwrap();
    let written = async move {
        // A tool that does not read its input closes it.
        let _ = stdin.write_all(input.unwrap_or_default().as_bytes()).await;
    };
    let finished = async { tokio::join!(written, child.wait_with_output()).1 };
    let output = tokio::time::timeout(LIMIT, finished).await;
    let output = output.map_err(|_| format!("not done within {} s", LIMIT.as_secs()))?;
    let output = output.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    if output.status.success() { Ok(stdout) } else { Err(format!("{}\n{stdout}{stderr}", output.status)) }
}

/// The repository's folder, in which tools run.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The tool of `CAPSTAN_TEST_BIN`, else the one of `PATH`.
pub(super) fn path(program: &str) -> PathBuf {
    let ours = std::env::var_os("CAPSTAN_TEST_BIN").map(|folder| PathBuf::from(folder).join(program));
    ours.filter(|path| path.is_file()).unwrap_or_else(|| program.into())
}
