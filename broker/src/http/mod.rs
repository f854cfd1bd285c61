//! The HTTP side: routes of the data port and of the admin port.

mod answer;
mod at;
mod attributes;
mod body;
mod control;
mod delay;
mod encoding;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod idempotency;
mod json;
mod metrics;
mod pods;
mod pull;
mod pulled;
mod pulls;
mod purge;
mod queue;
mod queues;
mod refused;
mod reports;
mod send;
mod settle;
mod token;
mod workloads;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use capstan_api::ErrorCode;
use capstan_api::control::{CHANGES_PATH, DECLARATION_PATH, STATE_PATH};
use capstan_api::message::Metrics;
use capstan_port::{no_route, not_allowed};
use tokio_util::sync::CancellationToken;

use crate::broker::Ports;
use crate::engine::{Backlog, Handle};
use crate::stats::Stats;
use answer::Lists;
use body::Budgets;
use pulls::Pulls;
use queue::{Found, Names};
use refused::Refused;
use reports::Reports;
use token::Tokens;

/// What every handler needs. Cheap to clone: each request has one.
#[derive(Clone)]
pub(crate) struct AppState(Arc<Parts>);

/// The parts of an [`AppState`].
pub(crate) struct Parts {
    engine: Handle,
    tokens: Tokens,
    pulls: Pulls,
    budgets: Budgets,
    /// Of the data port.
    lists: Lists,
    /// Of the admin port: queues, and all that is counted.
    states: Lists,
    /// Of those who follow what changes, and which pods have something: scaling must not wait for who takes no states.
    feeds: Lists,
    connections: Ports,
    stats: Arc<Stats>,
    /// Cancelled when the broker ends: whoever waits answers.
    ending: CancellationToken,
    /// Sidecars that wait for news of their configuration.
    sidecars: Arc<AtomicUsize>,
    /// What sidecars say of their applications.
    reports: Reports,
}

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl AppState {
    pub(crate) fn new(
        engine: Handle,
        connections: Ports,
        stats: Arc<Stats>,
        ending: CancellationToken,
    ) -> Self {
        let tokens = Tokens { incarnation: engine.directory().incarnation };
        let (pulls, budgets, sidecars, reports, lists, states, feeds) = Default::default();
        Self(Arc::new(Parts {
            engine,
            tokens,
            pulls,
            budgets,
            lists,
            states,
            feeds,
            connections,
            stats,
            ending,
            sidecars,
            reports,
        }))
    }

    fn find(&self, names: Names) -> Result<Found, Refused> {
        Found::find(&self.engine.directory(), names)
    }

    fn incarnation(&self) -> String {
        format!("{:016x}", self.tokens.incarnation)
    }
}

/// The data port: Cloudflare's paths, and the sidecars' long poll.
pub(crate) fn data(state: AppState) -> Router {
    // Not nested: that would write a new address for each request.
    let of = |action: &str| format!("/client/v4/accounts/{{namespace}}/queues/{{queue}}{action}");
    Router::new()
        .route(
            "/client/v4/accounts/{namespace}/queues",
            get(queues::list).fallback(queues::managed_elsewhere),
        )
        .route(&of(""), get(queues::get).fallback(queues::managed_elsewhere))
        .route(&of("/consumers"), get(queues::consumers).fallback(queues::managed_elsewhere))
        .route(&of("/consumers/{consumer}"), get(queues::consumer).fallback(queues::managed_elsewhere))
        .route(&of("/metrics"), get(queues::metrics))
        .route(&of("/messages"), post(send::one))
        .route(&of("/messages/batch"), post(send::batch))
        .route(&of("/messages/pull"), post(pull::pull))
        .route(&of("/messages/pull/cancel"), post(pull::cancel))
        .route(&of("/messages/peek"), post(pull::peek))
        .route(&of("/purge"), post(purge::start).get(purge::status))
        .route(&of("/messages/purge"), post(purge::remove))
        .route(&of("/messages/ack"), post(settle::ack))
        .route(&of("/messages/extend"), post(settle::extend))
        .route(
            "/capstan/v1/namespaces/{namespace}/workloads/{kind}/{name}/consumers",
            get(workloads::consumers),
        )
        .route("/capstan/v1/namespaces/{namespace}/workloads/{kind}/{name}/pods/{pod}", put(reports::put))
        .fallback(no_route)
        .method_not_allowed_fallback(not_allowed)
        .with_state(state)
}

/// The admin port: health, metrics, and the control API.
pub(crate) fn admin(state: AppState) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics::get))
        .route(DECLARATION_PATH, put(control::declare))
        .route(STATE_PATH, get(control::get))
        .route(CHANGES_PATH, get(control::changes))
        .route(
            "/control/v1/namespaces/{namespace}/workloads/{kind}/{name}/pods",
            get(pods::get).put(pods::put),
        )
        .fallback(no_route)
        .method_not_allowed_fallback(not_allowed)
        .with_state(state)
}

/// Ready from the moment the ports are open, which is after recovery, until the broker ends.
async fn ready(State(state): State<AppState>) -> (StatusCode, &'static str) {
    if state.ending.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the broker is ending");
    }
    (StatusCode::OK, "ok")
}

fn metrics_of(backlog: Option<Backlog>) -> Metrics {
    let backlog = backlog.unwrap_or_default();
    Metrics {
        backlog_count: backlog.count,
        backlog_bytes: backlog.bytes,
        oldest_message_timestamp_ms: backlog.oldest_sent_at.unwrap_or(0),
    }
}

/// The engine answered what the command cannot answer.
fn unexpected() -> Refused {
    Refused::new(ErrorCode::Internal, "the broker failed to answer; see its log")
}
