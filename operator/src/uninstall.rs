//! `capstan-operator uninstall`: takes the sidecars back from all workloads, once. A Job runs it after `helm uninstall`, when the
//! chart was told to. It never fails: who uninstalls must not be held up by what is left.

use std::time::Duration;

use capstan_api::workload::{Workload as Reference, WorkloadKind};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::api::ListParams;
use kube::{Api, Client};
use tracing::{info, warn};

use crate::api::{ApiError, bounded};
use crate::config::Config;
use crate::workload::{self, Injectable};
use crate::world::Workload;

/// Workloads listed at once.
const PAGE: u32 = 500;
/// How long it may take in all. The Job's own deadline is for a pod that does not start.
const DEADLINE: Duration = Duration::from_secs(90);

/// What became of the sidecars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    pub back: usize,
    /// Left where they are: by hand, as docs/uninstall.md says.
    pub left: usize,
}

/// Takes back what can be taken back.
pub async fn uninstall(cluster: kube::Config, config: &Config) -> Taken {
    let mut taken = Taken::default();
    if tokio::time::timeout(DEADLINE, take_all(cluster, config, &mut taken)).await.is_err() {
        warn!(seconds = DEADLINE.as_secs(), "not done in time; the rest is left");
    }
    taken
}

async fn take_all(cluster: kube::Config, config: &Config, taken: &mut Taken) {
    let client = match Client::try_from(cluster) {
        Ok(client) => client,
        Err(error) => return warn!(%error, "nothing taken back"),
    };
    for namespace in config.scopes() {
        let namespace = namespace.as_deref();
        take::<Deployment>(&client, namespace, WorkloadKind::Deployment, taken).await;
        take::<StatefulSet>(&client, namespace, WorkloadKind::StatefulSet, taken).await;
    }
}

async fn take<K: Injectable>(
    client: &Client,
    namespace: Option<&str>,
    kind: WorkloadKind,
    taken: &mut Taken,
) {
    let injected = match injected::<K>(client, namespace).await {
        Ok(injected) => injected,
        Err(error) => return warn!(kind = kind.as_str(), namespace, %error, "not looked for"),
    };
    for workload in injected {
        let reference = Reference { kind, name: workload.key.name.clone() };
        match workload::take_back(client, &reference, &workload).await {
            Ok(()) => {
                info!(kind = kind.as_str(), workload = %workload.key, "sidecar taken away");
                taken.back += 1;
            }
            Err(error) => {
                warn!(kind = kind.as_str(), workload = %workload.key, %error, "sidecar left");
                taken.left += 1;
            }
        }
    }
}

/// The workloads that have a sidecar of ours.
async fn injected<K: Injectable>(
    client: &Client,
    namespace: Option<&str>,
) -> Result<Vec<Workload>, ApiError> {
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let (mut found, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let page = bounded(api.list(&params)).await?;
        found.extend(page.items.iter().map(Injectable::workload).filter(|workload| workload.is_ours()));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}
