//! What the example application says it handled.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use kube::ResourceExt;
use serde::Deserialize;

use super::{Namespace, SHORT, until};

const PORT: u16 = 8080;

/// The report of one pod, or of several together.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Handled {
    /// Deliveries that were handled.
    pub handled: u64,
    /// Deliveries that failed.
    pub failed: u64,
    /// The messages among those handled.
    pub ids: BTreeSet<String>,
}

/// The reports of all pods with a label, in the order of the pods' names.
///
/// # Panics
/// When a pod does not answer.
pub async fn handled(namespace: &Namespace, selector: &str) -> Vec<Handled> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
    let mut reports = Vec::new();
    for pod in namespace.pods(selector).await {
        let name = pod.name_any();
        let what = format!("the report of {name}");
        let report = until(&what, SHORT, async || {
            let address = namespace.cluster.reach.pod(&namespace.name, &name, PORT).await?;
            let answer = http.get(format!("{address}/handled")).send().await.map_err(|e| e.to_string())?;
            answer.json::<Handled>().await.map_err(|error| error.to_string())
        })
        .await;
        reports.push(report);
    }
    reports
}

impl Handled {
    /// All reports together.
    #[must_use]
    pub fn sum(reports: &[Self]) -> Self {
        let mut sum = Self::default();
        for report in reports {
            sum.handled += report.handled;
            sum.failed += report.failed;
            sum.ids.extend(report.ids.iter().cloned());
        }
        sum
    }
}
