//! What the view knows of the queues from the files.

use std::collections::BTreeMap;

use capstan_api::Name;
use capstan_api::control::Declaration;

/// The queues, by namespace and name.
pub(super) struct Facts {
    pub(super) labels: Labels,
    queues: BTreeMap<(Name, Name), QueueFacts>,
}

/// How a queue is consumed.
#[derive(Debug, Clone, Default)]
pub(super) struct QueueFacts {
    /// A sidecar tells what happens to its messages.
    pub(super) push: bool,
    pub(super) max_retries: u32,
    pub(super) dead_letter_queue: Option<Name>,
}

impl Facts {
    pub(super) fn of(declaration: &Declaration) -> Self {
        let facts = |policy: &capstan_api::control::QueuePolicy| {
            let key = (policy.namespace.clone(), policy.name.clone());
            let of = |consumer: &capstan_api::control::ConsumerPolicy| QueueFacts {
                push: consumer.push.is_some(),
                max_retries: consumer.max_retries,
                dead_letter_queue: consumer.dead_letter_queue.clone(),
            };
            (key, policy.consumer.as_ref().map(of).unwrap_or_default())
        };
        Self { labels: Labels::of(declaration), queues: declaration.queues.iter().map(facts).collect() }
    }

    /// Of a queue that no file has: no consumer.
    pub(super) fn queue(&self, namespace: &Name, name: &Name) -> QueueFacts {
        self.queues.get(&(namespace.clone(), name.clone())).cloned().unwrap_or_default()
    }
}

/// How queues are named: without the namespace when there is only one.
#[derive(Debug, Clone)]
pub(in crate::dev) struct Labels {
    namespaces: bool,
    width: usize,
}

impl Labels {
    /// Labels for the queues of `declaration`.
    pub(in crate::dev) fn of(declaration: &Declaration) -> Self {
        let first = declaration.queues.first().map(|queue| &queue.namespace);
        let namespaces = declaration.queues.iter().any(|queue| Some(&queue.namespace) != first);
        let mut labels = Self { namespaces, width: 0 };
        let width = |queue: &capstan_api::control::QueuePolicy| {
            labels.label(&queue.namespace, &queue.name).chars().count()
        };
        labels.width = declaration.queues.iter().map(width).max().unwrap_or(0);
        labels
    }

    /// The label of a queue.
    pub(in crate::dev) fn label(&self, namespace: &Name, name: &Name) -> String {
        if self.namespaces { format!("{namespace}/{name}") } else { name.to_string() }
    }

    /// The longest of them, in characters.
    pub(in crate::dev) const fn width(&self) -> usize {
        self.width
    }
}
