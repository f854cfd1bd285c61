//! The broker's configuration: read once, from the command line or the environment.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Capstan's broker: stores queues and serves them over HTTP.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "capstan-broker", version)]
pub struct Config {
    /// Address of the HTTP API.
    #[arg(long, env = "CAPSTAN_LISTEN", default_value = "127.0.0.1:9796")]
    pub listen: SocketAddr,
    /// Address of health checks, metrics and the control API.
    #[arg(long, env = "CAPSTAN_ADMIN_LISTEN", default_value = "127.0.0.1:9795")]
    pub admin_listen: SocketAddr,
    /// Folder of the store; made when it is missing.
    #[arg(long, env = "CAPSTAN_DATA", default_value = "data")]
    pub data: PathBuf,
    /// Percent of the volume that sends leave free for acks and compaction: at most 10 GiB, at least what the store needs.
    #[arg(long, env = "CAPSTAN_RESERVE_PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(5..=50))]
    pub reserve_percent: u8,
}
