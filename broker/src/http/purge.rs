//! `POST purge`, `GET purge` and `POST messages/purge`: messages are removed, whatever their state.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use capstan_api::envelope::Envelope;
use capstan_api::message::{Purge, PurgeStatus, Remove, Removed};
use capstan_api::{ErrorCode, limits};
use capstan_core::{Command, Reply, Seq};
use capstan_port::path::InPath;
use serde_json::Value;

use super::AppState;
use super::body::Body;
use super::queue::{Found, Names};
use super::queues::{shown, timestamp};
use super::refused::{Refused, of_core};
use super::token::Tokens;

/// Removes all messages of a queue, and shows the queue.
pub(super) async fn start(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
    body: Body,
) -> Result<Json<Envelope<Value>>, Refused> {
    let found = state.find(names)?;
    let purge: Purge = body.read()?;
    if !purge.delete_messages_permanently {
        let message =
            "delete_messages_permanently: must be true, because purged messages cannot be brought back";
        return Err(Refused::at(ErrorCode::JsonBodyInvalid, "/delete_messages_permanently", message));
    }
    let command = Command::Purge(capstan_core::Purge { queue: found.id });
    match state.engine.apply(command, None).await?.reply {
        Reply::Purged(messages) => {
            tracing::info!(queue = found.name(), messages, "queue purged");
            Ok(Json(Envelope::success(shown(found.entry()))))
        }
        Reply::Refused(refusal) => Err(of_core(refusal, found.name())),
        _ => Err(super::unexpected()),
    }
}

/// Says when the queue was last purged.
pub(super) async fn status(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
) -> Result<Json<Envelope<PurgeStatus>>, Refused> {
    let found = state.find(names)?;
    let backlog = state.engine.backlog(found.id).await?;
    if backlog.purged_at == 0 {
        return Ok(Json(Envelope::success(PurgeStatus::default())));
    }
    let complete = !backlog.purging;
    Ok(Json(Envelope::success(PurgeStatus {
        completed: Some(complete.to_string()),
        complete: Some(complete),
        started_at: Some(timestamp(backlog.purged_at)),
    })))
}

/// Removes the messages that a peek has named.
pub(super) async fn remove(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
    body: Body,
) -> Result<Json<Envelope<Removed>>, Refused> {
    let found = state.find(names)?;
    let remove: Remove = body.read()?;
    let messages = read(&remove, &found, state.tokens)?.into_iter().collect();
    let command = Command::Remove(capstan_core::Remove { queue: found.id, messages });
    match state.engine.apply(command, None).await?.reply {
        Reply::Removed(purge_count, gone) => {
            let gone = gone.into_iter().map(|seq| {
                let text = "the message is gone (acknowledged, dead-lettered, expired or purged)";
                (state.tokens.reference(found.id, seq), text.to_owned())
            });
            let (errors, warnings) = (Vec::new(), gone.collect());
            Ok(Json(Envelope::success(Removed { errors, warnings, purge_count })))
        }
        Reply::Refused(refusal) => Err(of_core(refusal, found.name())),
        _ => Err(super::unexpected()),
    }
}

/// The messages of refs, each once; a ref that is none of this queue refuses them all.
fn read(remove: &Remove, found: &Found, tokens: Tokens) -> Result<BTreeSet<Seq>, Refused> {
    let (count, most) = (remove.refs.len(), limits::SETTLE_COUNT_MAX);
    if count > most {
        let message = format!("refs: a request names at most {most} messages, this one {count}");
        return Err(Refused::at(ErrorCode::BatchCountOutOfBounds, "/refs", message));
    }
    let seq = |(index, reference): (usize, &capstan_api::message::Reference)| {
        let seq = tokens.read_reference(found.id, &reference.reference);
        seq.ok_or_else(|| {
            let message = format!(
                "refs[{index}].ref: is not a ref of queue {:?}; take one from messages/peek. Nothing was removed",
                found.name()
            );
            Refused::at(ErrorCode::JsonBodyInvalid, format!("/refs/{index}/ref"), message)
        })
    };
    remove.refs.iter().enumerate().map(seq).collect()
}
