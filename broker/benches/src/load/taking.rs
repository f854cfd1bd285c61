//! The consuming side of a load that has producers too: clients that pull, or the application behind a sidecar.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use super::{Crew, DRAIN_MAX, IDLE};
use crate::application::{Application, Batch};
use crate::cell::Consumers;
use crate::client::Client;
use crate::ledger::Ledger;
use crate::message::{self, Stamp};
use crate::peer::{Place, Server};

/// A sidecar that brings nothing for so long does not work.
const FIRST_MAX: Duration = Duration::from_secs(20);
/// How often is looked whether all is done, while nothing comes.
const LOOK: Duration = Duration::from_millis(10);
/// How often the broker is asked whether all is settled.
const ASK: Duration = Duration::from_millis(2);

/// Who takes the messages.
pub enum Takers {
    /// Clients that take up to so many at a time.
    Clients(Crew, usize),
    /// An application that gets what a sidecar pulls; the client asks the broker whether all is settled.
    Application(Application, Client),
}

/// What both sides of a load know.
#[derive(Clone)]
pub(super) struct Progress {
    pub(super) ledger: Arc<Ledger>,
    /// Everything is published and confirmed.
    pub(super) finished: Arc<AtomicBool>,
    deadline: Instant,
}

impl Progress {
    /// Of a load that publishes for `time` from now on.
    pub(super) fn new(ledger: &Arc<Ledger>, time: Duration) -> Self {
        let finished = Arc::new(AtomicBool::new(false));
        Self { ledger: Arc::clone(ledger), finished, deadline: Instant::now() + time + DRAIN_MAX }
    }

    fn is_done(&self) -> Result<bool> {
        ensure!(Instant::now() < self.deadline, "messages are missing after a minute");
        Ok(self.finished.load(Ordering::Relaxed) && self.ledger.received() == self.ledger.confirmed())
    }
}

impl Takers {
    /// Connects clients, or starts application and sidecar and waits until a first message came through.
    ///
    /// # Errors
    /// The server is gone, or the sidecar does not work.
    pub async fn start(
        server: &mut Server,
        place: &Place,
        consumers: Consumers,
        queues: usize,
        ledger: &Arc<Ledger>,
    ) -> Result<Self> {
        if !consumers.by_sidecar {
            let crew = Crew::connect(server, consumers.count, queues, ledger).await?;
            return Ok(Self::Clients(crew, consumers.batch));
        }
        let mut application = Application::start().await?;
        server.start_sidecar(place, application.address(), consumers).await?;
        let mut client = server.connect(0).await?;
        client.publish(0, &ledger.issue(1, message::now())).await?;
        ledger.confirm(1);
        let first = tokio::time::timeout(FIRST_MAX, application.next()).await;
        receive(ledger, &first.context("the sidecar brings nothing")??)?;
        settled(&mut client, Instant::now() + FIRST_MAX).await?;
        Ok(Self::Application(application, client))
    }

    /// Takes until everything confirmed is acknowledged. `taken` hears what came and when, once it is acknowledged by a
    /// client, or answered by the application. Each task answers when its last message was settled.
    pub(super) fn spawn(
        self,
        progress: &Progress,
        taken: impl Fn(&[Stamp], u64) + Clone + Send + 'static,
    ) -> JoinSet<Result<Instant>> {
        let mut tasks = JoinSet::new();
        match self {
            Self::Clients(crew, batch) => {
                for client in crew.clients {
                    tasks.spawn(pull(client, batch, progress.clone(), taken.clone()));
                }
            }
            Self::Application(application, client) => {
                tasks.spawn(hear(application, client, progress.clone(), taken));
            }
        }
        tasks
    }
}

async fn pull(
    mut client: Client,
    batch: usize,
    progress: Progress,
    taken: impl Fn(&[Stamp], u64),
) -> Result<Instant> {
    let mut last = Instant::now();
    while !progress.is_done()? {
        let stamps = client.take(0, batch, IDLE).await?;
        let at = message::now();
        if stamps.is_empty() {
            continue;
        }
        progress.ledger.receive(&stamps)?;
        client.settle(0).await?;
        progress.ledger.settle(stamps.len());
        taken(&stamps, at);
        last = Instant::now();
    }
    Ok(last)
}

async fn hear(
    mut application: Application,
    mut client: Client,
    progress: Progress,
    taken: impl Fn(&[Stamp], u64),
) -> Result<Instant> {
    while !progress.is_done()? {
        let Ok(batch) = tokio::time::timeout(LOOK, application.next()).await else { continue };
        let batch = batch?;
        receive(&progress.ledger, &batch)?;
        taken(&batch.stamps, batch.at);
    }
    settled(&mut client, progress.deadline).await?;
    let last = Instant::now();
    while let Some(batch) = application.heard()? {
        receive(&progress.ledger, &batch).context("after all were acknowledged")?;
    }
    Ok(last)
}

/// Counts a batch that the application answered with 200.
fn receive(ledger: &Ledger, batch: &Batch) -> Result<()> {
    ledger.receive(&batch.stamps)?;
    ledger.settle(batch.stamps.len());
    Ok(())
}

/// Waits until the broker holds nothing: what is answered is not settled yet.
async fn settled(client: &mut Client, deadline: Instant) -> Result<()> {
    loop {
        let left = client.depth(0).await?;
        if left == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{left} messages are answered and not settled");
        tokio::time::sleep(ASK).await;
    }
}
