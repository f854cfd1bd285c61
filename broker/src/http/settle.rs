//! `POST messages/ack` and `POST messages/extend`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use capstan_api::ErrorCode;
use capstan_api::envelope::Envelope;
use capstan_api::limits;
use capstan_api::message::{Extend, Extended, Lease, Retry, Settle, Settled};
use capstan_core::{Command, Reply, Verdict, Warning};
use capstan_port::path::InPath;

use super::body::Body;
use super::pull::field;
use super::queue::Names;
use super::refused::{Refused, of_core};
use super::token::Tokens;
use super::{AppState, delay};

/// Takes verdicts.
pub(super) async fn ack(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
    body: Body,
) -> Result<Json<Envelope<Settled>>, Refused> {
    let found = state.find(names)?;
    let settle: Settle = body.read()?;
    check_count(&[
        ("acks", settle.acks.len()),
        ("retries", settle.retries.len()),
        ("releases", settle.releases.len()),
    ])?;
    let acks = leases(&settle.acks, "acks", state.tokens)?;
    let retries = retries(settle.retries, state.tokens)?;
    let releases = leases(&settle.releases, "releases", state.tokens)?;
    let command = Command::Settle(capstan_core::Settle { queue: found.id, acks, retries, releases });
    match state.engine.apply(command, None).await?.reply {
        Reply::Settled(settled) => Ok(Json(Envelope::success(Settled {
            ack_count: settled.acks,
            retry_count: settled.retries,
            release_count: settled.releases,
            warnings: warnings(&settled.warnings, state.tokens),
        }))),
        Reply::Refused(refusal) => Err(of_core(refusal, found.name())),
        _ => Err(super::unexpected()),
    }
}

/// Prolongs leases.
pub(super) async fn extend(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
    body: Body,
) -> Result<Json<Envelope<Extended>>, Refused> {
    let found = state.find(names)?;
    let extend: Extend = body.read()?;
    check_count(&[("extends", extend.extends.len())])?;
    let leases = leases(&extend.extends, "extends", state.tokens)?;
    let longest = limits::VISIBILITY_TIMEOUT_MS_MAX;
    let duration = field("visibility_timeout_ms", extend.visibility_timeout_ms, 1, longest)?;
    let command = Command::Extend(capstan_core::Extend { queue: found.id, leases, duration });
    match state.engine.apply(command, None).await?.reply {
        Reply::Extended(extend_count, ignored) => {
            let warnings = warnings(&ignored, state.tokens);
            Ok(Json(Envelope::success(Extended { extend_count, warnings })))
        }
        Reply::Refused(refusal) => Err(of_core(refusal, found.name())),
        _ => Err(super::unexpected()),
    }
}

/// The list that holds the first lease id too many is the one that is named.
fn check_count(lists: &[(&str, usize)]) -> Result<(), Refused> {
    let most = limits::SETTLE_COUNT_MAX;
    let all: usize = lists.iter().map(|(_, count)| count).sum();
    let mut before = 0;
    for (list, count) in lists {
        before += count;
        if before > most {
            let message = format!("{list}: a request names at most {most} lease ids, this one {all}");
            return Err(Refused::at(ErrorCode::BatchCountOutOfBounds, format!("/{list}"), message));
        }
    }
    Ok(())
}

fn leases(leases: &[Lease], list: &str, tokens: Tokens) -> Result<Vec<capstan_core::Lease>, Refused> {
    leases.iter().enumerate().map(|(index, lease)| read(&lease.lease_id, list, index, tokens)).collect()
}

fn retries(retries: Vec<Retry>, tokens: Tokens) -> Result<Vec<capstan_core::Retry>, Refused> {
    let mut read_all = Vec::with_capacity(retries.len());
    for (index, retry) in retries.into_iter().enumerate() {
        let lease = read(&retry.lease_id, "retries", index, tokens)?;
        let at = format_args!("/retries/{index}");
        let delay = delay::millis(retry.delay_seconds.as_ref(), ErrorCode::MessageMetadataInvalid, at)?;
        let reason = retry.reason.unwrap_or_default();
        read_all.push(capstan_core::Retry { lease, delay, reason });
    }
    Ok(read_all)
}

fn read(text: &str, list: &str, index: usize, tokens: Tokens) -> Result<capstan_core::Lease, Refused> {
    tokens.read_lease(text).ok_or_else(|| {
        let message =
            format!("{list}[{index}].lease_id: is not a lease id of this broker; nothing was settled");
        Refused::at(ErrorCode::JsonBodyInvalid, format!("/{list}/{index}/lease_id"), message)
    })
}

fn warnings(warnings: &[(capstan_core::Lease, Warning)], tokens: Tokens) -> BTreeMap<String, String> {
    warnings.iter().map(|(lease, warning)| (tokens.lease(*lease), describe(*warning).to_owned())).collect()
}

const fn describe(warning: Warning) -> &'static str {
    match warning {
        Warning::Gone => {
            "the message is gone (acknowledged, dead-lettered, expired or purged); nothing was done"
        }
        Warning::OtherQueue => "the lease is one of another queue; nothing was done",
        Warning::Late(Verdict::Ack) => "the lease had ended; the message was acknowledged all the same",
        Warning::Late(Verdict::Retry) => "the lease had ended; the retry was ignored",
        Warning::Late(Verdict::Release) => "the lease had ended; the release was ignored",
        Warning::Late(Verdict::Extend) => "the lease had ended; it was not extended",
    }
}
