//! The control API on the admin port: declaration and state.

use axum::Json;
use axum::extract::{Request, State};
use capstan_api::ErrorCode;
use capstan_api::Name;
use capstan_api::control::{BrokerState, Declaration, Declared, QueueState, QueueTotals, StorageState};
use capstan_api::limits;
use capstan_core::Command;

use super::AppState;
use super::body::Body;
use super::refused::Refused;
use crate::engine::QueueSnapshot;
use crate::policy;

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
pub(super) async fn get(State(state): State<AppState>) -> Result<Json<BrokerState>, Refused> {
    let queues = state.engine.snapshot().await?.queues.iter().filter_map(queue_state).collect();
    Ok(Json(BrokerState {
        incarnation: state.incarnation(),
        revision: state.engine.directory().revision.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        storage: storage(&state),
        queues,
    }))
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
        leased: snapshot.leased,
        dead: snapshot.dead,
        bytes: snapshot.bytes,
        oldest_age_ms: snapshot.oldest_age_ms,
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
    })
}

fn storage(state: &AppState) -> Option<StorageState> {
    let usage = state.engine.volume().usage()?;
    Some(StorageState {
        capacity_bytes: usage.capacity,
        available_bytes: usage.available,
        reserve_bytes: usage.reserve,
        used_bytes: usage.used,
    })
}
