//! A cluster with ten thousand Queues and a thousand Consumers: how long the operator takes, what it asks, what it needs.
//!
//! Times are printed, never asserted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use capstan_crds::{Consumer, Queue};
use e2e::cluster::{condition, until};
use e2e::process::progress;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::field::{Count, Field, on_field};
use crate::fixture::Conditions;
use crate::stage::Operator;

/// Namespaces of 100 Queues and 10 Consumers, and a last one that has more.
const NAMESPACES: usize = 81;
const SMALL: Size = Size { queues: 100, consumers: 10 };
/// A namespace of one big team.
const LARGE: Size = Size { queues: 2_000, consumers: 200 };
/// The operator's memory limit in the chart is above this.
const MEMORY_MAX: u64 = 200 << 20;
/// A machine that is busy with other things takes several times as long; nothing is said of time here.
const PATIENCE: Duration = Duration::from_secs(900);
/// Looks at every Broker without a request.
const QUIET_LOOKS: u64 = 3;

#[derive(Clone, Copy)]
struct Size {
    queues: usize,
    consumers: usize,
}

fn sizes(field: &Field) -> Vec<(String, Size)> {
    let last = field.namespaces.len() - 1;
    let size = |(number, name): (usize, &String)| (name.clone(), if number == last { LARGE } else { SMALL });
    field.namespaces.iter().enumerate().map(size).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_queues_and_a_thousand_consumers() {
    on_field("fleet", NAMESPACES, async |field| {
        let start = Instant::now();
        fill(field).await;
        told(&format!("{} objects created", total(field)), start);

        let start = Instant::now();
        let mut operator = field.operator(&[]).await;
        told("the first operator knows the cluster", start);
        until_ready(field).await;
        told("all are Ready, which nobody had ever looked at", start);
        quiet(field).await;
        told("nothing is left to do", start);
        report(&operator, &field.proxy.count());
        let versions = versions(field).await;

        operator.stop();
        change_some(field).await;
        let before = field.proxy.count();
        let start = Instant::now();
        let operator = field.operator(&[]).await;
        told("the next operator knows the cluster", start);
        until_ready(field).await;
        told("all are Ready, a Queue of each namespace changed meanwhile", start);
        quiet(field).await;
        told("nothing is left to do", start);
        report(&operator, &field.proxy.count().since(&before));
        unchanged(&versions, &self::versions(field).await);
    })
    .await;
}

/// Creates everything, while there is no operator.
async fn fill(field: &Field) {
    let mut objects = Vec::new();
    for (namespace, size) in sizes(field) {
        objects.extend((0..size.queues).map(|number| (namespace.clone(), "queue", number)));
        objects.extend((0..size.consumers).map(|number| (namespace.clone(), "consumer", number)));
        objects.extend((0..size.consumers).map(|number| (namespace.clone(), "deployment", number)));
    }
    field
        .each(&objects, async |(namespace, kind, number)| create(field, namespace, kind, *number).await)
        .await;
}

async fn create(field: &Field, namespace: &str, kind: &str, number: usize) {
    let name = format!("q{number:04}");
    match kind {
        "queue" => field.create_queue(namespace, &name).await,
        "consumer" => field.create_consumer(namespace, &name).await,
        _ => field.create_deployment(namespace, &name).await,
    }
}

/// Changes one Queue of each namespace.
async fn change_some(field: &Field) {
    field
        .each(&field.namespaces, async |namespace| {
            let patch = Patch::Merge(json!({"spec": {"messageRetention": "24h"}}));
            field.api::<Queue>(namespace).patch("q0000", &PatchParams::default(), &patch).await.unwrap();
        })
        .await;
}

/// Waits until all Queues and Consumers are Ready as they are now.
async fn until_ready(field: &Field) {
    for (namespace, size) in sizes(field) {
        until_all::<Queue>(field, &namespace, size.queues).await;
        until_all::<Consumer>(field, &namespace, size.consumers).await;
    }
}

async fn until_all<K>(field: &Field, namespace: &str, count: usize)
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Conditions,
{
    let api = field.api::<K>(namespace);
    until(&format!("all {} of {namespace} are Ready", K::plural(&())), PATIENCE, async || {
        // As the API server has them cached: the newest is not worth its price, and comes soon.
        let all = api.list(&ListParams::default().match_any()).await.map_err(|error| error.to_string())?;
        let check = |object: &K| condition(object.conditions(), object.meta().generation, "Ready", "True");
        let not: Vec<String> = all.iter().filter_map(|object| check(object).err()).collect();
        match not.first() {
            None if all.items.len() == count => Ok(()),
            None => Err(format!("there are {}", all.items.len())),
            Some(first) => Err(format!("{} are not, as one whose {first}", not.len())),
        }
    })
    .await;
}

/// Waits until every Broker was looked at three times more, and nothing was asked of the API server meanwhile.
async fn quiet(field: &Field) {
    let mut since: Option<(Count, BTreeMap<_, u64>)> = None;
    until("the operator is quiet", PATIENCE, async || {
        let (count, asked) = (field.proxy.count(), field.plane.asked());
        let Some((old, from)) = since.as_ref().filter(|(old, _)| old.requests() == count.requests()) else {
            let last = since.replace((count.clone(), asked));
            return Err(last.map_or_else(String::new, |(old, _)| format!("{}", count.since(&old))));
        };
        assert_eq!(asked.len(), NAMESPACES);
        let looks = asked.iter().map(|(key, asked)| asked - from.get(key).copied().unwrap_or_default()).min();
        if looks >= Some(QUIET_LOOKS) {
            return Ok(());
        }
        Err(format!("{looks:?} looks without a request; {}", count.since(old)))
    })
    .await;
}

fn report(operator: &Operator, count: &Count) {
    let (memory, most) = operator.memory();
    progress(&format!("fleet: {count}"));
    progress(&format!(
        "fleet: the operator has {} MB of memory, at most {} MB, and computed for {:.1} s",
        memory >> 20,
        most >> 20,
        operator.computed().as_secs_f64()
    ));
    assert!(most < MEMORY_MAX, "the operator needed {most} bytes");
}

/// The resource version of every Queue, Consumer and Deployment.
async fn versions(field: &Field) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    for namespace in &field.namespaces {
        let all = ListParams::default();
        let mut add = |kind: &str, object: &dyn Fn() -> (String, Option<String>)| {
            let (name, version) = object();
            versions.insert(format!("{kind} {namespace}/{name}"), version.unwrap());
        };
        for object in field.api::<Queue>(namespace).list(&all).await.unwrap() {
            add("queue", &|| (object.name_any(), object.resource_version()));
        }
        for object in field.api::<Consumer>(namespace).list(&all).await.unwrap() {
            add("consumer", &|| (object.name_any(), object.resource_version()));
        }
        for object in field.api::<Deployment>(namespace).list(&all).await.unwrap() {
            add("deployment", &|| (object.name_any(), object.resource_version()));
        }
    }
    versions
}

/// All that changed with the restart is the Queue of each namespace that was changed by hand, and its Consumer's status.
fn unchanged(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) {
    assert_eq!(before.len(), after.len());
    let changed = before.iter().filter(|(name, version)| after[*name] != **version).map(|(name, _)| name);
    let changed: Vec<&String> = changed.filter(|name| !name.ends_with("/q0000")).collect();
    assert!(changed.is_empty(), "a restart wrote {} objects, such as {:?}", changed.len(), changed[0]);
}

fn total(field: &Field) -> usize {
    sizes(field).iter().map(|(_, size)| size.queues + 2 * size.consumers).sum()
}

fn told(what: &str, start: Instant) {
    progress(&format!("fleet: after {:.1} s: {what}", start.elapsed().as_secs_f64()));
}
