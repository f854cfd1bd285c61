//! `capstan queues`.

use capstan_api::Name;
use capstan_api::message::{ListedQueue, Metrics};
use clap::Args;
use serde_json::{Value, json};

use super::Target;
use crate::failure::Failure;
use crate::output::{Format, age, print, print_lines, table};

/// List the queues of a namespace with their backlog
///
/// The backlog is every message that is neither acknowledged nor gone: ready, delayed or leased.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  capstan queues\n  capstan queues -n shop -o json")]
pub(crate) struct QueuesArgs {
    #[command(flatten)]
    target: Target,
}

struct Row {
    queue: Name,
    metrics: Metrics,
    /// Who consumes: a workload's name, `pull`, or nobody.
    consumer: Option<String>,
}

/// Runs it.
pub(crate) async fn queues(args: QueuesArgs) -> Result<(), Failure> {
    let target = args.target;
    let client = target.client()?;
    let listed = client.queues(&target.namespace).await.map_err(|error| target.failure(&error))?;
    let mut rows = Vec::with_capacity(listed.len());
    for ListedQueue { queue_name: queue, consumers } in listed {
        let metrics = client.metrics(&target.namespace, &queue).await.map_err(|e| target.failure(&e))?;
        let name = |script: Option<String>| script.unwrap_or_else(|| "pull".to_owned());
        let consumer = consumers.into_iter().next().map(|consumer| name(consumer.script_name));
        rows.push(Row { queue, metrics, consumer });
    }
    match target.output {
        Format::Json => print_lines(&rows.iter().map(object).collect::<Vec<_>>())?,
        Format::Text if rows.is_empty() => {
            print(&format!("no queues in namespace {}\n", target.namespace))?;
        }
        Format::Text => {
            let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
            print(&table(&["QUEUE", "BACKLOG", "BYTES", "OLDEST", "CONSUMER"], &rows))?;
        }
    }
    Ok(())
}

fn object(row: &Row) -> Value {
    json!({
        "queue": row.queue,
        "backlog_count": row.metrics.backlog_count,
        "backlog_bytes": row.metrics.backlog_bytes,
        "oldest_message_timestamp_ms": row.metrics.oldest_message_timestamp_ms,
        "consumer": row.consumer,
    })
}

fn cells(row: &Row) -> Vec<String> {
    let Metrics { backlog_count, backlog_bytes, oldest_message_timestamp_ms: oldest } = row.metrics;
    let oldest = if oldest == 0 { "-".to_owned() } else { age(oldest) };
    let consumer = row.consumer.clone().unwrap_or_else(|| "-".to_owned());
    vec![row.queue.to_string(), backlog_count.to_string(), backlog_bytes.to_string(), oldest, consumer]
}
