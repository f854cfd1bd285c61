//! The producers' gateway: the sidecars' real one, once for all workloads.

use std::io::ErrorKind;
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
    /// The usual port, when another program has it.
    taken: Option<u16>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Running {
    /// Listens on localhost for the broker at `url`: on the port that was asked for, or else on the usual one, or any that
    /// is free. Where the broker has any free port (`listen`), so has the gateway.
    pub(super) async fn start(
        url: &str,
        plan: &Plan,
        asked: Option<u16>,
        listen: SocketAddr,
    ) -> Result<Self, Failure> {
        let account =
            plan.account().ok_or_else(|| Failure::Refused("no Queue of these files runs here".to_owned()))?;
        let bind = |port| {
            let (account, settings) = (account.clone(), Settings { port, ..Settings::default() });
            async move { Gateway::bind(url, account, &settings).await }
        };
        // Its own messages would come back to it, and multiply.
        if let Some(port) = asked.filter(|port| plan.ports().contains(port)) {
            return Err(Failure::Usage(format!(
                "--gateway-port {port} is the application's port: give one of them another, with --app-port for instance"
            )));
        }
        let usual = Settings::default().port;
        let free = listen.port() == 0 || plan.ports().contains(&usual);
        let port = asked.unwrap_or(if free { 0 } else { usual });
        let (gateway, taken) = match bind(port).await {
            Err(GatewayError::Listen { source, .. })
                if asked.is_none() && source.kind() == ErrorKind::AddrInUse =>
            {
                (bind(0).await, Some(port))
            }
            gateway => (gateway, None),
        };
        let gateway = gateway.map_err(refused)?;
        let (address, stop) = (gateway.address(), CancellationToken::new());
        let task = tokio::spawn(gateway.run(stop.clone().cancelled_owned()));
        Ok(Self { address, taken, stop, task: Mutex::new(Some(task)) })
    }

    /// The usual port, when it is not this one because another program has it.
    pub(super) const fn taken(&self) -> Option<u16> {
        self.taken
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
