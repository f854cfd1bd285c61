//! The embedded broker: a real one, on ports of this machine.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Mutex;

use capstan_api::control::{Declaration, QueueState};
use capstan_api::{Client, ControlClient};
use capstan_broker::{Broker, BrokerError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// A broker that runs beside this program's other tasks.
pub(super) struct Embedded {
    url: String,
    client: Client,
    control: ControlClient,
    stop: CancellationToken,
    running: Mutex<Option<JoinHandle<()>>>,
    /// What was there before this start's files were declared.
    before: Vec<QueueState>,
    /// Why it ended by itself.
    failure: watch::Receiver<Option<String>>,
}

impl Embedded {
    /// Opens the store, listens, and declares what the files say.
    pub(super) async fn start(
        data: &Path,
        listen: SocketAddr,
        declaration: &Declaration,
    ) -> Result<Self, Failure> {
        // Health, metrics and control are this program's own business.
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let broker = Broker::open(data, listen, admin).await.map_err(|error| refused(&error, data))?;
        let url = format!("http://{}", reachable(broker.address()));
        let address = |error: capstan_api::ClientError| Failure::Refused(error.to_string());
        let client = Client::new(&url).map_err(address)?;
        let control = ControlClient::new(&format!("http://{}", broker.admin_address())).map_err(address)?;
        let stop = CancellationToken::new();
        let (failed, failure) = watch::channel(None);
        let shutdown = stop.clone().cancelled_owned();
        let running = tokio::spawn(async move {
            if let Err(error) = broker.run(shutdown).await {
                failed.send_replace(Some(format!("the broker ended: {error}")));
            }
        });
        let running = Mutex::new(Some(running));
        let mut embedded = Self { url, client, control, stop, running, before: Vec::new(), failure };
        let state = embedded.control.state().await.map_err(|error| Failure::Refused(error.to_string()))?;
        embedded.before = state.queues;
        let declared = embedded.control.declare(declaration).await;
        declared
            .map_err(|error| Failure::Refused(format!("the broker does not take these queues: {error}")))?;
        Ok(embedded)
    }

    /// Where this machine reaches it.
    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn before(&self) -> &[QueueState] {
        &self.before
    }

    pub(super) const fn control(&self) -> &ControlClient {
        &self.control
    }

    /// Resolves when it ended by itself.
    pub(super) async fn failed(&self) -> Failure {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(why) => Failure::Refused(why.clone().unwrap_or_default()),
            Err(_) => Failure::Refused("the broker ended".to_owned()),
        }
    }

    /// Answers what is open, closes the store, and ends.
    pub(super) async fn end(&self) -> Result<(), Failure> {
        self.stop.cancel();
        let running = self.running.lock().ok().and_then(|mut running| running.take());
        if let Some(running) = running {
            running.await.map_err(|error| Failure::Refused(format!("the broker did not end: {error}")))?;
        }
        Ok(())
    }
}

/// An address that stands for all is reached at the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
    } else {
        address
    }
}

/// Says what to do about a broker that does not start.
fn refused(error: &BrokerError, data: &Path) -> Failure {
    let hint = match error {
        BrokerError::Listen { source, .. } if source.kind() == ErrorKind::AddrInUse => {
            "\nAnother `capstan dev` may be running. --listen 127.0.0.1:0 takes any free port.".to_owned()
        }
        BrokerError::Store(capstan_broker::store::StoreError::Locked { .. }) => format!(
            "\nAnother `capstan dev` has {}. End it, or keep these messages elsewhere with --data DIR.",
            data.display()
        ),
        _ => String::new(),
    };
    Failure::Refused(format!("{error}{hint}"))
}
