//! The streams: a long poll for each Broker that somebody wants to hear of.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use capstan_crds::Key;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{debug, info};

use crate::context::Context;

/// How long a broker waits for something to say.
const WAIT: Duration = Duration::from_secs(10);
/// How long it may take to say it.
const ANSWER: Duration = Duration::from_secs(5);
/// The first pause after a poll that failed; it doubles with each further one.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// The longest pause: a broker that is back is heard soon.
const PAUSE_LAST: Duration = Duration::from_secs(3);
/// How often is looked which Brokers nobody wants to hear of any more.
const LOOK: Duration = Duration::from_secs(30);

/// Listens to all Brokers that somebody wants to hear of. Never ends.
pub(crate) async fn follow(context: Arc<Context>) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let mut streams: HashMap<Key, AbortHandle> = HashMap::new();
    loop {
        let wanted = context.demands.wanted();
        streams.retain(|broker, stream| {
            let is_wanted = wanted.contains(broker);
            if !is_wanted {
                stream.abort();
            }
            is_wanted
        });
        for broker in wanted {
            streams
                .entry(broker)
                .or_insert_with_key(|broker| tasks.spawn(listen(Arc::clone(&context), broker.clone())));
        }
        tokio::select! {
            () = context.demands.wanted_changed() => {}
            () = tokio::time::sleep(LOOK) => {}
            // One that is no longer wanted.
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// Listens to one Broker, until it is aborted.
async fn listen(context: Arc<Context>, broker: Key) {
    let (mut since, mut pause, mut was_heard) = (String::new(), PAUSE_FIRST, true);
    loop {
        match poll(&context, &broker, &since).await {
            Ok((version, told)) => {
                if !was_heard {
                    info!(%broker, "heard again");
                }
                (since, pause, was_heard) = (version, PAUSE_FIRST, true);
                crate::scaling::news(&context, &broker, &told);
            }
            Err(error) => {
                if std::mem::replace(&mut was_heard, false) {
                    info!(%broker, error, "not heard; trying again");
                } else {
                    debug!(%broker, error, "not heard");
                }
                crate::scaling::news(&context, &broker, &context.demands.silenced(&broker));
                tokio::time::sleep(pause.mul_f64(0.8 + 0.4 * rand::random::<f64>())).await;
                pause = (pause * 2).min(PAUSE_LAST);
            }
        }
    }
}

/// Waits for news; the version to ask with next, and the Queues of which there are some.
async fn poll(context: &Context, broker: &Key, since: &str) -> Result<(String, Vec<Key>), String> {
    let client = context.control(broker).map_err(|error| error.to_string())?;
    let answer = tokio::time::timeout(WAIT + ANSWER, client.changes(since, WAIT)).await;
    let changes = match answer {
        Ok(answer) => answer.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("no answer within {} s", (WAIT + ANSWER).as_secs())),
    };
    let version = changes.version.clone();
    Ok((version, context.demands.learn(broker, changes)))
}
