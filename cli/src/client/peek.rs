//! `capstan peek`.

use capstan_api::Name;
use capstan_api::message::{Peek, PeekedMessage};
use capstan_api::number::Whole;
use clap::Args;
use serde_json::{Value, json};

use super::{Target, body};
use crate::failure::Failure;
use crate::output::{Format, age, print, print_lines, table};

const STATE: &str = "capstan-state";
const REASON: &str = "capstan-dead-letter-reason";

/// Look at the oldest messages of a queue, and change nothing
///
/// Shows messages in any state: ready, delayed, leased, or dead (waiting for a dead-letter queue that cannot take it).
/// Of dead letters it shows why their last delivery failed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  capstan peek orders-dlq
  capstan peek orders --batch-size 100 -o json | jq .body")]
pub(crate) struct PeekArgs {
    /// The queue.
    queue: Name,
    /// Most messages, 1 to 100.
    #[arg(long, value_name = "N", default_value_t = 20)]
    batch_size: u16,
    #[command(flatten)]
    target: Target,
}

/// Runs it.
pub(crate) async fn peek(args: PeekArgs) -> Result<(), Failure> {
    let PeekArgs { queue, batch_size, target } = args;
    let peek = Peek { batch_size: Some(Whole(batch_size.into())) };
    let peeked = target.client()?.peek(&target.namespace, &queue, &peek).await;
    let messages = peeked.map_err(|error| target.failure(&error))?.messages;
    match target.output {
        Format::Json => print_lines(&messages.into_iter().map(object).collect::<Vec<_>>())?,
        Format::Text if messages.is_empty() => print("empty\n")?,
        Format::Text => {
            let rows: Vec<Vec<String>> = messages.into_iter().map(row).collect();
            print(&table(&["ID", "STATE", "DELIVERIES", "AGE", "BODY"], &rows))?;
        }
    }
    Ok(())
}

fn object(message: PeekedMessage) -> Value {
    let PeekedMessage { id, body, attempts, timestamp_ms, reference, metadata, attributes } = message;
    let content_type = body::content_type(&metadata);
    json!({
        "id": id,
        "state": metadata.get(STATE),
        "body": body::value(content_type, body),
        "content_type": content_type,
        "attempts": attempts,
        "timestamp_ms": timestamp_ms,
        "ref": reference,
        "metadata": metadata,
        "attributes": attributes,
    })
}

fn row(message: PeekedMessage) -> Vec<String> {
    let PeekedMessage { id, body, attempts, timestamp_ms, metadata, .. } = message;
    let state = metadata.get(STATE).cloned().unwrap_or_default();
    let mut body = body::shown(body::content_type(&metadata), body);
    if let Some(reason) = metadata.get(REASON).filter(|reason| !reason.is_empty()) {
        body.push_str(&format!("  ({reason})"));
    }
    vec![id, state, attempts.to_string(), age(timestamp_ms), body]
}
