//! The loads: publish, consume, both at once, and at a fixed rate.

mod latency;
mod taking;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use latency::latency;
pub use taking::Takers;

use crate::client::Client;
use crate::ledger::Ledger;
use crate::message;
use crate::peer::Server;

use taking::Progress;

/// Messages that may be published and not yet acknowledged when both go on.
const OPEN_MAX: usize = 20_000;
/// How long a consumer's long poll lasts.
const IDLE: Duration = Duration::from_millis(500);
/// A drain that takes longer has failed.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// Clients that work on one server.
pub struct Crew {
    pub clients: Vec<Client>,
    pub queues: usize,
    pub ledger: Arc<Ledger>,
}

/// Messages in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    pub messages: u64,
    pub seconds: f64,
}

impl Crew {
    /// Connects.
    ///
    /// # Errors
    /// The server is gone.
    pub async fn connect(server: &Server, count: usize, queues: usize, ledger: &Arc<Ledger>) -> Result<Self> {
        let mut clients = Vec::with_capacity(count);
        for number in 0..count {
            clients.push(server.connect(number).await?);
        }
        Ok(Self { clients, queues, ledger: Arc::clone(ledger) })
    }

    /// Publishes for so long, and waits for the last confirm.
    ///
    /// # Errors
    /// A client fails.
    pub async fn publish(&mut self, batch: usize, time: Duration) -> Result<Done> {
        self.publish_while(batch, u64::MAX, time).await
    }

    /// Publishes so many.
    ///
    /// # Errors
    /// A client fails.
    pub async fn fill(&mut self, messages: u64) -> Result<()> {
        self.publish_while(100, messages, Duration::MAX).await.map(drop)
    }

    async fn publish_while(&mut self, batch: usize, messages: u64, time: Duration) -> Result<Done> {
        let begun = Instant::now();
        let before = self.ledger.confirmed();
        let share = messages.div_ceil(self.clients.len() as u64);
        let queues = self.queues;
        self.each(move |mut client, number, ledger| async move {
            let (mut sent, mut queue) = (0, number);
            while begun.elapsed() < time && sent < share {
                let count = batch.min(usize::try_from(share - sent).unwrap_or(batch));
                client.publish(queue % queues, &ledger.issue(count, message::now())).await?;
                ledger.confirm(count);
                sent += count as u64;
                // A prime, so that clients part ways.
                queue += 7;
            }
            Ok(client)
        })
        .await?;
        let messages = self.ledger.confirmed() - before;
        Ok(Done { messages, seconds: begun.elapsed().as_secs_f64() })
    }

    /// Takes and acknowledges for so long, or until `limit` messages are done or none is left.
    ///
    /// # Errors
    /// A client fails, or a message comes twice.
    pub async fn consume(&mut self, batch: usize, limit: u64, time: Duration) -> Result<Done> {
        let begun = Instant::now();
        let before = self.ledger.received();
        let queues = self.queues;
        self.each(move |mut client, number, ledger| async move {
            let (mut queue, mut empty) = (number, 0);
            // Each queue was found empty once: none is left.
            while begun.elapsed() < time && ledger.received() - before < limit && empty < queues {
                let stamps = client.take(queue % queues, batch, Duration::ZERO).await?;
                empty = if stamps.is_empty() { empty + 1 } else { 0 };
                if !stamps.is_empty() {
                    ledger.receive(&stamps)?;
                    client.settle(queue % queues).await?;
                    ledger.settle(stamps.len());
                }
                queue += 7;
            }
            Ok(client)
        })
        .await?;
        let messages = self.ledger.received() - before;
        Ok(Done { messages, seconds: begun.elapsed().as_secs_f64() })
    }

    /// Runs a task for each client and waits for all.
    async fn each<F: Future<Output = Result<Client>> + Send + 'static>(
        &mut self,
        work: impl Fn(Client, usize, Arc<Ledger>) -> F,
    ) -> Result<()> {
        let mut tasks = JoinSet::new();
        for (number, client) in std::mem::take(&mut self.clients).into_iter().enumerate() {
            tasks.spawn(work(client, number, Arc::clone(&self.ledger)));
        }
        while let Some(client) = tasks.join_next().await {
            self.clients.push(client??);
        }
        Ok(())
    }
}

/// Producers and consumers together; the consumers go on until everything confirmed is acknowledged.
///
/// # Errors
/// A client fails, a message comes twice, or some never come.
pub async fn end_to_end(producers: Crew, takers: Takers, batch: usize, time: Duration) -> Result<Done> {
    let (begun, ledger) = (Instant::now(), Arc::clone(&producers.ledger));
    let open = Arc::new(Semaphore::new(OPEN_MAX));
    let progress = Progress::new(&ledger, time);
    let before = ledger.received();
    let mut sending = JoinSet::new();
    for mut client in producers.clients {
        let (ledger, open) = (Arc::clone(&ledger), Arc::clone(&open));
        sending.spawn(async move {
            while begun.elapsed() < time {
                open.acquire_many(u32::try_from(batch)?).await?.forget();
                client.publish(0, &ledger.issue(batch, message::now())).await?;
                ledger.confirm(batch);
            }
            anyhow::Ok(())
        });
    }
    let mut taking = takers.spawn(&progress, move |stamps, _| open.add_permits(stamps.len()));
    while let Some(ended) = sending.join_next().await {
        ended??;
    }
    progress.finished.store(true, Ordering::Relaxed);
    let mut last = begun;
    while let Some(ended) = taking.join_next().await {
        last = last.max(ended??);
    }
    let messages = ledger.received() - before;
    ensure!(messages > 0, "nothing was received");
    let elapsed = last.checked_duration_since(begun).context("time stood still")?;
    Ok(Done { messages, seconds: elapsed.as_secs_f64() })
}
