//! The queues as the HTTP side knows them: published by the engine after each declaration.

use std::collections::BTreeMap;
use std::sync::Arc;

use capstan_api::control::QueuePolicy;
use capstan_api::workload::{Workload, WorkloadConsumer, WorkloadConsumers};
use capstan_core::{Core, QueueId, Times};

use crate::policy;

/// Every queue and its declared policy.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    pub(crate) incarnation: u64,
    pub(crate) revision: String,
    queues: BTreeMap<String, Arc<Entry>>,
}

/// A queue.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: QueueId,
    /// Missing from the last declaration.
    pub(crate) retained: bool,
    pub(crate) times: Times,
    pub(crate) policy: QueuePolicy,
}

impl Directory {
    /// Reads it from the core.
    #[must_use]
    pub(crate) fn of(core: &Core) -> Self {
        let entry = |view: capstan_core::QueueView<'_>| {
            let policy = policy::read_document(view.document)?;
            let entry = Entry { id: view.id, retained: view.retained, times: view.times, policy };
            Some((view.label.to_owned(), Arc::new(entry)))
        };
        let queues = core.views().filter_map(entry).collect();
        Self { incarnation: core.incarnation(), revision: core.revision().to_owned(), queues }
    }

    /// The queue of a namespace by its name.
    #[must_use]
    pub(crate) fn find(&self, namespace: &str, queue: &str) -> Option<&Arc<Entry>> {
        self.queues.get(&policy::label(namespace, queue))
    }

    /// All queues of a namespace, by name.
    pub(crate) fn of_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.queues
            .values()
            .map(AsRef::as_ref)
            .filter(move |entry| entry.policy.namespace.as_str() == namespace)
    }

    /// What a sidecar of `workload` consumes.
    #[must_use]
    pub(crate) fn consumers_of(&self, namespace: &str, workload: &Workload) -> WorkloadConsumers {
        let consumers: Vec<WorkloadConsumer> = self
            .of_namespace(namespace)
            .filter(|entry| !entry.retained)
            .filter_map(|entry| consumer(&entry.policy, workload))
            .collect();
        let text = serde_json::to_vec(&consumers).unwrap_or_default();
        WorkloadConsumers { revision: format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&text)), consumers }
    }
}

fn consumer(policy: &QueuePolicy, workload: &Workload) -> Option<WorkloadConsumer> {
    let consumer = policy.consumer.as_ref()?;
    let push = consumer.push.as_ref().filter(|push| push.workload == *workload)?;
    Some(WorkloadConsumer {
        namespace: policy.namespace.clone(),
        queue: policy.name.clone(),
        name: consumer.name.clone(),
        endpoint: push.endpoint.clone(),
        max_batch_size: push.max_batch_size,
        max_batch_bytes: push.max_batch_bytes,
        max_wait_ms: push.max_wait_ms,
        concurrency_per_pod: push.concurrency_per_pod,
        visibility_timeout_ms: consumer.visibility_timeout_ms,
        paused: consumer.paused || policy.delivery_paused,
    })
}
