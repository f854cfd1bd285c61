//! What the tests' own application handled, each time, in whatever pod.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use kube::ResourceExt;
use serde::Deserialize;

use super::Namespace;

/// The label of the ledger's pod.
const POD: &str = "app=ledger";
const PORT: u16 = 8080;

/// The image of `tests/app`, which is the ledger too; `cargo xtask images` builds it with the version of the workspace.
pub const APPLICATION_IMAGE: &str = concat!("capstan/e2e-app:", env!("CARGO_PKG_VERSION"));

/// The ledger's Deployment and Service.
#[must_use]
pub fn ledger() -> String {
    ledger_with("")
}

/// The same with more of its pod's spec, as YAML in one line.
#[must_use]
pub fn ledger_with(pod: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: ledger}}
spec:
  selector: {{app: ledger}}
  ports: [{{port: 80, targetPort: 8080}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: ledger}}
spec:
  selector: {{matchLabels: {{app: ledger}}}}
  template:
    metadata: {{labels: {{app: ledger}}}}
    spec:
      {pod}
      securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
      - name: ledger
        image: {APPLICATION_IMAGE}
        readinessProbe: {{httpGet: {{path: /readyz, port: 8080}}, periodSeconds: 1}}
        securityContext: {{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
"
    )
}

#[derive(Debug, Deserialize)]
struct Entry {
    id: String,
    attempts: u32,
}

/// The attempts with which each message was handled, in order.
#[derive(Debug)]
pub struct Entries(BTreeMap<String, Vec<u32>>);

impl Entries {
    /// Reads the ledger of a namespace.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn read(namespace: &Namespace) -> Result<Self, String> {
        let pods = namespace.pods(POD).await;
        let pod = pods.first().ok_or("the ledger has no pod")?.name_any();
        let address = namespace.cluster.reach.pod(&namespace.name, &pod, PORT).await?;
        let answer = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer =
            answer.get(format!("{address}/ledger")).send().await.map_err(|error| error.to_string())?;
        let entries: Vec<Entry> = answer.json().await.map_err(|error| error.to_string())?;
        let mut found = BTreeMap::<_, Vec<_>>::new();
        for Entry { id, attempts } in entries {
            found.entry(id).or_default().push(attempts);
        }
        Ok(Self(found))
    }

    /// Panics unless each of these messages was handled once, and no attempt of any was spent before.
    ///
    /// # Panics
    /// When one was not handled, twice, or not in its first attempt; and when one was that is not among them.
    pub fn assert_once(&self, sent: &[String]) {
        self.assert_all(sent);
        let twice: Vec<_> = self.0.iter().filter(|(_, attempts)| attempts.len() > 1).collect();
        assert!(twice.is_empty(), "{} messages were handled twice, with attempts {twice:?}", twice.len());
        self.assert_no_attempt_spent();
    }

    /// Panics unless each of these messages, and no other, was handled.
    ///
    /// # Panics
    /// When one was not, or another was.
    pub fn assert_all(&self, sent: &[String]) {
        assert!(!sent.is_empty(), "nothing was sent");
        let lost: Vec<_> = sent.iter().filter(|id| !self.0.contains_key(*id)).collect();
        assert!(lost.is_empty(), "{} of {} messages were never handled: {lost:?}", lost.len(), sent.len());
        assert_eq!(self.0.len(), sent.len(), "something was handled that nobody sent");
    }

    /// Panics when a message was handled in another attempt than its first.
    ///
    /// # Panics
    /// When one was.
    pub fn assert_no_attempt_spent(&self) {
        let later: Vec<_> =
            self.0.iter().filter(|(_, attempts)| attempts.iter().any(|attempt| *attempt != 1)).collect();
        assert!(later.is_empty(), "attempts were spent: {later:?}");
    }

    /// Panics unless so many messages were handled in their second attempt alone, and all others in their first.
    ///
    /// # Panics
    /// When others were.
    pub fn assert_second_attempts(&self, expected: u64) {
        let later: Vec<_> =
            self.0.iter().filter(|(_, attempts)| attempts.iter().any(|attempt| *attempt != 1)).collect();
        assert!(later.iter().all(|(_, attempts)| *attempts == &[2]), "handled in other attempts: {later:?}");
        assert_eq!(later.len() as u64, expected, "handled in their second attempt: {later:?}");
    }

    /// How many messages were handled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
