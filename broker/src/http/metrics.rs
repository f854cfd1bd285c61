//! `/metrics` for Prometheus: gauges and counters of each queue. The number of queues bounds the number of series.

use std::sync::atomic::Ordering;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::Response;
use capstan_port::connections::Connection;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::AppState;
use super::answer::Lists;
use super::refused::Refused;
use crate::broker::Ports;
use crate::engine::{Commits, QueueSnapshot, Snapshot};
use crate::store::Usage;

const LABELS: [&str; 2] = ["namespace", "queue"];
const MESSAGES: [&str; 3] = ["namespace", "queue", "state"];
const EVENTS: [&str; 3] = ["namespace", "queue", "event"];

/// Counts everything and writes it down.
pub(super) async fn get(
    State(state): State<AppState>,
    Extension(connection): Extension<Connection>,
) -> Result<Response, Refused> {
    let turn = state.states.turn().await?;
    let snapshot = state.engine.snapshot().await?;
    let sidecars = state.sidecars.load(Ordering::Relaxed);
    let usage = state.engine.volume().usage();
    let write = move || {
        write(&state, &snapshot, sidecars, usage).map_err(|error| {
            tracing::error!(%error, "metrics cannot be written");
            super::unexpected()
        })
    };
    turn.write(HeaderValue::from_static(prometheus::TEXT_FORMAT), &connection, write).await
}

fn write(
    state: &AppState,
    snapshot: &Snapshot,
    sidecars: usize,
    usage: Option<Usage>,
) -> prometheus::Result<Vec<u8>> {
    let registry = Registry::new();
    if let Some(usage) = usage {
        storage(usage, &registry)?;
    }
    registry.register(Box::new(Families::of(&snapshot.queues)?))?;
    registry.register(Box::new(commits(snapshot.commits)?))?;
    registry.register(Box::new(clock_offset(snapshot.clock_offset_ms)?))?;
    let depths = state.engine.depths();
    let listed = [&state.lists, &state.states, &state.feeds].map(Lists::unread);
    let unread = state.engine.unread() + listed.iter().sum::<u64>();
    let unread = usize::try_from(unread).unwrap_or(usize::MAX);
    let (open, refused) = connections(&state.connections)?;
    registry.register(Box::new(open))?;
    registry.register(Box::new(refused))?;
    for (name, help, count) in [
        ("capstan_pulls_waiting", "Pulls that wait for messages.", snapshot.pulls_waiting),
        ("capstan_sidecars_waiting", "Sidecars that wait for news of their configuration.", sidecars),
        ("capstan_answers_unread_bytes", "Large answers that clients have not taken yet.", unread),
        ("capstan_verdicts_waiting", "Requests with verdicts that wait for the engine.", depths.verdicts),
        ("capstan_work_waiting", "Sends, pulls and looks that wait for the engine.", depths.work),
        ("capstan_work_waiting_bytes", "Bodies of the sends that wait for the engine.", depths.work_bytes),
    ] {
        let waiting = IntGauge::new(name, help)?;
        waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
        registry.register(Box::new(waiting))?;
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    TextEncoder::new().encode(&state.stats.registry.gather(), &mut text)?;
    Ok(text)
}

/// The volume. Nothing of it where the file system does not tell its size.
fn storage(usage: Usage, registry: &Registry) -> prometheus::Result<()> {
    // Whether sends are refused follows from free and reserve, to whom watches.
    let Usage { capacity, available, reserve, used, ballast, refused, nearly_full: _ } = usage;
    for (name, help, bytes) in [
        ("capstan_store_volume_bytes", "Size of the volume.", capacity),
        ("capstan_store_available_bytes", "Bytes that are free on the volume.", available),
        ("capstan_store_reserve_bytes", "Sends are refused while fewer bytes are free.", reserve),
        ("capstan_store_used_bytes", "Bytes of the store's journals and tables.", used),
        ("capstan_store_ballast_bytes", "Bytes held back to open the store on a full volume.", ballast),
    ] {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        registry.register(Box::new(gauge))?;
    }
    let help = "Sends refused since the broker's start because the volume is nearly full.";
    let counter = IntCounter::new("capstan_store_sends_refused_total", help)?;
    counter.inc_by(refused);
    registry.register(Box::new(counter))
}

fn clock_offset(millis: i64) -> prometheus::Result<Gauge> {
    let help = "How far the wall clock is ahead of the broker's time, which never jumps; it wears off.";
    let offset = Gauge::new("capstan_clock_offset_seconds", help)?;
    offset.set(millis as f64 / 1000.0);
    Ok(offset)
}

fn connections(ports: &Ports) -> prometheus::Result<(IntGaugeVec, IntCounterVec)> {
    let open = IntGaugeVec::new(Opts::new("capstan_connections", "Open connections."), &["port"])?;
    let help = "Connections closed at once since the broker's start, because too many were open.";
    let refused = IntCounterVec::new(Opts::new("capstan_connections_refused_total", help), &["port"])?;
    for (port, connections) in [("api", &ports.api), ("admin", &ports.admin)] {
        open.with_label_values(&[port]).set(i64::try_from(connections.open()).unwrap_or(i64::MAX));
        refused.with_label_values(&[port]).inc_by(connections.refused());
    }
    Ok((open, refused))
}

fn commits(commits: Commits) -> prometheus::Result<IntCounterVec> {
    let help = "Commits since the broker's start: synced ones waited for the disk, buffered ones only lease.";
    let family = IntCounterVec::new(Opts::new("capstan_store_commits_total", help), &["durability"])?;
    for (durability, count) in [("buffered", commits.buffered), ("synced", commits.synced)] {
        family.with_label_values(&[durability]).inc_by(count);
    }
    Ok(family)
}

/// The metrics of one look: made anew each time, so that a queue that is gone is gone here too.
struct Families(Vec<Box<dyn Collector>>);

impl Families {
    fn of(snapshots: &[QueueSnapshot]) -> prometheus::Result<Self> {
        let messages =
            IntGaugeVec::new(Opts::new("capstan_queue_messages", "Messages by state."), &MESSAGES)?;
        let bytes =
            IntGaugeVec::new(Opts::new("capstan_queue_bytes", "Bytes of bodies and attributes."), &LABELS)?;
        let oldest =
            Opts::new("capstan_queue_oldest_age_seconds", "Age of the oldest message; 0 when there is none.");
        let oldest = GaugeVec::new(oldest, &LABELS)?;
        let help = "Batches that are delivered and not settled, such as calls of an application.";
        let batches = IntGaugeVec::new(Opts::new("capstan_queue_batches", help), &LABELS)?;
        let keys = Opts::new(
            "capstan_queue_idempotency_keys",
            "Sends with an idempotency key that are remembered, so that repeated ones are stored once.",
        );
        let keys = IntGaugeVec::new(keys, &LABELS)?;
        let events =
            Opts::new("capstan_queue_events_total", "What happened to messages since the broker's start.");
        let events = IntCounterVec::new(events, &EVENTS)?;
        for snapshot in snapshots {
            let (namespace, queue) = snapshot.label.split_once('/').unwrap_or(("", &snapshot.label));
            for (state, count) in counts(snapshot) {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                messages.with_label_values(&[namespace, queue, state]).set(count);
            }
            for (event, count) in totals(snapshot) {
                events.with_label_values(&[namespace, queue, event]).inc_by(count);
            }
            let size = i64::try_from(snapshot.bytes).unwrap_or(i64::MAX);
            bytes.with_label_values(&[namespace, queue]).set(size);
            let delivered = i64::try_from(snapshot.batches).unwrap_or(i64::MAX);
            batches.with_label_values(&[namespace, queue]).set(delivered);
            let remembered = i64::try_from(snapshot.remembered).unwrap_or(i64::MAX);
            keys.with_label_values(&[namespace, queue]).set(remembered);
            let age = std::time::Duration::from_millis(snapshot.oldest_age_ms.unwrap_or(0));
            oldest.with_label_values(&[namespace, queue]).set(age.as_secs_f64());
        }
        Ok(Self(vec![
            Box::new(messages),
            Box::new(bytes),
            Box::new(oldest),
            Box::new(batches),
            Box::new(keys),
            Box::new(events),
        ]))
    }
}

const fn counts(snapshot: &QueueSnapshot) -> [(&'static str, u64); 4] {
    let QueueSnapshot { ready, delayed, leased, dead, .. } = *snapshot;
    [("ready", ready), ("delayed", delayed), ("leased", leased), ("dead", dead)]
}

const fn totals(snapshot: &QueueSnapshot) -> [(&'static str, u64); 11] {
    let totals = &snapshot.totals;
    [
        ("sent", totals.sent),
        ("delivered", totals.delivered),
        ("acknowledged", totals.acknowledged),
        ("retried", totals.retried),
        ("released", totals.released),
        ("lease_expired", totals.lease_expired),
        ("dead_lettered", totals.dead_lettered),
        ("dropped", totals.dropped),
        ("expired", totals.expired),
        ("purged", totals.purged),
        ("duplicate_sends", totals.duplicate_sends),
    ]
}

impl Collector for Families {
    fn desc(&self) -> Vec<&Desc> {
        self.0.iter().flat_map(|family| family.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.iter().flat_map(|family| family.collect()).collect()
    }
}
