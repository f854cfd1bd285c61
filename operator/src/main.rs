//! The program `capstan-operator`.

use std::process::ExitCode;

use capstan_operator::config::Config;
use clap::Parser;
use kube::Client;
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
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { config } = Cli::parse();
    let filter = EnvFilter::try_from_env(LOG).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    tracing::info!(?config, version = env!("CARGO_PKG_VERSION"), "starting");
    match run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Taken and ignored, as by the broker: by default it would end the program and keep its Lease.
    let _ignored = signal(SignalKind::hangup())?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        token.cancel();
    });
    let client = Client::try_default().await?;
    capstan_operator::run(client, config, shutdown).await
}
