//! Objects that are applied, changed and deleted in random orders, while the operator restarts, end as in the plain order.

use std::env;
use std::sync::atomic::{AtomicUsize, Ordering};

use capstan_crds::{Broker, Consumer, Queue};
use e2e::cluster::{LONG, until};
use e2e::process::progress;
use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DeleteParams, Patch, PatchParams};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::field::{Field, compare, on_field};
use crate::fixture::APPLICATION;

/// Orders, unless `CAPSTAN_ORDERS` says how many. Each has a namespace, and all are under way at once.
const ORDERS: usize = 200;
/// Most changes of an object before the last.
const CHANGES_MAX: usize = 2;
/// Steps that are under way at once. More would leave the operator no share of the API server.
const STEPS_AT_ONCE: usize = 8;
/// How often the operator is ended while objects change, by turns as Kubernetes does it and as the kernel does.
const RESTARTS: usize = 6;

/// An object of the examples: how it may look, and how it looks in the end.
struct Thing {
    kind: &'static str,
    name: &'static str,
    looks: Vec<Value>,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// As it looks first.
    First,
    /// Deleted by the user. The operator may make it again.
    Deleted,
}

/// What is done to an object.
#[derive(Clone, Copy)]
struct Step {
    thing: usize,
    /// Its look, or none: it is deleted.
    look: Option<usize>,
}

#[tokio::test(flavor = "multi_thread")]
async fn any_order_ends_in_the_same_state() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("CAPSTAN_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let orders = number("CAPSTAN_ORDERS").map_or(ORDERS, |count| usize::try_from(count).unwrap());
    progress(&format!("random order: {orders} orders; again with CAPSTAN_SEED={seed}"));
    on_field("order", orders + 1, async |field| {
        let things = things();
        let plain: Vec<Step> = (0..things.len()).map(|thing| last(&things, thing)).collect();
        let random = (0..orders).map(|order| shuffled(&things, seed + order as u64));
        let all: Vec<(String, Vec<Step>)> =
            field.namespaces.iter().cloned().zip([plain].into_iter().chain(random)).collect();
        let steps = all.iter().map(|(_, steps)| steps.len()).sum();
        let (done, mut restarts) = (AtomicUsize::new(0), 0);
        let changed = take(field, &things, &all, &done);
        let ((), _operator) = tokio::join!(changed, restarted(field, &done, steps, &mut restarts));
        assert_eq!(restarts, RESTARTS);
        progress(&format!("random order: {steps} steps, {restarts} restarts; {}", field.proxy.count()));
        same(field, &things).await;
    })
    .await;
}

/// Takes all steps, one in each namespace and then the next, so that the operator works in between.
async fn take(field: &Field, things: &[Thing], all: &[(String, Vec<Step>)], done: &AtomicUsize) {
    let rounds = all.iter().map(|(_, steps)| steps.len()).max().unwrap();
    for round in 0..rounds {
        let one = async |(namespace, steps): &(String, Vec<Step>)| {
            let Some(step) = steps.get(round) else { return };
            bring_about(field, namespace, &things[step.thing], step.look).await;
            done.fetch_add(1, Ordering::Relaxed);
        };
        stream::iter(all).for_each_concurrent(STEPS_AT_ONCE, one).await;
    }
}

/// The application, the queue and the consumer of the quickstart; a second consumer of the queue; a queue on a Broker of
/// its own; a paused queue that clients pull; a second consumer of the application.
fn things() -> Vec<Thing> {
    let thing = |kind: &'static str, name: &'static str, end: End, specs: &[&str]| Thing {
        kind,
        name,
        looks: specs.iter().map(|spec| object(kind, name, spec)).collect(),
        end,
    };
    let target = "targetRef: {kind: Deployment, name: orders}";
    let orders = format!("queueRef: {{name: orders}}, {target}, deadLetterQueueRef: {{name: orders-dlq}}");
    let application: Value = serde_yaml::from_str(APPLICATION).unwrap();
    let newer =
        serde_yaml::from_str(&APPLICATION.replace("app:1", "app:2").replace("back", "front")).unwrap();
    vec![
        Thing { kind: "Deployment", name: "orders", looks: vec![application, newer], end: End::First },
        thing("Queue", "orders", End::First, &["{}", "{messageRetention: 24h}", "{delivery: Paused}"]),
        thing(
            "Consumer",
            "orders",
            End::First,
            &[
                &format!("{{{orders}, maxBatchSize: 20}}"),
                &format!("{{{orders}, paused: true}}"),
                &format!("{{{orders}, sidecar: {{resources: {{limits: {{memory: 128Mi}}}}}}}}"),
            ],
        ),
        // Deleted by the user, and made again since the Consumer names it.
        thing("Queue", "orders-dlq", End::Deleted, &["{messageRetention: 24h}"]),
        thing(
            "Consumer",
            "rival",
            End::Deleted,
            &["{queueRef: {name: orders}}", "{queueRef: {name: orders}, paused: true}"],
        ),
        thing("Broker", "default", End::Deleted, &["{}"]),
        thing("Broker", "archive", End::First, &["{}", "{pod: {priorityClassName: high}}"]),
        thing(
            "Queue",
            "archive",
            End::First,
            &["{brokerRef: {name: archive}}", "{brokerRef: {name: archive}, deliveryDelay: 5s}"],
        ),
        thing("Queue", "reports", End::First, &["{delivery: Paused}", "{}"]),
        thing(
            "Consumer",
            "reports",
            End::First,
            &["{queueRef: {name: reports}}", "{queueRef: {name: reports}, maxRetries: 9}"],
        ),
        thing("Queue", "audit", End::First, &["{}"]),
        thing("Consumer", "audit", End::First, &[&format!("{{queueRef: {{name: audit}}, {target}}}")]),
    ]
}

fn object(kind: &str, name: &str, spec: &str) -> Value {
    let text = format!(
        "{{apiVersion: capstan.dev/v1alpha1, kind: {kind}, metadata: {{name: {name}}}, spec: {spec}}}"
    );
    serde_yaml::from_str(&text).unwrap()
}

fn last(things: &[Thing], thing: usize) -> Step {
    Step { thing, look: (things[thing].end == End::First).then_some(0) }
}

/// Some changes of each object, then the last; those of one object in their order, and otherwise in any.
fn shuffled(things: &[Thing], seed: u64) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut left: Vec<Vec<Step>> = Vec::new();
    for thing in 0..things.len() {
        let looks = things[thing].looks.len();
        let count = random.random_range(0..=CHANGES_MAX);
        let change = |random: &mut StdRng| Step {
            thing,
            look: random.random_bool(0.6).then(|| random.random_range(0..looks)),
        };
        let mut steps: Vec<Step> = (0..count).map(|_| change(&mut random)).collect();
        steps.push(last(things, thing));
        steps.reverse();
        left.push(steps);
    }
    let mut order = Vec::new();
    while !left.is_empty() {
        let at = random.random_range(0..left.len());
        order.extend(left[at].pop());
        left.retain(|steps| !steps.is_empty());
    }
    order
}

async fn bring_about(field: &Field, namespace: &str, thing: &Thing, look: Option<usize>) {
    let look = look.map(|look| &thing.looks[look]);
    match thing.kind {
        "Queue" => one::<Queue>(field, namespace, thing.name, look).await,
        "Consumer" => one::<Consumer>(field, namespace, thing.name, look).await,
        "Broker" => one::<Broker>(field, namespace, thing.name, look).await,
        _ => one::<Deployment>(field, namespace, thing.name, look).await,
    }
}

async fn one<K>(field: &Field, namespace: &str, name: &str, look: Option<&Value>)
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api = field.api::<K>(namespace);
    let Some(look) = look else {
        match api.delete(name, &DeleteParams::background()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("{} {name} cannot be deleted: {error}", K::kind(&())),
        }
        return;
    };
    let params = PatchParams::apply("user").force();
    let applied = api.patch(name, &params, &Patch::Apply(look)).await;
    applied.unwrap_or_else(|error| panic!("{} {name} cannot be applied: {error}", K::kind(&())));
}

/// Starts an operator and replaces it while the steps are taken; the last one.
async fn restarted(
    field: &Field,
    done: &AtomicUsize,
    steps: usize,
    restarts: &mut usize,
) -> crate::stage::Operator {
    let mut operator = field.operator(&[]).await;
    for restart in 1..=RESTARTS {
        let from = steps * restart / (RESTARTS + 1);
        until(&format!("{from} of {steps} steps are taken"), LONG, async || {
            let done = done.load(Ordering::Relaxed);
            if done >= from { Ok(()) } else { Err(String::new()) }
        })
        .await;
        if restart % 2 == 0 {
            operator.kill();
        } else {
            operator.stop();
        }
        operator = field.operator(&[]).await;
        *restarts += 1;
    }
    operator
}

/// Waits until every namespace looks as the one of the plain order, and that one as it should.
async fn same(field: &Field, things: &[Thing]) {
    let plain = &field.namespaces[0];
    let expected = until("the plain order has its end", LONG, async || {
        let snapshot = field.snapshot(plain).await?;
        let is_ready = |name: &str| {
            let conditions = snapshot.get(name).and_then(|object| object["status"]["conditions"].as_array());
            let ready = conditions.into_iter().flatten().find(|one| one["type"] == "Ready");
            ready.is_some_and(|one| one["status"] == "True")
        };
        let kinds = ["Queue", "Consumer", "Broker"];
        let names = things.iter().filter(|thing| kinds.contains(&thing.kind) && thing.name != "rival");
        let names = names.map(|thing| format!("{} {}", thing.kind, thing.name));
        let not: Vec<String> = names.filter(|name| !is_ready(name)).collect();
        if not.is_empty() { Ok(snapshot) } else { Err(format!("not ready: {not:?}")) }
    })
    .await;
    assert_eq!(expected.len(), 19, "{:?}", expected.keys());
    for (order, namespace) in field.namespaces.iter().enumerate().skip(1) {
        let what = format!("order {} ends as the plain one", order - 1);
        until(&what, LONG, async || compare(&expected, &field.snapshot(namespace).await?)).await;
    }
}
