//! Local mode: the same YAML, on this machine, without a cluster.
//!
//! Data flows one way: `files` are read, `plan` checks and resolves them into a declaration, `broker` keeps it, `sidecars`
//! hand its messages to the application (`app`), and what happens goes to the `view`.

mod app;
mod args;
mod broker;
mod files;
mod happening;
mod intro;
mod plan;
mod ports;
mod seed;
mod sidecars;
mod signals;
mod view;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
pub(crate) use args::DevArgs;
use broker::Embedded;
use happening::Happening;
use plan::Plan;
use signals::Signals;
use view::View;

/// Happenings that may wait for the view; whoever makes more waits too.
const HAPPENINGS_MAX: usize = 1024;
/// How long the view may take to show the last of them.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs `capstan dev` until Ctrl-C.
///
/// Everything ends in the order of a pod: the sidecars drain, the application is ended, then the broker.
pub(crate) async fn run(args: DevArgs) -> Result<(), Failure> {
    let signals = Signals::listen()?;
    let plan = plan::make(&files::read(&args.files)?)?;
    let seeds = seed::check(&plan, &args.send)?;
    let ports = ports::choose(&plan, args.app.is_some(), args.app_port).await?;
    let plan = plan.with_port(ports.instead);
    let broker = Embedded::start(&args.data, args.listen, &plan.declaration).await?;
    let (sender, happenings) = mpsc::channel(HAPPENINGS_MAX);
    view::log::install(sender.clone());
    let view = View::new(&plan.declaration, broker.control().clone());
    view.introduce(&intro::text(&args, &plan, &ports, &broker).await?)?;
    let ended = CancellationToken::new();
    let viewing = tokio::spawn(view.run(happenings, ended.clone()));
    let result = work(&args, &plan, &ports, seeds, &broker, &sender, &signals).await;
    ended.cancel();
    let left = tokio::time::timeout(LAST_WORDS, viewing).await;
    broker.end().await?;
    if let Ok(Ok(view)) = left {
        view?.conclude(&args.data)?;
    }
    result
}

/// Sends, delivers and runs the application, until the first signal; the second cuts everything short.
async fn work(
    args: &DevArgs,
    plan: &Plan,
    ports: &ports::Ports,
    seeds: Vec<seed::Seed>,
    broker: &Embedded,
    sender: &mpsc::Sender<Happening>,
    signals: &Signals,
) -> Result<(), Failure> {
    let (drain, stop_app) = (CancellationToken::new(), CancellationToken::new());
    let mut sidecars = JoinSet::new();
    for workload in plan.workloads() {
        let sidecar =
            sidecars::Local { workload, url: broker.url(), sender: sender.clone(), stop: drain.clone() };
        sidecars.spawn(sidecar.run());
    }
    let mut app = JoinSet::new();
    if let Some(command) = &args.app {
        let command = app::Command { line: command.clone(), port: ports.app, url: broker.url() };
        app.spawn(app::run(command, sender.clone(), stop_app.clone()));
    }
    let result = tokio::select! {
        result = until_end(plan, seeds, broker, sender, signals) => result,
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
        () = signals.second() => {
            app.shutdown().await;
            Err(Failure::Interrupted)
        }
    }
}

async fn until_end(
    plan: &Plan,
    seeds: Vec<seed::Seed>,
    broker: &Embedded,
    sender: &mpsc::Sender<Happening>,
    signals: &Signals,
) -> Result<(), Failure> {
    seed::send(plan, seeds, broker).await?;
    tokio::select! {
        () = signals.first() => {
            // The view may be full or gone; ending goes on.
            let _ = sender.try_send(Happening::Ending);
            Ok(())
        }
        error = broker.failed() => Err(error),
    }
}
