//! One workload's sidecar: the real loop, kept back while its application does not listen.

use std::time::Duration;

use capstan_sidecar::event::What;
use capstan_sidecar::{Config, Event, Sidecar, loopback};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::happening::Happening;
use super::plan::PushTarget;
use super::waiting::{Waiting, Waits};
use crate::failure::Failure;

/// The pod's name, as the broker is told.
const POD: &str = "local";
/// How often it is looked whether the application listens.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a look may take.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How long open calls may take to end after Ctrl-C; a second Ctrl-C cuts them.
const DRAIN_MAX: Duration = Duration::from_secs(25);
/// How long the last events of a sidecar may take.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// A workload and everything its sidecar needs.
pub(super) struct Local {
    pub(super) workload: PushTarget,
    /// The broker.
    pub(super) url: String,
    pub(super) sender: Sender<Happening>,
    pub(super) stop: CancellationToken,
    pub(super) waiting: Waiting,
}

impl Local {
    /// Delivers until `stop`, and drains.
    ///
    /// A sidecar whose application is gone waits longer and longer, as a pod's should. On a developer's machine it is
    /// started again soon, so here a new sidecar begins as soon as it listens.
    pub(super) async fn run(self) -> Result<(), Failure> {
        while self.listening().await {
            let PushTarget { namespace, workload, .. } = self.workload.clone();
            let mut config = Config::new(&self.url, namespace, workload, POD);
            config.drain_timeout = DRAIN_MAX;
            let bound = Sidecar::bind(config).await;
            let sidecar = bound.map_err(|error| Failure::Refused(error.to_string()))?;
            let gone = CancellationToken::new();
            let follow = self.follow(sidecar.events(), &gone);
            let end = async {
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = gone.cancelled() => {}
                }
            };
            // The events end with the sidecar.
            let mut follow = std::pin::pin!(follow);
            let mut run = std::pin::pin!(sidecar.run(end));
            tokio::select! {
                () = &mut run => {
                    let _ = tokio::time::timeout(LAST_EVENTS, follow).await;
                }
                () = &mut follow => run.await,
            }
        }
        Ok(())
    }

    /// Waits until the application listens; false when it is time to end.
    async fn listening(&self) -> bool {
        // Held while it waits.
        let mut waits = None;
        loop {
            if self.stop.is_cancelled() {
                return false;
            }
            if self.accepts().await {
                return true;
            }
            if waits.is_none() && !self.wait(&mut waits).await {
                return false;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.stop.cancelled() => return false,
            }
        }
    }

    /// Begins to wait, and says so unless another workload has for the same ports; false when nobody listens.
    async fn wait(&self, waits: &mut Option<Waits>) -> bool {
        let ports: Vec<String> = self.workload.ports.iter().map(u16::to_string).collect();
        let ports = ports.join(", ");
        let (begun, first) = self.waiting.begin(&ports);
        *waits = Some(begun);
        !first || self.sender.send(Happening::Waiting { ports }).await.is_ok()
    }

    /// Whether any of its ports does.
    async fn accepts(&self) -> bool {
        for port in &self.workload.ports {
            if loopback::connect(*port, LOOK_MAX).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// Passes events on; finds out when the application is gone.
    async fn follow(&self, mut events: Receiver<Event>, gone: &CancellationToken) {
        loop {
            let happening = match events.recv().await {
                Ok(event) => {
                    // An application that listens and refuses is left to the sidecar's breaker.
                    if matches!(event.what, What::Unreachable { .. }) && !self.accepts().await {
                        gone.cancel();
                        continue;
                    }
                    Happening::Sidecar(event)
                }
                Err(RecvError::Lagged(count)) => Happening::Missed(count),
                Err(RecvError::Closed) => return,
            };
            if self.sender.send(happening).await.is_err() {
                return;
            }
        }
    }
}
