//! What the operator asks the API server to try: whether a workload whose template has an older sidecar would become another
//! one. It asks that once for each state of the workload, however often it looks at it.

use capstan_crds::Consumer;
use e2e::cluster::{LONG, condition, until};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::field::{Call, Field, on_field};
use crate::fixture::{Conditions, init_containers};
use crate::stage::{BY_ADMISSION, Operator};

/// Workloads, each with a Queue and a Consumer of its name.
const NAMES: [&str; 4] = ["one", "two", "three", "four"];
/// Changes of each Consumer, after each of which its workload is looked at.
const LOOKS: u32 = 3;
/// An operator whose sidecar is another one.
const NEXT: (&str, &str) = ("CAPSTAN_SIDECAR_IMAGE", "capstan/sidecar:next");

/// How often something was tried.
fn tries(field: &Field) -> u64 {
    field.proxy.count().of(|call: &Call| call.verb == "try")
}

async fn operator(field: &Field, settings: &[(&'static str, &str)]) -> Operator {
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, (*value).into())).collect();
    field.operator(&settings).await
}

/// Waits until the API server was asked so often.
async fn until_tried(field: &Field, wanted: usize) {
    until(&format!("{wanted} comparisons were asked"), LONG, async || {
        let tries = tries(field);
        if tries >= wanted as u64 { Ok(()) } else { Err(format!("{tries} so far")) }
    })
    .await;
}

/// Waits until all Consumers are Ready as they are now.
async fn until_ready(field: &Field) {
    until("all Consumers are Ready", LONG, async || {
        let consumers = field.api::<Consumer>(&field.namespaces[0]).list(&ListParams::default()).await;
        let consumers = consumers.map_err(|error| error.to_string())?.items;
        let ready = |one: &Consumer| condition(one.conditions(), one.metadata.generation, "Ready", "True");
        consumers.iter().try_for_each(ready)?;
        if consumers.len() == NAMES.len() { Ok(()) } else { Err(format!("there are {}", consumers.len())) }
    })
    .await;
}

async fn change_consumers(field: &Field, spec: &Value) {
    let consumers = field.api::<Consumer>(&field.namespaces[0]);
    for name in NAMES {
        let patch = Patch::Merge(json!({"spec": spec}));
        consumers.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }
}

/// Has the operator look at every workload some times, and again at everything.
async fn looks(field: &Field, seed: u32) {
    for number in 0..LOOKS {
        change_consumers(field, &json!({"maxRetries": seed + number})).await;
        until_ready(field).await;
    }
}

async fn change_workloads(field: &Field, image: &str) {
    let deployments = field.api::<Deployment>(&field.namespaces[0]);
    for name in NAMES {
        let container = json!([{"name": "app", "image": image}]);
        let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": container}}}}));
        deployments.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }
}

/// Nobody's template was changed by the operator since: the generations are those of the users' own changes.
async fn unchanged(field: &Field, generation: i64) {
    let deployments =
        field.api::<Deployment>(&field.namespaces[0]).list(&ListParams::default()).await.unwrap();
    assert_eq!(deployments.items.len(), NAMES.len());
    for deployment in deployments {
        let name = deployment.name_any();
        assert_eq!(deployment.metadata.generation, Some(generation), "{name}");
        assert_eq!(init_containers(&deployment), ["capstan"], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_is_asked_once_for_each_state_of_a_workload() {
    on_field("trials", 1, async |field| {
        let namespace = field.namespaces[0].clone();
        let mut first = operator(field, &[]).await;
        for name in NAMES {
            field.create_queue(&namespace, name).await;
            field.create_consumer(&namespace, name).await;
            field.create_deployment(&namespace, name).await;
        }
        until_ready(field).await;
        looks(field, 10).await;
        assert_eq!(tries(field), 0, "with the newest sidecar there is nothing to compare");
        // Created, and given the sidecar.
        unchanged(field, 2).await;
        first.stop();

        let mut second = operator(field, &[NEXT]).await;
        until_tried(field, NAMES.len()).await;
        looks(field, 20).await;
        assert_eq!(tries(field), NAMES.len() as u64, "once for each: {}", field.proxy.count());
        change_workloads(field, "example.com/app:2").await;
        until_tried(field, 2 * NAMES.len()).await;
        looks(field, 30).await;
        assert_eq!(tries(field), 2 * NAMES.len() as u64, "once for each new state: {}", field.proxy.count());
        unchanged(field, 3).await;
        second.stop();

        // The cluster gets the policy: what stands in templates stays there as long as it is as it should be.
        let mut third = operator(field, &[NEXT, BY_ADMISSION]).await;
        until_tried(field, 3 * NAMES.len()).await;
        looks(field, 40).await;
        assert_eq!(tries(field), 3 * NAMES.len() as u64, "once for each: {}", field.proxy.count());
        unchanged(field, 3).await;
        third.stop();
    })
    .await;
}
