//! Local mode: the same YAML, on this machine, without a cluster.
//!
//! Data flows one way: `files` are read, `plan` checks and resolves them into a declaration, `broker` keeps it, `sidecars`
//! hand its messages to the application (`app`), which sends through the `gateway`, and what happens goes to the `view`.

mod app;
mod args;
mod broker;
mod gateway;
mod happening;
mod intro;
mod plan;
mod ports;
mod prepare;
mod seed;
mod session;
mod sidecars;
mod signals;
mod view;
mod waiting;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
pub(crate) use args::DevArgs;
use broker::Embedded;
use session::Session;
use signals::Signals;
use view::View;

/// Happenings that may wait for the view; whoever makes more waits too.
const HAPPENINGS_MAX: usize = 1024;
/// How long the view may take to show the last of them.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs `capstan dev` until Ctrl-C.
///
/// Everything ends in the order of a pod: the sidecars drain, the application is ended, then gateway and broker.
pub(crate) async fn run(args: DevArgs) -> Result<(), Failure> {
    let signals = Signals::listen()?;
    // Nothing runs yet that would have to end in order.
    let (plan, seeds) = tokio::select! {
        prepared = prepare::prepare(&args) => prepared?,
        () = signals.first() => return Ok(()),
    };
    let ports = ports::choose(&plan, args.app.is_some(), args.app_port).await?;
    let plan = plan.with_port(ports.instead);
    let broker = Embedded::start(&args.data, args.listen, &plan.declaration).await?;
    let gateway = gateway::Running::start(&broker.url(), &plan, args.gateway_port, args.listen).await?;
    let (sender, happenings) = mpsc::channel(HAPPENINGS_MAX);
    view::log::install(sender.clone());
    let view = View::new(&plan.declaration, broker.control().clone());
    view.introduce(&intro::text(&args, &plan, &ports, &broker, &gateway).await?)?;
    let (ended, unseen) = (CancellationToken::new(), CancellationToken::new());
    let viewing = {
        let (seen, ended) = (unseen.clone().drop_guard(), ended.clone());
        tokio::spawn(async move {
            // However the view ends, also because nobody reads it any more, it is known.
            let _seen = seen;
            view.run(happenings, ended).await
        })
    };
    let session = Session {
        plan: &plan,
        broker: &broker,
        gateway: &gateway,
        app: args.app.as_ref(),
        port: ports.app,
        sender,
        signals,
        unseen,
    };
    let result = session.run(seeds).await;
    ended.cancel();
    let left = tokio::time::timeout(LAST_WORDS, viewing).await;
    gateway.end().await;
    broker.end().await?;
    if let Ok(Ok(view)) = left {
        view?.conclude(&args.data)?;
    }
    result
}
