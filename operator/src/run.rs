//! The operator from start to end: watches, election, workers.

use std::sync::Arc;

use anyhow::Context as _;
use kube::Client;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::Config;
use crate::context::Context;
use crate::events::Events;
use crate::health::{self, Ready};
use crate::leader::Leader;
use crate::work::{Outcome, WorkQueue};
use crate::world::{Unit, World, watch_all};
use crate::{broker, mode, workload};

/// Runs until `shutdown` is cancelled.
///
/// # Errors
/// Whatever makes going on pointless: the health checks' address is taken, a watch ended, the Lease was lost. Ending
/// the process is then the cure, because everything it knows is read again at the start.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let (world, queue) = (Arc::new(World::default()), Arc::new(WorkQueue::default()));
    let ready = Ready::default();
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", config.listen))?;
    tasks.spawn(health::serve(listener, ready.clone()));
    let leader = match &config.lease_namespace {
        Some(namespace) => Leader::elected(client.clone(), namespace, &config.identity).await?,
        None => Leader::alone(),
    };
    let (events, publisher) = Events::new(client.clone(), config.identity.clone());
    tasks.spawn(async move {
        publisher.await;
        Ok(())
    });
    let context = Arc::new(Context::new(client, config, Arc::clone(&world), Arc::clone(&queue), events));
    let mut leader = leader;
    let ended = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        ended = work(&context, &mut leader, ready, &mut tasks) => ended,
    };
    tasks.shutdown().await;
    leader.resign().await;
    info!("ended");
    ended
}

async fn work(
    context: &Arc<Context>,
    leader: &mut Leader,
    ready: Ready,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let listed = watch_all(&context.client, &context.world, &context.queue, tasks);
    tokio::select! {
        () = listed => {}
        Some(ended) = tasks.join_next() => return finished(ended),
    }
    ready.set();
    info!("the cluster is known");
    tokio::select! {
        active = leader.active() => active?,
        Some(ended) = tasks.join_next() => return finished(ended),
    }
    info!("active");
    mode::look_first(context).await;
    tasks.spawn(mode::keep_looking(Arc::clone(context)));
    // Brokers first: their Consumers show whether the Queues are ready.
    context.queue.sort();
    let mut workers = JoinSet::new();
    for _ in 0..context.config.concurrency.max(1) {
        workers.spawn(worker(Arc::clone(context)));
    }
    tokio::select! {
        () = leader.inactive() => anyhow::bail!("the Lease was lost: another operator is active now"),
        Some(ended) = tasks.join_next() => finished(ended),
        Some(ended) = workers.join_next() => ended.map_err(Into::into),
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
        let outcome = reconcile(&context, &unit).await;
        context.queue.finish(unit, outcome, rand::random());
    }
}

async fn reconcile(context: &Context, unit: &Unit) -> Outcome {
    match unit {
        Unit::Broker(key) => broker::reconcile(context, key).await,
        Unit::Workload(namespace, reference) => workload::reconcile(context, namespace, reference).await,
        Unit::Consumer(key) => workload::reconcile_pull(context, key).await,
    }
}
