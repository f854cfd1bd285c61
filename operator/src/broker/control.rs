//! Telling a broker its queues, and asking what it knows.

use std::future::Future;
use std::time::Duration;

use capstan_api::ClientError;
use capstan_api::control::{BrokerState, Declaration};
use capstan_crds::Broker;
use tracing::info;

use super::dereference::Scene;
use super::fresh;
use crate::context::Context;

/// How long a broker may take to answer; it is asked again at the next look.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Control {
    /// What the broker knows.
    pub(super) state: Option<BrokerState>,
    /// Whether it was told of everything there is.
    pub(super) is_declared: bool,
    /// Why it does not answer, or does not take the declaration.
    pub(super) problem: Option<String>,
}

impl Control {
    /// There is no broker to ask.
    pub(super) fn unasked() -> Self {
        Self::default()
    }
}

/// Declares the queues of the Broker when it was told something else last, and reads its state.
pub(super) async fn declare(context: &Context, scene: &Scene, broker: &Broker) -> Control {
    let uid = broker.metadata.uid.as_deref();
    let declaration = scene.resolution.declaration(&scene.key, uid.unwrap_or_default());
    let mut control = Control::default();
    if let Err(error) = try_declare(context, scene, &declaration, &mut control).await {
        control.problem = Some(error);
    }
    control
}

async fn try_declare(
    context: &Context,
    scene: &Scene,
    declaration: &Declaration,
    control: &mut Control,
) -> Result<(), String> {
    let client = context.control(&scene.key).map_err(|error| error.to_string())?;
    let state = answered(client.state()).await?;
    // A new and empty store has no revision, so it is told everything again.
    control.is_declared = state.revision == declaration.revision;
    let checked = match control.is_declared {
        true => Ok(()),
        false => fresh::check(context, scene, &state, declaration).await,
    };
    control.state = Some(state);
    if control.is_declared {
        return Ok(());
    }
    checked?;
    let declared = answered(client.declare(declaration)).await?;
    info!(broker = %scene.key, queues = declaration.queues.len(), incarnation = declared.incarnation, "declared");
    let state = answered(client.state()).await?;
    control.is_declared = state.revision == declaration.revision;
    control.state = Some(state);
    Ok(())
}

async fn answered<T>(request: impl Future<Output = Result<T, ClientError>>) -> Result<T, String> {
    match tokio::time::timeout(ANSWER_TIMEOUT, request).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
    }
}
