//! What was handled, each time: here, or in another pod that lives on.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A message was handled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) attempts: u32,
}

/// Where entries are written down.
pub(crate) struct Ledger {
    elsewhere: Option<String>,
    client: reqwest::Client,
    entries: Mutex<Vec<Entry>>,
}

impl Ledger {
    /// At another address, or here.
    ///
    /// # Errors
    /// When no client can be made.
    pub(crate) fn at(elsewhere: Option<String>) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
        Ok(Self { elsewhere, client, entries: Mutex::default() })
    }

    /// Writes entries down, wherever that is.
    ///
    /// # Errors
    /// When the other does not take them.
    pub(crate) async fn write(&self, entries: Vec<Entry>) -> reqwest::Result<()> {
        let Some(elsewhere) = &self.elsewhere else {
            self.keep(entries);
            return Ok(());
        };
        let request = self.client.post(format!("{elsewhere}/ledger")).json(&entries);
        request.send().await?.error_for_status().map(|_| ())
    }

    /// Writes them down here.
    pub(crate) fn keep(&self, mut entries: Vec<Entry>) {
        self.lock().append(&mut entries);
    }

    /// Those that were written down here.
    #[must_use]
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
