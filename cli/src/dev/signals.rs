//! Ctrl-C and its kin: the first ends in order, the second at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::failure::Failure;

/// How many signals to end arrived.
#[derive(Debug, Clone)]
pub(super) struct Signals(watch::Receiver<u32>);

impl Signals {
    /// Listens from now on.
    pub(super) fn listen() -> Result<Self, Failure> {
        let (sender, receiver) = watch::channel(0);
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        // Unlike the servers, which ignore it: this belongs to its terminal, and so does the application that it started.
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                sender.send_modify(|count| *count += 1);
            }
        });
        Ok(Self(receiver))
    }

    /// Resolves once one arrived.
    pub(super) async fn first(&self) {
        self.reach(1).await;
    }

    /// Resolves once two arrived.
    pub(super) async fn second(&self) {
        self.reach(2).await;
    }

    async fn reach(&self, least: u32) {
        let mut count = self.0.clone();
        if count.wait_for(|count| *count >= least).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
