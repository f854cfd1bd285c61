//! The command `drain`, the sidecar's own `preStop` hook: drains the sidecar beside it, and waits until it is drained.

use std::time::Duration;

use crate::config::{Config, ConfigError, LAST_SETTLES, admin_port};

/// Where the admin port drains.
pub(crate) const PATH: &str = "/drain";
/// What is waited beyond the longest drain, for connecting and answering.
const MARGIN: Duration = Duration::from_secs(2);

/// Why a sidecar is not drained.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the sidecar at {url} did not drain: {source}")]
    Request { url: String, source: reqwest::Error },
    #[error("the sidecar at {url} refused to drain: status {status}")]
    Refused { url: String, status: u16 },
}

/// Drains the sidecar of this pod.
///
/// # Errors
/// [`DrainError`] when there is none, or when it takes longer than its configuration allows.
pub async fn drain(read: impl Fn(&str) -> Option<String>) -> Result<(), DrainError> {
    let timeout = Config::drain_timeout_from_env(&read)? + LAST_SETTLES + MARGIN;
    at(admin_port(&read)?, timeout).await
}

async fn at(port: u16, timeout: Duration) -> Result<(), DrainError> {
    let url = format!("http://127.0.0.1:{port}{PATH}");
    let failed = |source| DrainError::Request { url: url.clone(), source };
    let client = reqwest::Client::builder().no_proxy().timeout(timeout).build().map_err(failed)?;
    let status = client.post(&url).send().await.map_err(failed)?.status();
    if status.is_success() { Ok(()) } else { Err(DrainError::Refused { url, status: status.as_u16() }) }
}
