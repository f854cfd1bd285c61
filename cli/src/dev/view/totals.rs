//! From the broker's counters to lines: what no sidecar tells. Pure.

use capstan_api::control::{BrokerState, QueueState, QueueTotals};

use super::facts::{Facts, QueueFacts};
use super::line::{Line, Tone};
use crate::output::messages;

/// What happened between two states.
pub(super) fn changes(facts: &Facts, before: Option<&BrokerState>, now: &BrokerState) -> Vec<Line> {
    let mut lines = Vec::new();
    for queue in &now.queues {
        let earlier = |state: &BrokerState| {
            let same = |other: &&QueueState| other.namespace == queue.namespace && other.name == queue.name;
            state.queues.iter().find(same).map(|queue| queue.totals)
        };
        let before = before.and_then(earlier).unwrap_or_default();
        let label = facts.labels.label(&queue.namespace, &queue.name);
        let of_queue = facts.queue(&queue.namespace, &queue.name);
        for (verb, tone, count, text) in counted(&of_queue, &before, &queue.totals) {
            if count > 0 {
                lines.push(Line::new(
                    label.clone(),
                    verb,
                    tone,
                    format!("{}{text}", counted_as(verb, count)),
                ));
            }
        }
    }
    lines
}

/// A message may be delivered and fail several times within a moment; all else happens to it once.
fn counted_as(verb: &str, count: u64) -> String {
    match verb {
        "sent" | "acknowledged" | "expired" | "purged" | "dead-lettered" | "dropped" => messages(count),
        _ if count == 1 => messages(1),
        _ => format!("{count} deliveries"),
    }
}

type Counted = (&'static str, Tone, u64, String);

fn counted(facts: &QueueFacts, before: &QueueTotals, now: &QueueTotals) -> Vec<Counted> {
    let more = |of: fn(&QueueTotals) -> u64| of(now).saturating_sub(of(before));
    let none = String::new;
    let mut counted = vec![
        ("sent", Tone::Sent, more(|t| t.sent), none()),
        ("lease ended", Tone::Retry, more(|t| t.lease_expired), ", not acknowledged in time".to_owned()),
        ("expired", Tone::Bad, more(|t| t.expired), ", older than messageRetention".to_owned()),
        ("purged", Tone::Quiet, more(|t| t.purged), none()),
    ];
    // A sidecar tells the rest, with names and reasons.
    if !facts.push {
        let target = facts.dead_letter_queue.as_ref().map(|queue| format!(" → {queue}")).unwrap_or_default();
        counted.extend([
            ("delivered", Tone::Delivered, more(|t| t.delivered), none()),
            ("acknowledged", Tone::Good, more(|t| t.acknowledged), none()),
            ("retried", Tone::Retry, more(|t| t.retried), none()),
            ("released", Tone::Quiet, more(|t| t.released), none()),
            ("dead-lettered", Tone::Bad, more(|t| t.dead_lettered), target),
            ("dropped", Tone::Bad, more(|t| t.dropped), ", retries used up".to_owned()),
        ]);
    }
    counted
}
