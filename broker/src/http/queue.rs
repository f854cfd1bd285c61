//! The queue of a request, found by the names in its path.

use std::sync::Arc;

use capstan_api::Name;
use capstan_core::QueueId;
use capstan_port::path;

use super::refused::{Refused, queue_not_found};
use crate::directory::{Directory, Entry};

/// Names as they stand in a path: `/client/v4/accounts/{namespace}/queues/{queue}/…`.
pub(super) type Names = (String, String);

/// A queue that exists, as it was declared when it was found.
pub(super) struct Found {
    entry: Arc<Entry>,
    pub(super) id: QueueId,
}

impl Found {
    /// Finds a queue.
    pub(super) fn find(directory: &Directory, (namespace, queue): Names) -> Result<Self, Refused> {
        if let Some(entry) = directory.find(&namespace, &queue) {
            return Ok(Self { entry: Arc::clone(entry), id: entry.id });
        }
        // What is no name is found nowhere.
        check_account(&namespace)?;
        path::name("queue id", &queue)?;
        Err(queue_not_found(&queue))
    }

    /// The queue's name.
    pub(super) fn name(&self) -> &str {
        self.entry.policy.name.as_str()
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }
}

/// A namespace that can exist.
pub(super) fn check_account(namespace: &str) -> Result<Name, Refused> {
    path::name("account id", namespace)
}
