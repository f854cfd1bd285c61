//! The control API on the admin port: declaration and state.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use axum::{Extension, Json};
use capstan_api::ErrorCode;
use capstan_api::Name;
use capstan_api::control::{
    BrokerState, CHANGES_WAIT_MS_MAX, Changes, DeadBlocked, Declaration, Declared, QueueState, QueueTotals,
    StorageState,
};
use capstan_api::limits;
use capstan_core::{Command, Refusal};
use capstan_port::connections::Connection;
use capstan_port::path::InQuery;

use super::AppState;
use super::body::Body;
use super::refused::Refused;
use crate::engine::{Changed, QueueSnapshot, Version};
use crate::policy;

/// After a change, others are awaited for so long.
const CHANGES_GATHER: Duration = Duration::from_millis(50);

/// Replaces all policies.
pub(super) async fn declare(
    State(state): State<AppState>,
    request: Request,
) -> Result<Json<Declared>, Refused> {
    let declaration: Declaration =
        Body::within(limits::DECLARATION_BYTES_MAX, request.into_body(), &state.budgets.declarations)
            .await?
            .read()?;
    let command = policy::declaration(&declaration)
        .map_err(|error| Refused::at(ErrorCode::JsonBodyInvalid, error.pointer(), error.to_string()))?;
    state.engine.apply(Command::Declare(command), None).await?;
    let queues = declaration.queues.len();
    tracing::info!(queues, revision = declaration.revision, "policies declared");
    Ok(Json(Declared { incarnation: state.incarnation(), revision: declaration.revision }))
}

/// Tells what the broker knows.
pub(super) async fn get(
    State(state): State<AppState>,
    Extension(connection): Extension<Connection>,
) -> Result<Response, Refused> {
    let turn = state.states.turn().await?;
    let snapshot = state.engine.snapshot().await?;
    turn.write_json(&connection, move || {
        let queues = states(&state, &snapshot.queues);
        serde_json::to_vec(&BrokerState {
            incarnation: state.incarnation(),
            revision: state.engine.directory().revision.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            storage: storage(&state),
            queues,
        })
    })
    .await
}

/// What a subscriber has seen, and how long it waits for more.
#[derive(serde::Deserialize)]
pub(super) struct Seen {
    #[serde(default)]
    since: String,
    #[serde(default)]
    wait_ms: u64,
}

/// Answers when queues changed after the version that the subscriber has seen, or the time is over, or the broker ends.
pub(super) async fn changes(
    State(state): State<AppState>,
    Extension(connection): Extension<Connection>,
    InQuery(seen): InQuery<Seen>,
) -> Result<Response, Refused> {
    let (mut versions, since) = (state.engine.subscribe(), read_version(&seen.since));
    let wait = Duration::from_millis(seen.wait_ms.min(CHANGES_WAIT_MS_MAX));
    let over = tokio::time::sleep(wait);
    let news = async {
        // The sender lives as long as the engine, whose end is noticed below.
        let _ = versions.wait_for(|now| Some(*now) != since).await;
        // Under load each commit is a change: what follows at once comes along.
        tokio::time::sleep(CHANGES_GATHER.min(wait)).await;
    };
    tokio::select! {
        () = news => {}
        () = over => {}
        () = state.ending.cancelled() => {}
    }
    let turn = state.feeds.turn().await?;
    let Changed { version, whole, queues } = state.engine.changes(since).await?;
    turn.write_json(&connection, move || {
        let queues = states(&state, &queues);
        let version = format!("{:08x}-{}", version.epoch, version.number);
        serde_json::to_vec(&Changes { version, whole, queues })
    })
    .await
}

/// `None` for what is no version of ours.
fn read_version(text: &str) -> Option<Version> {
    let (epoch, number) = text.split_once('-')?;
    Some(Version { epoch: u32::from_str_radix(epoch, 16).ok()?, number: number.parse().ok()? })
}

fn states(state: &AppState, queues: &[QueueSnapshot]) -> Vec<QueueState> {
    let directory = state.engine.directory();
    let with_application = |snapshot| {
        let mut queue = queue_state(snapshot)?;
        queue.application = state.reports.of(&directory, &queue.namespace, &queue.name);
        Some(queue)
    };
    queues.iter().filter_map(with_application).collect()
}

fn queue_state(snapshot: &QueueSnapshot) -> Option<QueueState> {
    let (namespace, name) = snapshot.label.split_once('/')?;
    let totals = snapshot.totals;
    Some(QueueState {
        namespace: Name::new(namespace).ok()?,
        name: Name::new(name).ok()?,
        retained: snapshot.retained,
        ready: snapshot.ready,
        delayed: snapshot.delayed,
        due_soon: snapshot.due_soon,
        leased: snapshot.leased,
        batches: snapshot.batches,
        dead: snapshot.dead,
        dead_blocked: snapshot.blocked.map(dead_blocked),
        bytes: snapshot.bytes,
        oldest_age_ms: snapshot.oldest_age_ms,
        oldest_ready_age_ms: snapshot.oldest_ready_age_ms,
        empty_by_ms: snapshot.empty_by_ms,
        totals: QueueTotals {
            sent: totals.sent,
            delivered: totals.delivered,
            acknowledged: totals.acknowledged,
            retried: totals.retried,
            released: totals.released,
            lease_expired: totals.lease_expired,
            dead_lettered: totals.dead_lettered,
            dropped: totals.dropped,
            expired: totals.expired,
            purged: totals.purged,
        },
        application: None,
    })
}

const fn dead_blocked(refusal: Refusal) -> DeadBlocked {
    match refusal {
        Refusal::NoConsumer => DeadBlocked::NoConsumer,
        Refusal::QueueUnknown => DeadBlocked::TargetMissing,
        Refusal::QueueRetained => DeadBlocked::TargetRetained,
        Refusal::QueueBytesFull => DeadBlocked::TargetBytesFull,
        Refusal::QueueMessagesFull => DeadBlocked::TargetMessagesFull,
        Refusal::BeyondQueue => DeadBlocked::TargetTooSmall,
        Refusal::DeliveryPaused | Refusal::KeyReused | Refusal::KeysFull | Refusal::NotSent => {
            DeadBlocked::Other
        }
    }
}

fn storage(state: &AppState) -> Option<StorageState> {
    let usage = state.engine.volume().usage()?;
    Some(StorageState {
        capacity_bytes: usage.capacity,
        available_bytes: usage.available,
        reserve_bytes: usage.reserve,
        used_bytes: usage.used,
        sends_refused: usage.nearly_full,
    })
}
