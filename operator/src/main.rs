//! The program `capstan-operator`.

use std::process::ExitCode;

use capstan_operator::config::Config;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Level or filter of the log, such as `info` or `info,kube=debug`.
const LOG: &str = "CAPSTAN_LOG";

/// Reconciles Capstan's Brokers, Queues and Consumers.
#[derive(Debug, Parser)]
#[command(name = "capstan-operator", version)]
struct Cli {
    #[command(flatten)]
    config: Config,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What it does instead.
#[derive(Debug, Clone, Copy, Subcommand)]
enum Command {
    /// Says whether an operator with this configuration and account can do its work, and ends.
    Check,
    /// Takes the sidecars back from all workloads, once, and ends well whatever comes of it.
    Uninstall,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { config, command } = Cli::parse();
    let filter = EnvFilter::try_from_env(LOG).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    match command {
        None => ended(run(config).await),
        Some(Command::Check) => check(&config).await,
        Some(Command::Uninstall) => uninstall(&config).await,
    }
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    tracing::info!(?config, version = env!("CARGO_PKG_VERSION"), "starting");
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Taken and ignored, as by the broker: by default it would end the program and keep its Lease.
    let _ignored = signal(SignalKind::hangup())?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        token.cancel();
    });
    capstan_operator::run(kube::Config::infer().await?, config, shutdown).await
}

async fn check(config: &Config) -> ExitCode {
    let cluster = match kube::Config::infer().await {
        Ok(cluster) => cluster,
        Err(error) => return ended(Err(error.into())),
    };
    let report = capstan_operator::check(cluster, config).await;
    report.notes.iter().for_each(|note| println!("ok: {note}"));
    report.problems.iter().for_each(|problem| println!("problem: {problem}"));
    if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn uninstall(config: &Config) -> ExitCode {
    match kube::Config::infer().await {
        Ok(cluster) => {
            let taken = capstan_operator::uninstall(cluster, config).await;
            tracing::info!(back = taken.back, left = taken.left, "done");
        }
        Err(error) => tracing::warn!(%error, "nothing taken back"),
    }
    ExitCode::SUCCESS
}
