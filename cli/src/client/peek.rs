//! `capstan peek`.

use std::collections::BTreeMap;

use capstan_api::Name;
use capstan_api::message::{Attributes, ContentType, Peek, PeekedMessage};
use capstan_api::number::Whole;
use clap::Args;
use serde::Serialize;

use super::body::{self, Body};
use super::{Target, batch_size};
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
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = batch_size())]
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

/// A message as a line of JSON.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    state: Option<String>,
    #[serde(flatten)]
    body: Body,
    content_type: ContentType,
    attempts: u32,
    timestamp_ms: u64,
    #[serde(rename = "ref")]
    reference: String,
    metadata: BTreeMap<String, String>,
    attributes: Attributes,
}

fn object(message: PeekedMessage) -> Shown {
    let PeekedMessage { id, body, attempts, timestamp_ms, reference, metadata, attributes } = message;
    let content_type = body::content_type(&metadata);
    let (state, body) = (metadata.get(STATE).cloned(), Body::new(content_type, body));
    Shown { id, state, body, content_type, attempts, timestamp_ms, reference, metadata, attributes }
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
