//! Where the application listens on this machine.

use std::net::Ipv4Addr;

use tokio::net::TcpListener;

use super::plan::Plan;
use crate::failure::Failure;

/// The ports of the application.
#[derive(Debug)]
pub(super) struct Ports {
    /// Instead of each Consumer's `endpoint.port`.
    pub(super) instead: Option<u16>,
    /// What the application is told; nothing when it is expected on several, or on none.
    pub(super) app: Option<u16>,
}

/// Chooses them. An application that is started here must find its port free.
pub(super) async fn choose(plan: &Plan, starts: bool, asked: Option<u16>) -> Result<Ports, Failure> {
    let instead = match asked {
        Some(0) if !starts => {
            return Err(Failure::Usage("--app-port 0 needs --app: nobody would know the port".to_owned()));
        }
        Some(0) => Some(bound(0).await.map_err(|e| Failure::Refused(format!("no port is free: {e}")))?),
        other => other,
    };
    let expected = match instead {
        Some(port) => vec![port],
        None => plan.ports().into_iter().collect(),
    };
    if let (true, [port]) = (starts, &expected[..]) {
        bound(*port).await.map_err(|error| {
            Failure::Refused(format!(
                "the application cannot listen on port {port}: {error}\nGive it another with --app-port, or end what uses this one."
            ))
        })?;
    }
    let app = match &expected[..] {
        [port] => Some(*port),
        _ => None,
    };
    Ok(Ports { instead, app })
}

/// Binds a port for a moment.
async fn bound(port: u16) -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?.local_addr()?.port())
}
