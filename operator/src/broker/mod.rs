//! A Broker, its objects, what it is told, and the Queues that it stores.

mod apply;
mod build;
mod claim;
mod control;
mod dereference;
mod failure;
mod fresh;
#[cfg(test)]
mod golden;
mod network_policy;
mod node;
mod queue;
mod rollout;
mod stateful_set;
mod status;
mod volume;

use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_crds::condition::{AVAILABLE, reason};
use capstan_crds::{BROKER_DEFAULT, Broker, BrokerSpec, Key};
use kube::{Api, Resource};
use tracing::{info, warn};

pub(crate) use self::rollout::Upgrades;

use self::control::Control;
use self::dereference::{Scene, dereference};
use self::failure::Failure;
use self::rollout::Decision;
use self::status::Looks;
use self::volume::Volume;
use crate::api::{self, ApiError};
use crate::condition::holds;
use crate::context::Context;
use crate::work::Outcome;
use crate::world::units_of_consumers;

/// When to look again for a Broker that was to be created.
const COMING: Duration = Duration::from_secs(30);

/// Whether there is a Broker, and what became of its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// It exists, and its objects were applied, or the API server refused one with this text.
    Exists { refused: Option<String> },
    /// It does not exist yet, but is being created.
    Coming,
    /// It does not exist, and the API server refused to create it with this text.
    Refused(String),
    /// It is being deleted.
    Ending,
    /// Nobody makes it.
    Missing,
}

/// Brings one Broker and its Queues about.
pub(crate) async fn reconcile(context: &Context, key: &Key) -> Outcome {
    let scene = dereference(&context.world.read(), key);
    if scene.is_unused() {
        context.forget_broker(key);
        return Outcome::Done;
    }
    match bring_about(context, &scene).await {
        Ok(outcome) => outcome,
        Err(ApiError::Stale(reason) | ApiError::NotFound(reason)) => {
            info!(broker = %key, reason, "changed meanwhile; looking again");
            Outcome::Again(Duration::from_secs(1))
        }
        Err(error) => {
            warn!(broker = %key, %error, "not reconciled; trying again");
            Outcome::Failed
        }
    }
}

async fn bring_about(context: &Context, scene: &Scene) -> Result<Outcome, ApiError> {
    let broker = match &scene.broker {
        Some(broker) => Arc::clone(broker),
        None => match create_default(context, scene).await? {
            Ok(broker) => Arc::new(broker),
            Err(found) => {
                // While Queues name it, it is not unused, and would keep a turn that nobody takes.
                context.upgrades.forget(&scene.key);
                queue::write_all(context, scene, &found, &Control::unasked()).await?;
                // A Broker that comes is an event; this is for one that could not be created.
                return Ok(if found == Found::Missing { Outcome::Done } else { Outcome::Again(COMING) });
            }
        },
    };
    let mut failure = Failure::default();
    let Made { refused, decision, volume, problem } = make(context, scene, &broker, &mut failure).await?;
    failure.keep(create_dead_letter_queues(context, scene).await)?;
    let asked = tokio::time::Instant::now();
    let control = control::declare(context, scene, &broker).await;
    tell_consumers(context, scene, &control, asked);
    let found = Found::Exists { refused };
    failure.keep(queue::write_all(context, scene, &found, &control).await)?;
    let looks = Looks {
        outage: match &control.state {
            Some(_) => None,
            None => {
                // What was not made does not answer either.
                let problem = problem.as_deref().or(control.problem.as_deref());
                Some(node::look(context, scene, problem.unwrap_or("not asked yet")).await)
            }
        },
        updated: rollout::verdict(&decision, scene.stateful_set.as_deref(), crate::status::now().0),
        volume,
        is_applied: problem.is_none(),
        lost: queue::lost::of_broker(
            &broker,
            scene.queues.iter().map(AsRef::as_ref),
            control.state.as_ref(),
            &crate::status::now(),
        ),
    };
    failure.keep(status::write(context, &broker, &found, &control, &looks).await)?;
    failure.finish()?;
    Ok(Outcome::Again(Duration::from_millis(context.config.poll_ms.max(1))))
}

/// What became of a Broker's objects.
struct Made {
    volume: Volume,
    decision: Decision,
    /// The API server refused one, with this text.
    refused: Option<String>,
    /// One could not be made, for now.
    problem: Option<String>,
}

/// Makes a Broker's objects, as far as the API server lets it.
async fn make(
    context: &Context,
    scene: &Scene,
    broker: &Broker,
    failure: &mut Failure,
) -> Result<Made, ApiError> {
    let looked = failure.keep(volume::look(context, scene, broker).await)?;
    // A StatefulSet is made by what the claim says, which nobody knows then.
    let is_known = looked.is_some() || scene.stateful_set.is_some();
    let volume = looked.unwrap_or_else(|| volume::unchanged(scene, broker, None));
    let decision = decide(context, scene, broker, &volume);
    let mut refused = None;
    if is_known {
        match apply::apply(context, scene, broker, &volume, &decision).await {
            Err(ApiError::Refused(text)) => refused = Some(text),
            applied => _ = failure.keep(applied)?,
        }
        tell_adoption(context, scene, broker, &volume);
    }
    Ok(Made { problem: failure.text(), volume, decision, refused })
}

/// Whether the broker served at the last look.
fn is_available(broker: &Broker) -> bool {
    broker.status.as_ref().is_some_and(|status| holds(&status.conditions, AVAILABLE))
}

/// Whether a changed template may restart the pod now.
fn decide(context: &Context, scene: &Scene, broker: &Broker, volume: &Volume) -> Decision {
    let (now, marks) = (crate::status::now().0, stateful_set::marks(broker, &context.config));
    let limit = usize::from(context.config.broker_upgrades);
    let mut has_asked = false;
    let turn = |needs_turn| {
        has_asked = true;
        context.upgrades.take(&context.world.read(), &scene.key, limit, needs_turn, now)
    };
    let known = scene.stateful_set.as_deref();
    let has_claim = volume.claim.is_some();
    let decision = rollout::decide(known, has_claim, &marks, is_available(broker), now, turn);
    if !has_asked {
        // Its StatefulSet shows the turn, or shows that it is over.
        context.upgrades.forget(&scene.key);
    }
    decision
}

/// A Broker that comes into being, and finds the volume of an earlier one of its name.
fn tell_adoption(context: &Context, scene: &Scene, broker: &Broker, volume: &Volume) {
    let (Some(claim), None) = (&volume.claim, &scene.stateful_set) else { return };
    let created = broker.metadata.creation_timestamp.as_ref().map(|time| time.0);
    // In whole seconds.
    let is_older = claim.created.zip(created).is_some_and(|(claim, broker)| claim <= broker);
    if !is_older || broker.status.is_some() {
        return;
    }
    let note = format!(
        "the volume of claim {} is used again, with the messages it has: create Queues of the same names to have them delivered",
        claim.name
    );
    info!(broker = %scene.key, claim = claim.name, "an earlier Broker's volume is used again");
    context.events.tell(&broker.object_ref(&()), "Adopt", reason::VOLUME_ADOPTED, &note);
}

/// Has the Consumers looked at of whose applications the broker says something new.
fn tell_consumers(context: &Context, scene: &Scene, control: &Control, asked: tokio::time::Instant) {
    let Some(state) = &control.state else { return };
    context.demands.learn_applications(&scene.key, state, asked);
    let may_write = || context.count_writes.try_take();
    for key in context.reaches.learn(&scene.key, state, Instant::now(), may_write) {
        let world = context.world.read();
        let units = world.queues.get(&key).map(|queue| units_of_consumers(&world, &queue));
        units.into_iter().flatten().for_each(|unit| context.queue.add(unit));
    }
}

/// The Broker that Queues use when they name none, without an owner: it outlives them. The new one, or why there is none.
async fn create_default(context: &Context, scene: &Scene) -> Result<Result<Broker, Found>, ApiError> {
    if scene.is_ending {
        return Ok(Err(Found::Ending));
    }
    if scene.key.name != BROKER_DEFAULT {
        return Ok(Err(Found::Missing));
    }
    let mut broker = Broker::new(BROKER_DEFAULT, BrokerSpec::default());
    broker.metadata.namespace = Some(scene.key.namespace.clone());
    let api: Api<Broker> = Api::namespaced(context.client.clone(), &scene.key.namespace);
    match api::create(&api, &broker).await {
        Ok(Some(broker)) => {
            info!(broker = %scene.key, "created: a Queue uses it");
            Ok(Ok(broker))
        }
        Ok(None) => Ok(Err(Found::Coming)),
        // As in a namespace that is being deleted.
        Err(ApiError::Refused(reason) | ApiError::NotFound(reason)) => {
            info!(broker = %scene.key, reason, "not created");
            Ok(Err(Found::Refused(reason)))
        }
        Err(error) => Err(error),
    }
}

/// Dead-letter queues that Consumers name and nobody made, without an owner: dead letters outlive their Consumer.
async fn create_dead_letter_queues(context: &Context, scene: &Scene) -> Result<(), ApiError> {
    let api = Api::namespaced(context.client.clone(), &scene.key.namespace);
    for queue in &scene.missing {
        match api::create(&api, queue).await {
            Ok(_) => {
                info!(queue = %Key::of(&queue.metadata), "created: a Consumer names it as its dead-letter queue");
            }
            Err(ApiError::Refused(reason) | ApiError::NotFound(reason)) => {
                info!(queue = %Key::of(&queue.metadata), reason, "not created");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
