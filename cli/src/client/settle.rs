//! `capstan ack` and `capstan retry`.

use std::collections::BTreeMap;

use capstan_api::Name;
use capstan_api::message::{Lease, Retry, Settle};
use capstan_api::number::Number;
use clap::Args;
use serde_json::json;

use super::{Target, delay};
use crate::failure::Failure;
use crate::output::{Format, messages, print, print_lines};

/// Acknowledge pulled messages: they are gone
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  capstan ack jobs LEASE_ID LEASE_ID")]
pub(crate) struct AckArgs {
    /// The queue.
    queue: Name,
    /// As `capstan pull` showed them.
    #[arg(value_name = "LEASE_ID", required = true)]
    leases: Vec<String>,
    #[command(flatten)]
    target: Target,
}

/// Give pulled messages back as failed
///
/// They are delivered again, or go to the dead-letter queue after their last retry.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  capstan retry jobs LEASE_ID --delay 30s --reason 'out of stock'")]
pub(crate) struct RetryArgs {
    /// The queue.
    queue: Name,
    /// As `capstan pull` showed them.
    #[arg(value_name = "LEASE_ID", required = true)]
    leases: Vec<String>,
    /// Deliver again after so long, at most 24h. Default: the Consumer's retryDelay.
    #[arg(long, value_name = "TIME", value_parser = delay)]
    delay: Option<u64>,
    /// What went wrong; kept with the message.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// Runs `ack`.
pub(crate) async fn ack(args: AckArgs) -> Result<(), Failure> {
    let acks = args.leases.into_iter().map(|lease_id| Lease { lease_id }).collect();
    settle(&args.target, &args.queue, &Settle { acks, ..Settle::default() }).await
}

/// Runs `retry`.
pub(crate) async fn retry(args: RetryArgs) -> Result<(), Failure> {
    let RetryArgs { queue, leases, delay, reason, target } = args;
    let retry = |lease_id| Retry { lease_id, delay_seconds: delay.map(Number::from), reason: reason.clone() };
    let retries = leases.into_iter().map(retry).collect();
    settle(&target, &queue, &Settle { retries, ..Settle::default() }).await
}

async fn settle(target: &Target, queue: &Name, settle: &Settle) -> Result<(), Failure> {
    let settled = target.client()?.settle(&target.namespace, queue, settle).await;
    let settled = settled.map_err(|error| target.failure(&error))?;
    if target.output == Format::Json {
        print_lines(&[json!(settled)])?;
    } else {
        for (count, verb) in [(settled.ack_count, "acknowledged"), (settled.retry_count, "retried")] {
            if count > 0 {
                print(&format!("{verb} {}\n", messages(count.into())))?;
            }
        }
    }
    warn(&settled.warnings)
}

/// Fails when the broker says that something had no effect.
pub(super) fn warn(warnings: &BTreeMap<String, String>) -> Result<(), Failure> {
    if warnings.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = warnings.iter().map(|(lease, why)| format!("{lease}: {why}")).collect();
    Err(Failure::Refused(format!("without effect:\n  {}", lines.join("\n  "))))
}
