//! What follows from the Queues and Consumers of each namespace, kept until one of them changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use capstan_crds::{Consumer, Queue, Resolution, resolve};

/// By namespace. Every look at a Broker and at a workload needs it, and most find that nothing changed.
#[derive(Debug, Default)]
pub(super) struct Resolutions(Mutex<HashMap<String, Arc<Resolution>>>);

impl Resolutions {
    /// The resolution of a namespace; `objects` are asked for when it is not known.
    pub(super) fn get(
        &self,
        namespace: &str,
        objects: impl FnOnce() -> (Vec<Arc<Queue>>, Vec<Arc<Consumer>>),
    ) -> Arc<Resolution> {
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(namespace) {
            return Arc::clone(known);
        }
        // Not under the lock: other namespaces need not wait. The objects cannot change meanwhile, since the caller
        // looks at them.
        let (queues, consumers) = objects();
        let new = Arc::new(resolve(queues.iter().map(AsRef::as_ref), consumers.iter().map(AsRef::as_ref)));
        if !(queues.is_empty() && consumers.is_empty()) {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(namespace.to_owned(), Arc::clone(&new));
        }
        new
    }

    /// Forgets a namespace, of which an object changed.
    pub(super) fn forget(&mut self, namespace: &str) {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).remove(namespace);
    }
}
