//! The program `capstan-broker`.

use std::process::ExitCode;

use capstan_broker::Broker;
use capstan_broker::config::Config;
use capstan_broker::store::Reserve;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info,fjall=warn,lsm_tree=warn".into());
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    let config = Config::parse();
    capstan_broker::descriptors::raise();
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
    let reserve = Reserve::percent(config.reserve_percent);
    let broker = Broker::open_with(&config.data, config.listen, config.admin_listen, reserve).await?;
    let shutdown = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    Ok(broker.run(shutdown).await?)
}
