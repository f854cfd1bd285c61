//! What every reconciliation needs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use capstan_api::workload::Workload as Reference;
use capstan_api::{ClientError, ControlClient};
use capstan_crds::Key;
use kube::Client;
use tokio::sync::Semaphore;

use crate::applied::Applied;
use crate::broker::Upgrades;
use crate::config::Config;
use crate::contest::Contests;
use crate::demand::Streams;
use crate::events::Events;
use crate::limiter::Limiter;
use crate::metrics::Metrics;
use crate::mode::Modes;
use crate::reach::Reaches;
use crate::work::WorkQueue;
use crate::workload::{Complete, Rollouts, Told};
use crate::world::{Unit, World};

/// Writes of counts per second, in all.
const COUNT_WRITES_PER_SECOND: u32 = 20;

/// Writes of statuses that are under way at once, in all. The API server shares its capacity among its clients.
const STATUS_WRITES_AT_ONCE: usize = 32;

/// Which object was applied.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Object {
    StatefulSet(Key),
    Service(Key),
    ServiceAccount(Key),
    NetworkPolicy(Key),
    /// The sidecar in a workload of a namespace.
    Sidecar(String, Reference),
    /// Fields that the template of a workload has already, as the API server answered.
    Compared(String, Reference),
}

/// The shared parts of the operator.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) config: Config,
    pub(crate) world: Arc<World>,
    pub(crate) queue: Arc<WorkQueue<Unit>>,
    pub(crate) events: Events,
    pub(crate) count_writes: Limiter,
    pub(crate) status_writes: Semaphore,
    pub(crate) applied: Applied<Object>,
    pub(crate) contests: Contests,
    /// Rollouts that were begun anew because pods came without a sidecar.
    pub(crate) reruns: Contests,
    pub(crate) mode: Modes,
    pub(crate) told: Told,
    pub(crate) rollouts: Rollouts,
    pub(crate) complete: Complete,
    pub(crate) reaches: Reaches,
    pub(crate) upgrades: Upgrades,
    /// What Brokers say of their queues as it changes.
    pub(crate) streams: Arc<Streams>,
    pub(crate) metrics: Arc<Metrics>,
    controls: Mutex<HashMap<Key, ControlClient>>,
}

impl Context {
    pub(crate) fn new(
        client: Client,
        config: Config,
        world: Arc<World>,
        queue: Arc<WorkQueue<Unit>>,
        events: Events,
        metrics: Arc<Metrics>,
    ) -> Self {
        // Nothing is reconciled because of numbers alone, yet.
        let streams = Arc::new(Streams::new(Arc::clone(&world), Box::new(|_, _| {})));
        Self {
            client,
            config,
            world,
            queue,
            events,
            count_writes: Limiter::new(COUNT_WRITES_PER_SECOND),
            status_writes: Semaphore::new(STATUS_WRITES_AT_ONCE),
            applied: Applied::default(),
            contests: Contests::default(),
            reruns: Contests::default(),
            mode: Modes::default(),
            told: Told::default(),
            rollouts: Rollouts::default(),
            complete: Complete::default(),
            reaches: Reaches::default(),
            upgrades: Upgrades::default(),
            streams,
            metrics,
            controls: Mutex::default(),
        }
    }

    /// The client of a Broker's control API, which keeps its connection.
    pub(crate) fn control(&self, broker: &Key) -> Result<ControlClient, ClientError> {
        let mut controls = self.controls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = controls.get(broker) {
            return Ok(client.clone());
        }
        let client = ControlClient::new(&self.config.control_url(broker))?;
        controls.insert(broker.clone(), client.clone());
        Ok(client)
    }

    /// Forgets what is remembered of a Broker that is gone.
    pub(crate) fn forget_broker(&self, broker: &Key) {
        self.controls.lock().unwrap_or_else(PoisonError::into_inner).remove(broker);
        self.reaches.forget(broker);
        let names = crate::names::names(&broker.name);
        self.upgrades.forget(broker);
        let own = [&names.stateful_set, &names.service, &names.pods_service];
        self.applied.forget(|object| match object {
            Object::StatefulSet(key)
            | Object::Service(key)
            | Object::ServiceAccount(key)
            | Object::NetworkPolicy(key) => {
                key.namespace == broker.namespace && own.iter().any(|name| **name == key.name)
            }
            Object::Sidecar(..) | Object::Compared(..) => false,
        });
    }
}
