//! One measurement: a fresh server, its backlog, a short warm-up, the load, and the count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Cost, Figure, Sample, Unit};
use crate::cell::{Cell, Load, Scale};
use crate::ledger::Ledger;
use crate::load::{self, Crew, Done, Takers};
use crate::noise::{Probe, Watch};
use crate::peer::{Peer, Place, Server};
use crate::process;
use crate::stats::percentile;

/// Load before the clock starts.
const WARM: Duration = Duration::from_millis(300);
/// How long a filled server must be calm, below how many cores, and how long that is waited for.
const CALM: Duration = Duration::from_millis(300);
const CALM_CORES: f64 = 0.1;
const CALM_MAX: Duration = Duration::from_secs(10);
/// Clients that fill a backlog.
const FILLERS: usize = 8;

/// Measures; the caller adds what it knows of the round.
///
/// # Errors
/// The server or a client fails, or a count is wrong.
pub(super) async fn measure(place: &Place, cell: &Cell, peer: Peer, scale: Scale) -> Result<Sample> {
    let mut server = Server::start(peer, place, cell.queues).await?;
    let ledger = Arc::new(Ledger::default());
    if cell.fill > 0 {
        Crew::connect(&server, FILLERS, cell.queues, &ledger).await?.fill(cell.fill).await?;
        calm(&server).await;
    }
    let (figures, cost, foreign) = match cell.load {
        Load::Start => start(server, place, cell, &ledger).await?,
        Load::Memory => {
            let cost = Cost { memory: server.memory(), disk: server.disk_bytes(), ..Cost::default() };
            (vec![memory(&cost, cell.title.to_owned())], cost, 0.0)
        }
        _ => {
            let measured = loaded(&mut server, place, cell, &ledger, scale).await;
            measured.with_context(|| match server.sidecar_log() {
                Some(log) => format!("the sidecar said:\n{log}"),
                None => "the load failed".to_owned(),
            })?
        }
    };
    let probe = Probe { hash_ms: 0.0, sync_ms: 0.0, foreign: 0.0 };
    Ok(Sample { round: 0, row: cell.row, peer, title: cell.title, figures, cost, probe, foreign })
}

/// Waits until the server has done what filling left to do in the background, at most so long.
async fn calm(server: &Server) {
    let deadline = Instant::now() + CALM_MAX;
    loop {
        let before = server.cpu();
        tokio::time::sleep(CALM).await;
        let used = server.cpu() - before;
        if used <= CALM.as_secs_f64() * CALM_CORES || Instant::now() >= deadline {
            return;
        }
    }
}

type Measured = (Vec<Figure>, Cost, f64);

async fn loaded(
    server: &mut Server,
    place: &Place,
    cell: &Cell,
    ledger: &Arc<Ledger>,
    scale: Scale,
) -> Result<Measured> {
    let mut crews = Crews::connect(server, place, cell, ledger).await?;
    if let Load::Publish { batch, .. } = cell.load {
        crews.first.publish(batch, WARM).await?;
    }
    let meter = Meter::start(server).await?;
    let (done, figures) = crews.work(cell, scale.time).await?;
    let (cost, foreign) = meter.stop(server, done.messages).await?;
    ledger.check(server.depth().await?)?;
    let mut figures = figures.unwrap_or_else(|| {
        let value = done.messages as f64 / done.seconds;
        vec![Figure {
            title: cell.title.to_owned(),
            value,
            unit: Unit::Rate,
            against: cell.against.map(str::to_owned),
        }]
    });
    if matches!(cell.load, Load::Publish { .. }) && cell.fill > 0 {
        let (_, waiting) = cell.title.rsplit_once(", ").unwrap_or(("", cell.title));
        figures.push(memory(&cost, format!("memory, {waiting}")));
    }
    Ok((figures, cost, foreign))
}

fn memory(cost: &Cost, title: String) -> Figure {
    Figure { title, value: cost.memory as f64 / 1e6, unit: Unit::Megabytes, against: None }
}

async fn start(server: Server, place: &Place, cell: &Cell, ledger: &Arc<Ledger>) -> Result<Measured> {
    let watch = Watch::start(0.0)?;
    let (server, took) = server.restart(place).await?;
    let foreign = watch.foreign(server.cpu())?;
    ledger.check(server.depth().await?)?;
    let value = took.as_secs_f64() * 1e3;
    let figure = Figure { title: cell.title.to_owned(), value, unit: Unit::Millis, against: None };
    let cost = Cost { memory: server.memory(), disk: server.disk_bytes(), ..Cost::default() };
    Ok((vec![figure], cost, foreign))
}

/// The producers or consumers, and for loads that have both the consumers.
struct Crews {
    first: Crew,
    second: Option<Takers>,
}

impl Crews {
    async fn connect(server: &mut Server, place: &Place, cell: &Cell, ledger: &Arc<Ledger>) -> Result<Self> {
        let (first, second) = match cell.load {
            Load::Publish { producers, .. } => (producers, None),
            Load::Consume { consumers, .. } => (consumers, None),
            Load::EndToEnd { producers, consumers, .. } => (producers, Some(consumers)),
            Load::Latency { consumers, .. } => (16, Some(consumers)),
            Load::Start | Load::Memory => (0, None),
        };
        let second = match second {
            None => None,
            Some(consumers) => Some(Takers::start(server, place, consumers, cell.queues, ledger).await?),
        };
        Ok(Self { first: Crew::connect(server, first, cell.queues, ledger).await?, second })
    }

    async fn work(mut self, cell: &Cell, time: Duration) -> Result<(Done, Option<Vec<Figure>>)> {
        match (cell.load, self.second) {
            (Load::Publish { batch, .. }, _) => Ok((self.first.publish(batch, time).await?, None)),
            (Load::Consume { batch, limit, .. }, _) => {
                Ok((self.first.consume(batch, limit, time).await?, None))
            }
            // Longer than the others, so that the drain at the end is a small part.
            (Load::EndToEnd { batch, .. }, Some(second)) => {
                Ok((load::end_to_end(self.first, second, batch, time * 5 / 3).await?, None))
            }
            (Load::Latency { rate, .. }, Some(second)) => {
                let ledger = Arc::clone(&self.first.ledger);
                let millis = load::latency(self.first, second, rate, time).await?;
                let figure = |percent| -> Result<Figure> {
                    let value = percentile(&millis, percent).context("no message was delivered")?;
                    let title = |title: &str| format!("{title}, p{percent}");
                    let against = cell.against.map(title);
                    Ok(Figure { title: title(cell.title), value, unit: Unit::Millis, against })
                };
                let done = Done { messages: ledger.received(), seconds: time.as_secs_f64() };
                Ok((done, Some(vec![figure(50)?, figure(99)?])))
            }
            _ => anyhow::bail!("this load is not for clients"),
        }
    }
}

/// Counts what a load costs.
struct Meter {
    watch: Watch,
    server: f64,
    client: f64,
    syncs: Option<u64>,
}

impl Meter {
    async fn start(server: &Server) -> Result<Self> {
        let syncs = server.syncs().await?;
        let cpu = server.cpu();
        Ok(Self { watch: Watch::start(cpu)?, server: cpu, client: process::own_cpu(), syncs })
    }

    async fn stop(self, server: &Server, messages: u64) -> Result<(Cost, f64)> {
        let (cpu, client) = (server.cpu(), process::own_cpu());
        let foreign = self.watch.foreign(cpu)?;
        let now = server.syncs().await?;
        let cost = Cost {
            messages,
            server_cpu: cpu - self.server,
            client_cpu: client - self.client,
            syncs: now.zip(self.syncs).map(|(now, before)| now - before),
            memory: server.memory(),
            disk: server.disk_bytes(),
        };
        Ok((cost, foreign))
    }
}
