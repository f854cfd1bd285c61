//! The client of the control API, on a broker's admin port.

use std::time::Duration;

use reqwest::Url;

use crate::client::{ClientError, REQUEST_TIMEOUT, base, http, plain};
use crate::control::{
    BrokerState, CHANGES_PATH, Changes, DECLARATION_PATH, Declaration, Declared, Pods, Retiring, STATE_PATH,
    pods_path,
};
use crate::workload::Workload;

/// A client of the control API on a broker's admin port. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ControlClient {
    http: reqwest::Client,
    base: Url,
}

impl ControlClient {
    /// A client of the admin port at `address`, such as `http://capstan-default-0.capstan-default-pods.shop.svc:9795`.
    ///
    /// # Errors
    /// [`ClientError::Address`] when `address` is no http URL.
    pub fn new(address: &str) -> Result<Self, ClientError> {
        Ok(Self { http: http()?, base: base(address)? })
    }

    /// Replaces all policies of the broker.
    ///
    /// # Errors
    /// [`ClientError`]; declaring again is always safe.
    pub async fn declare(&self, declaration: &Declaration) -> Result<Declared, ClientError> {
        let request = self.http.put(self.url(DECLARATION_PATH)?).timeout(REQUEST_TIMEOUT).json(declaration);
        plain(request.send().await?).await
    }

    /// Reads what the broker knows.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn state(&self) -> Result<BrokerState, ClientError> {
        plain(self.http.get(self.url(STATE_PATH)?).timeout(REQUEST_TIMEOUT).send().await?).await
    }

    /// Waits up to `wait` for queues to change after version `since` (empty at first), and reads those that did.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn changes(&self, since: &str, wait: Duration) -> Result<Changes, ClientError> {
        let query = [("since", since.to_owned()), ("wait_ms", wait.as_millis().to_string())];
        let mut url = self.url(CHANGES_PATH)?;
        url.query_pairs_mut().extend_pairs(query);
        plain(self.http.get(url).timeout(wait.saturating_add(REQUEST_TIMEOUT)).send().await?).await
    }

    /// Reads which pods of a workload have messages, or ask for some.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn pods(&self, namespace: &str, workload: &Workload) -> Result<Pods, ClientError> {
        let url = self.url(&pods_path(namespace, workload))?;
        plain(self.http.get(url).timeout(REQUEST_TIMEOUT).send().await?).await
    }

    /// Tells which pods of a workload are to be leased nothing more. From the answer on they are not.
    ///
    /// # Errors
    /// [`ClientError`]; to say it again is always safe.
    pub async fn retire(
        &self,
        namespace: &str,
        workload: &Workload,
        retiring: &Retiring,
    ) -> Result<Pods, ClientError> {
        let url = self.url(&pods_path(namespace, workload))?;
        plain(self.http.put(url).timeout(REQUEST_TIMEOUT).json(retiring).send().await?).await
    }

    fn url(&self, path: &str) -> Result<Url, ClientError> {
        self.base.join(path).map_err(|_| ClientError::Address(format!("{}{path}", self.base)))
    }
}
