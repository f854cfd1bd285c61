//! The control API of a workload's pods: what they have, and which are to get nothing more.

use std::collections::BTreeSet;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use capstan_api::ErrorCode;
use capstan_api::control::{RETIRING_MS_MAX, RETIRING_PODS_MAX, Retiring};
use capstan_api::limits;
use capstan_api::workload::OBJECT_NAME_MAX;
use capstan_port::connections::Connection;
use capstan_port::path::{self, InPath};

use super::AppState;
use super::body::Body;
use super::refused::Refused;
use crate::engine::Owner;

/// Names as they stand in the path.
type Names = (String, String, String);

/// Tells what the pods of a workload have.
pub(super) async fn get(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
    Extension(connection): Extension<Connection>,
) -> Result<Response, Refused> {
    let owner = owner(names)?;
    let turn = state.feeds.turn().await?;
    let pods = state.engine.pods(owner).await?;
    turn.write_json(&connection, move || serde_json::to_vec(&pods)).await
}

/// Lets pods of a workload retire, and tells what all of them have.
pub(super) async fn put(
    State(state): State<AppState>,
    InPath(names): InPath<Names>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Result<Response, Refused> {
    let owner = owner(names)?;
    let body =
        Body::within(limits::REQUEST_BYTES_MAX, request.into_body(), &state.budgets.declarations).await?;
    let Retiring { pods, for_ms } = body.read()?;
    // It may wait for its turn.
    drop(body);
    check(&pods, for_ms)?;
    let turn = state.feeds.turn().await?;
    let pods: BTreeSet<String> = pods.into_iter().collect();
    let retired = state.engine.retire(owner.clone(), pods, for_ms).await?;
    let pods = retired.map_err(|error| {
        let message = format!("pods: {error}; try again after Retry-After");
        Refused::at(ErrorCode::QueueOverloaded, "/pods", message)
    })?;
    let retiring = pods.pods.iter().filter(|pod| pod.retiring).count();
    tracing::debug!(namespace = %owner.namespace, workload = %owner.workload, retiring, "pods retire");
    turn.write_json(&connection, move || serde_json::to_vec(&pods)).await
}

fn owner((namespace, kind, name): Names) -> Result<Owner, Refused> {
    let namespace = path::name("namespace", &namespace)?;
    let workload = format!("{kind}/{name}")
        .parse()
        .map_err(|error| Refused::new(ErrorCode::NoRoute, format!("{error}")))?;
    Ok(Owner { namespace, workload })
}

fn check(pods: &[String], for_ms: u64) -> Result<(), Refused> {
    let wrong =
        |pointer: String, message: String| Err(Refused::at(ErrorCode::JsonBodyInvalid, pointer, message));
    if pods.len() > RETIRING_PODS_MAX {
        let message = format!("pods: {} are more than {RETIRING_PODS_MAX}", pods.len());
        return wrong("/pods".to_owned(), message);
    }
    let bad = |pod: &String| !(1..=OBJECT_NAME_MAX).contains(&pod.len());
    if let Some(index) = pods.iter().position(bad) {
        let message = format!("pods[{index}]: a pod's name is 1 to {OBJECT_NAME_MAX} bytes long");
        return wrong(format!("/pods/{index}"), message);
    }
    if for_ms > RETIRING_MS_MAX {
        let message = format!("for_ms: is {for_ms}, but must be 0 to {RETIRING_MS_MAX}");
        return wrong("/for_ms".to_owned(), message);
    }
    Ok(())
}
