//! `capstan pull`.

use std::collections::BTreeMap;

use capstan_api::Name;
use capstan_api::limits::{IDLE_MS_MAX, VISIBILITY_TIMEOUT_MS_MAX};
use capstan_api::message::{Attributes, ContentType, Lease, Pull, PulledMessage, Settle};
use capstan_api::number::Whole;
use clap::Args;
use serde::Serialize;

use super::body::{self, Body};
use super::settle::warn;
use super::{Target, batch_size, millis_up_to};
use crate::failure::Failure;
use crate::output::{Format, age, print, print_lines};

/// Take messages from a queue
///
/// The messages are leased: unless they are acknowledged, they come back when the lease ends, and each time counts as an
/// attempt. The queue needs a Consumer without targetRef; look into others with `capstan peek`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  capstan pull jobs --ack
  capstan pull jobs --batch-size 10 --wait 30s -o json
  capstan pull jobs && capstan ack jobs LEASE_ID")]
pub(crate) struct PullArgs {
    /// The queue.
    queue: Name,
    /// Most messages, 1 to 100.
    #[arg(long, value_name = "N", default_value_t = capstan_api::limits::PULL_BATCH_DEFAULT, value_parser = batch_size())]
    batch_size: u16,
    /// Wait so long for a first message, at most 1m.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = millis_up_to(IDLE_MS_MAX))]
    wait: u64,
    /// How long the messages stay leased, at most 12h. Default: the Consumer's visibilityTimeout.
    #[arg(long, value_name = "TIME", value_parser = millis_up_to(VISIBILITY_TIMEOUT_MS_MAX))]
    visibility_timeout: Option<u64>,
    /// Acknowledge the messages once they are written: they are gone.
    #[arg(long, overrides_with = "no_ack")]
    ack: bool,
    /// Leave them leased, for `capstan ack` and `capstan retry` (the default).
    #[arg(long)]
    no_ack: bool,
    #[command(flatten)]
    target: Target,
}

/// Runs it.
pub(crate) async fn pull(args: PullArgs) -> Result<(), Failure> {
    let PullArgs { queue, batch_size, wait, visibility_timeout, ack, target, .. } = args;
    let client = target.client()?;
    let pull = Pull {
        batch_size: Some(Whole(batch_size.into())),
        visibility_timeout_ms: visibility_timeout.map(Whole),
        idle_ms: Some(Whole(wait)),
        ..Pull::default()
    };
    let pulled = client.pull(&target.namespace, &queue, &pull).await.map_err(|e| target.failure(&e))?;
    let acks: Vec<Lease> =
        pulled.messages.iter().map(|one| Lease { lease_id: one.lease_id.clone() }).collect();
    match target.output {
        Format::Json => print_lines(&pulled.messages.into_iter().map(object).collect::<Vec<_>>())?,
        Format::Text if pulled.messages.is_empty() => {
            print(&format!(
                "nothing to pull; {} in the queue, delayed or leased\n",
                pulled.message_backlog_count
            ))?;
        }
        Format::Text => print(&pulled.messages.into_iter().map(|one| lines(one, ack)).collect::<String>())?,
    }
    // What was not written is not acknowledged.
    if !ack || acks.is_empty() {
        return Ok(());
    }
    let settle = Settle { acks, ..Settle::default() };
    let settled = client.settle(&target.namespace, &queue, &settle).await.map_err(|e| target.failure(&e))?;
    warn(&settled.warnings)
}

/// A message as a line of JSON.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    #[serde(flatten)]
    body: Body,
    content_type: ContentType,
    attempts: u32,
    timestamp_ms: u64,
    lease_id: String,
    metadata: BTreeMap<String, String>,
    attributes: Attributes,
}

fn object(message: PulledMessage) -> Shown {
    let PulledMessage { id, body, attempts, timestamp_ms, lease_id, metadata, attributes } = message;
    let content_type = body::content_type(&metadata);
    let body = Body::new(content_type, body);
    Shown { id, body, content_type, attempts, timestamp_ms, lease_id, metadata, attributes }
}

fn lines(message: PulledMessage, ack: bool) -> String {
    let PulledMessage { id, body, attempts, timestamp_ms, lease_id, metadata, .. } = message;
    let body = body::shown(body::content_type(&metadata), body);
    let lease = if ack { String::new() } else { format!("  lease {lease_id}\n") };
    format!("{id}  delivery {attempts}, sent {} ago\n  {body}\n{lease}", age(timestamp_ms))
}
