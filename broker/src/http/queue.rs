//! The queue of a request, found by the names in its path.

use std::sync::Arc;

use capstan_api::ErrorCode;
use capstan_api::Name;
use capstan_core::QueueId;

use super::refused::Refused;
use crate::directory::{Directory, Entry};

/// Names as they stand in a path: `/client/v4/accounts/{namespace}/queues/{queue}/…`.
pub(super) type Names = (String, String);

/// A queue that exists, with the directory it was found in.
pub(super) struct Found {
    directory: Arc<Directory>,
    names: Names,
    pub(super) id: QueueId,
}

impl Found {
    /// Finds a queue.
    pub(super) fn find(directory: Arc<Directory>, (namespace, queue): Names) -> Result<Self, Refused> {
        for (what, name) in [("account id", &namespace), ("queue id", &queue)] {
            Name::new(name.as_str()).map_err(|error| {
                Refused::new(ErrorCode::QueueIdMalformed, format!("the {what} in the path: {error}"))
            })?;
        }
        let entry = directory.find(&namespace, &queue).ok_or_else(|| Refused::queue_not_found(&queue))?;
        let id = entry.id;
        Ok(Self { directory, names: (namespace, queue), id })
    }

    /// The queue's name.
    pub(super) fn name(&self) -> &str {
        &self.names.1
    }

    pub(super) fn entry(&self) -> Result<&Entry, Refused> {
        let (namespace, queue) = &self.names;
        self.directory.find(namespace, queue).ok_or_else(|| Refused::queue_not_found(queue))
    }
}
