//! The program `capstan-sidecar`.

use std::io::Write;
use std::process::ExitCode;

use capstan_sidecar::{Config, Sidecar, drain};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

/// Level of the log: `error`, `warn`, `info` (the default), `debug` or `trace`.
const LOG: &str = "CAPSTAN_LOG";
/// Exit code of a wrong command line or environment (sysexits' EX_USAGE).
const EXIT_USAGE: u8 = 64;
/// Open files that are enough for any pod.
const FILES: u64 = 32_768;
/// Look-ups of names at once: each has a thread while the name server is slow, and all ask for the same name.
const LOOKUPS_MAX: usize = 8;
const USAGE: &str = "usage: capstan-sidecar [drain]\n\
    \n\
    Without an argument: consumes what the broker says for this pod's workload; the environment names broker and pod.\n\
    drain: drains the sidecar that runs in this pod, and waits until it is drained.\n";

fn main() -> ExitCode {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = match builder.enable_all().max_blocking_threads(LOOKUPS_MAX).build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("capstan-sidecar: no event loop can be made: {error}\n"), 1),
    };
    let code = runtime.block_on(start());
    // A look-up of the broker's name that hangs, on a thread of its own, holds up nothing.
    runtime.shutdown_background();
    code
}

async fn start() -> ExitCode {
    let level = read(LOG).and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    tracing_subscriber::fmt().json().with_max_level(level).with_writer(std::io::stderr).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run().await,
        ["drain"] => finish(drain::drain(read).await),
        ["--version"] => print(&format!("capstan-sidecar {}\n", env!("CARGO_PKG_VERSION"))),
        ["--help"] => print(USAGE),
        _ => fail(USAGE, EXIT_USAGE),
    }
}

fn read(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

async fn run() -> ExitCode {
    let config = match Config::from_env(read) {
        Ok(config) => config,
        Err(error) => return fail(&format!("capstan-sidecar: {error}\n"), EXIT_USAGE),
    };
    raise_files();
    tracing::info!(?config, version = env!("CARGO_PKG_VERSION"), "starting");
    finish(serve(config).await)
}

/// Raises the limit of open files towards the hard one: each call of the application and each pull is a connection.
fn raise_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(FILES).min(FILES);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        tracing::warn!(%error, wanted, "the limit of open files cannot be raised");
    }
}

async fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Taken and ignored, as by the broker: by default it would end the program without a drain.
    let _ignored = signal(SignalKind::hangup())?;
    let sidecar = Sidecar::bind(config).await?;
    sidecar
        .run(async {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        })
        .await;
    Ok(())
}

fn finish<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("capstan-sidecar: {error}\n"), 1),
    }
}

// Nothing is left to do when a text cannot be written.

fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn fail(text: &str, code: u8) -> ExitCode {
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(code)
}
