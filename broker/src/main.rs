//! The program `capstan-broker`.

use std::process::ExitCode;

use capstan_broker::Broker;
use capstan_broker::config::Config;
use capstan_broker::store::Reserve;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info,fjall=warn,lsm_tree=warn".into());
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    let config = Config::parse();
    capstan_broker::descriptors::raise();
    tracing::info!(?config, version = env!("CARGO_PKG_VERSION"), "starting");
    let ended = runtime().map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(config)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Leaves a processor to the engine's thread, which all requests wait for: with two of them, a second thread here would
/// only take turns with it.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.saturating_sub(1).max(1);
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

async fn run(config: Config) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Taken and ignored, as Redis, RabbitMQ and Envoy do: there is no file to read anew, and neither who rotates logs nor a
    // terminal that is closed may end this program without its drain.
    let _ignored = signal(SignalKind::hangup())?;
    let reserve = Reserve::percent(config.reserve_percent);
    let broker = Broker::open_with(&config.data, config.listen, config.admin_listen, reserve).await?;
    let shutdown = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    Ok(broker.run(shutdown).await?)
}
