//! What runs between start and end: sends, deliveries, the application.

use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::app::{self, Command};
use super::broker::Embedded;
use super::gateway;
use super::happening::Happening;
use super::plan::Plan;
use super::seed::{self, Seed};
use super::sidecars::Local;
use super::signals::Signals;
use super::waiting::Waiting;
use crate::failure::Failure;

/// Everything that is needed.
pub(super) struct Session<'a> {
    pub(super) plan: &'a Plan,
    pub(super) broker: &'a Embedded,
    pub(super) gateway: &'a gateway::Running,
    /// The application's command.
    pub(super) app: Option<&'a String>,
    /// Where it is to listen.
    pub(super) port: Option<u16>,
    pub(super) sender: Sender<Happening>,
    pub(super) signals: Signals,
    /// The view has ended.
    pub(super) unseen: CancellationToken,
}

impl Session<'_> {
    /// Runs until the first signal, and ends in order; the second signal cuts everything short.
    pub(super) async fn run(&self, seeds: Vec<Seed>) -> Result<(), Failure> {
        let (drain, stop_app) = (CancellationToken::new(), CancellationToken::new());
        let mut sidecars = JoinSet::new();
        let waiting = Waiting::default();
        for workload in self.plan.workloads() {
            let (sender, stop, waiting) = (self.sender.clone(), drain.clone(), waiting.clone());
            sidecars.spawn(Local { workload, url: self.broker.url(), sender, stop, waiting }.run());
        }
        let mut app = JoinSet::new();
        if let Some(line) = self.app {
            let (url, gateway) = (self.broker.url(), self.gateway.url());
            let command = Command { line: line.clone(), port: self.port, url, gateway };
            app.spawn(app::run(command, self.sender.clone(), stop_app.clone()));
        }
        let result = tokio::select! {
            result = self.until_end(seeds) => result,
            Some(Ok(Err(error))) = sidecars.join_next() => Err(error),
        };
        let ending = async {
            drain.cancel();
            while sidecars.join_next().await.is_some() {}
            stop_app.cancel();
            while app.join_next().await.is_some() {}
        };
        tokio::select! {
            () = ending => result,
            () = self.signals.second() => {
                app.shutdown().await;
                Err(Failure::Interrupted)
            }
        }
    }

    async fn until_end(&self, seeds: Vec<Seed>) -> Result<(), Failure> {
        seed::send(self.plan, seeds, self.broker).await?;
        tokio::select! {
            () = self.signals.first() => {
                // The view may be full or gone; ending goes on.
                let _ = self.sender.try_send(Happening::Ending);
                Ok(())
            }
            () = self.unseen.cancelled() => Ok(()),
            error = self.broker.failed() => Err(error),
        }
    }
}
