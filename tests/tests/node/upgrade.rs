//! An upgrade from the release before, with its own charts and programs, while messages come and go.

use std::collections::BTreeMap;
use std::time::Duration;

use capstan_crds::{Broker, Consumer, Queue};
use e2e::cluster::{Cluster, LONG, Namespace, Turn, condition};
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;

use crate::fixture::{PODS, sidecar};
use crate::moves::{BROKER, LOAD, SPREAD, until_all_handled, until_another_serves, until_handled};
use crate::subject::{orders, producer};

const BATCH: usize = 20;
const PAUSE: Duration = Duration::from_millis(200);

#[tokio::test]
async fn an_upgrade_under_load_loses_nothing_and_restarts_no_consumer() {
    let cluster = Cluster::connect().await;
    let turn = Turn::uninstalled(&cluster).await;
    turn.install_previous(&cluster).await;
    Namespace::run(&cluster, "upgrade", async |namespace| {
        SPREAD.run(namespace).await;
        let broker = namespace.api::<Pod>().get(BROKER).await.unwrap();
        assert_eq!(image(&broker), "capstan/broker:previous");
        let consumers = lives(namespace).await;
        assert_eq!(consumers.len(), 3);
        let upgraded = async {
            let handled = until_handled(namespace, LOAD).await;
            turn.install(&cluster, "helm").await;
            let broker = until_another_serves(namespace, &broker).await;
            assert_eq!(image(&broker), concat!("capstan/broker:", env!("CARGO_PKG_VERSION")));
            until_all_are_ready(namespace).await;
            until_handled(namespace, handled + LOAD).await;
        };
        let sent = producer(namespace).send_while(|| orders(BATCH, 500), PAUSE, Box::pin(upgraded)).await;
        until_all_handled(namespace, &sent.ids).await;

        assert_eq!(lives(namespace).await, consumers, "no container of a consumer was restarted or replaced");
        let deployment = namespace.api::<Deployment>().get("orders").await.unwrap();
        let image = sidecar(&deployment).and_then(|container| container.image.clone());
        assert_eq!(image.as_deref(), Some("capstan/sidecar:previous"), "sidecars follow when their pods do");
        let revisions = namespace.api::<ControllerRevision>().list(&ListParams::default()).await.unwrap();
        let of_broker = revisions.items.iter().filter(|one| one.name_any().starts_with("capstan-default-"));
        assert_eq!(of_broker.count(), 2, "the broker was rolled once");
    })
    .await;
}

/// Each pod of the application with its containers' ids and restarts.
async fn lives(namespace: &Namespace) -> BTreeMap<String, Vec<(String, i32)>> {
    let life = |pod: Pod| {
        let status = pod.status.clone().unwrap_or_default();
        let all = status.init_container_statuses.into_iter().chain(status.container_statuses).flatten();
        (pod.name_any(), all.map(|one| (one.container_id.unwrap_or_default(), one.restart_count)).collect())
    };
    namespace.pods(PODS).await.into_iter().map(life).collect()
}

fn image(pod: &Pod) -> String {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    container.and_then(|container| container.image.clone()).unwrap_or_default()
}

/// As the new operator sees them, which is the only one that still runs.
async fn until_all_are_ready(namespace: &Namespace) {
    let ready = |conditions: Option<&Vec<_>>, generation| {
        condition(conditions.map_or(&[][..], |all| all), generation, "Ready", "True")
    };
    namespace
        .wait_for::<Broker>("default", "is Ready", LONG, |one| {
            ready(one.status.as_ref().map(|status| &status.conditions), one.metadata.generation)
        })
        .await;
    namespace
        .wait_for::<Queue>("orders", "is Ready", LONG, |one| {
            ready(one.status.as_ref().map(|status| &status.conditions), one.metadata.generation)
        })
        .await;
    namespace
        .wait_for::<Consumer>("orders", "is Ready and has outdated sidecars", LONG, |one| {
            ready(one.status.as_ref().map(|status| &status.conditions), one.metadata.generation)?;
            let sidecars = one.status.as_ref().and_then(|status| status.sidecar.as_ref());
            let outdated = sidecars.map(|sidecars| sidecars.outdated);
            if outdated == Some(3) { Ok(()) } else { Err(format!("{outdated:?} are outdated")) }
        })
        .await;
}
