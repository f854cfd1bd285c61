//! The producers' gateway: the sidecars' real one, once for all workloads.

use std::net::SocketAddr;
use std::sync::Mutex;

use capstan_sidecar::gateway::{Gateway, GatewayError, Settings};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::plan::Plan;
use crate::failure::Failure;

/// A gateway that runs beside this program's other tasks.
pub(super) struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Running {
    /// Listens on localhost for the broker at `url`. Where the broker has any free port (`listen`), so has the gateway,
    /// unless another was asked for.
    pub(super) async fn start(
        url: &str,
        plan: &Plan,
        asked: Option<u16>,
        listen: SocketAddr,
    ) -> Result<Self, Failure> {
        let mut settings = Settings::default();
        match asked {
            Some(port) => settings.port = port,
            None if listen.port() == 0 => settings.port = 0,
            None => {}
        }
        let account =
            plan.account().ok_or_else(|| Failure::Refused("no Queue of these files runs here".to_owned()))?;
        let gateway = Gateway::bind(url, account, &settings).await.map_err(refused)?;
        let (address, stop) = (gateway.address(), CancellationToken::new());
        let task = tokio::spawn(gateway.run(stop.clone().cancelled_owned()));
        Ok(Self { address, stop, task: Mutex::new(Some(task)) })
    }

    /// Where applications reach it.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers what is open, and ends.
    pub(super) async fn end(&self) {
        self.stop.cancel();
        let task = self.task.lock().ok().and_then(|mut task| task.take());
        if let Some(task) = task {
            // It serves no more, however it ended.
            let _ = task.await;
        }
    }
}

fn refused(error: GatewayError) -> Failure {
    Failure::Refused(match error {
        GatewayError::Listen { address, source } => format!(
            "the gateway cannot listen on {address}: {source}\n\
             Give it another port with --gateway-port, where 0 takes any free one, or end what uses this one."
        ),
        other => other.to_string(),
    })
}
