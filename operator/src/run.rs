//! The operator from start to end: definitions, watches, election, workers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;
use crate::context::Context;
use crate::events::Events;
use crate::external_scaler::{self, Source};
use crate::health::{self, Ready, Served};
use crate::leader::Leader;
use crate::metrics::Metrics;
use crate::work::{Outcome, WorkQueue};
use crate::world::{Unit, World, all_units, watch_all};
use crate::{broker, client, definitions, demand, mode, scaling, workload};

/// Workloads whose number of pods is looked at at once.
const SCALERS: usize = 16;

/// How long KEDA's streams may take to end.
const SCALER_END: Duration = Duration::from_secs(1);

/// Runs until `shutdown` is cancelled.
///
/// An API server that is away, a Lease that is lost and definitions that are too old are waited for: whoever starts again meets
/// the same, and has forgotten what it knew.
///
/// # Errors
/// Whatever makes going on pointless: the address of health checks is taken, the cluster's configuration makes no sense, a task
/// ended that never should.
pub async fn run(cluster: kube::Config, config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new()?);
    let (world, queue) = (Arc::new(World::default()), Arc::new(WorkQueue::default()));
    let ready = Ready::new(&metrics);
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", config.listen))?;
    info!(address = %listener.local_addr()?, "health checks and metrics");
    let (served, shown) = (Arc::clone(&metrics), Arc::clone(&queue));
    let served = Served { ready: ready.clone(), metrics: served, queue: shown, world: Arc::clone(&world) };
    tasks.spawn(health::serve(listener, served));
    let client = client::build(cluster, &metrics)?;
    let mut leader = None;
    let (events, publisher) = Events::new(client.clone(), config.identity.clone(), &metrics);
    tasks.spawn(async move {
        publisher.await;
        Ok(())
    });
    let context = Arc::new(Context::new(client, config, world, queue, events, metrics));
    tasks.spawn(demand::follow(Arc::clone(&context)));
    context.metrics.show(Arc::new(source(&context)))?;
    let ended = tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        ended = work(&context, &mut leader, &ready, &shutdown, &mut tasks) => ended,
    };
    if shutdown.is_cancelled() && context.config.external_scaler_listen.is_some() {
        // Of all tasks it alone ends by itself.
        let _ = tokio::time::timeout(SCALER_END, tasks.join_next()).await;
    }
    tasks.shutdown().await;
    if let Some(leader) = leader {
        leader.resign().await;
    }
    info!("ended");
    ended
}

async fn work(
    context: &Arc<Context>,
    leader: &mut Option<Leader>,
    ready: &Ready,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    tokio::select! {
        () = definitions::until_current(&context.client, ready) => {}
        Some(ended) = tasks.join_next() => return finished(ended),
    }
    ready.waits_for("the watches have not listed yet");
    let Context { client, config, world, queue, metrics, .. } = context.as_ref();
    let known = watch_all(client, config, world, queue, metrics, tasks);
    tokio::select! {
        () = known => {}
        Some(ended) = tasks.join_next() => return finished(ended),
    }
    ready.set();
    info!("the cluster is known");
    serve_scaler(context, shutdown, tasks).await?;
    // Not before: who cannot work must not have the Lease.
    let leader = leader.insert(match &config.lease_namespace {
        Some(namespace) => Leader::elected(client.clone(), namespace, &config.identity),
        None => Leader::alone(),
    });
    loop {
        tokio::select! {
            active = leader.active() => active?,
            Some(ended) = tasks.join_next() => return finished(ended),
        }
        info!("active");
        term(context, leader, tasks).await?;
        warn!("no longer active: the Lease could not be renewed, or another operator has it");
    }
}

/// Serves KEDA, where that is wanted. Not before the cluster is known: a Consumer that is not listed yet does exist.
async fn serve_scaler(
    context: &Arc<Context>,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let Some(address) = context.config.external_scaler_listen else { return Ok(()) };
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    info!(address = %listener.local_addr()?, "external scaler");
    tasks.spawn(external_scaler::serve(listener, Arc::new(source(context)), shutdown.clone()));
    Ok(())
}

/// What is told of Consumers.
fn source(context: &Context) -> Source {
    Source::new(Arc::clone(&context.world), context.demands.clone())
}

/// As the active operator, until it no longer is.
async fn term(
    context: &Arc<Context>,
    leader: &mut Leader,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let shown = Shown::active(&context.metrics);
    // What another operator did meanwhile is looked at, and what an earlier term left undone.
    all_units(&context.world.read(), None).into_iter().for_each(|unit| context.queue.add(unit));
    context.scales.clear();
    let mut workers = JoinSet::new();
    let ended = tokio::select! {
        () = leader.inactive() => Ok(()),
        Some(ended) = tasks.join_next() => finished(ended),
        ended = act(context, &mut workers) => ended,
    };
    drop(shown);
    workers.shutdown().await;
    context.queue.abandon();
    context.scaling.abandon();
    ended
}

/// Has everything worked on. Ends only if a worker does.
async fn act(context: &Arc<Context>, workers: &mut JoinSet<()>) -> anyhow::Result<()> {
    mode::look_first(context).await;
    context.rollouts.adopt(&context.world.read(), &context.config.sidecar_image);
    // Brokers first: their Consumers show whether the Queues are ready.
    context.queue.sort();
    for _ in 0..context.config.concurrency.max(1) {
        workers.spawn(worker(Arc::clone(context)));
    }
    for _ in 0..SCALERS {
        workers.spawn(scaler(Arc::clone(context)));
    }
    tokio::select! {
        Some(ended) = workers.join_next() => ended.map_err(Into::into),
        () = mode::keep_looking(context) => Ok(()),
    }
}

/// That this operator is the active one, as its metrics show it: until it is dropped, however a term ends.
struct Shown<'a>(&'a Metrics);

impl<'a> Shown<'a> {
    fn active(metrics: &'a Metrics) -> Self {
        metrics.leader.set(1);
        metrics.terms.inc();
        Self(metrics)
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.leader.set(0);
    }
}

fn finished(ended: Result<anyhow::Result<()>, tokio::task::JoinError>) -> anyhow::Result<()> {
    ended??;
    anyhow::bail!("a task ended that never should")
}

/// Works on one unit at a time. It can be cut off anywhere: the next operator looks at everything again.
async fn worker(context: Arc<Context>) {
    loop {
        let unit = context.queue.next().await;
        let start = Instant::now();
        let outcome = reconcile(&context, &unit).await;
        context.metrics.reconciled(&unit, outcome, start.elapsed());
        context.queue.finish(unit, outcome, rand::random());
    }
}

/// Works on the number of one workload's pods at a time.
async fn scaler(context: Arc<Context>) {
    loop {
        let target = context.scaling.next().await;
        let outcome = scaling::reconcile(&context, &target).await;
        context.scaling.finish(target, outcome, rand::random());
    }
}

async fn reconcile(context: &Context, unit: &Unit) -> Outcome {
    match unit {
        Unit::Broker(key) => broker::reconcile(context, key).await,
        Unit::Workload(namespace, reference) => workload::reconcile(context, namespace, reference).await,
        Unit::Consumer(key) => workload::reconcile_pull(context, key).await,
    }
}
