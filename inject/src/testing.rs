//! What tests of this crate, and of those that use it, plan with.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use capstan_api::workload::Workload as Reference;
use capstan_crds::{Consumer, Key, Object, Queue, parse, resolve};

use crate::{Claimant, Images, Workload, sort};

/// The image of the tests' sidecars.
#[must_use]
pub fn images() -> Images {
    Images { sidecar: "capstan/sidecar:0.1.0".to_owned(), pull_policy: "IfNotPresent".to_owned() }
}

const QUEUES: &str = "apiVersion: capstan.dev/v1alpha1\nkind: Queue\nmetadata: {name: a, namespace: shop}\nspec: {}\n---\n\
    apiVersion: capstan.dev/v1alpha1\nkind: Queue\nmetadata: {name: b, namespace: shop}\nspec: {}\n---\n\
    apiVersion: capstan.dev/v1alpha1\nkind: Queue\nmetadata: {name: elsewhere, namespace: shop}\nspec: {brokerRef: {name: other}}\n";

/// Consumers as `(name, queue, more of the spec)`, each a second younger than the one before.
#[must_use]
pub fn claimants(consumers: &[(&str, &str, &str)]) -> Vec<Claimant> {
    let one = |(at, (name, queue, more)): (usize, &(&str, &str, &str))| {
        format!(
            "---\napiVersion: capstan.dev/v1alpha1\nkind: Consumer\nmetadata: {{name: {name}, namespace: shop, uid: {name}, \
             generation: 3, creationTimestamp: '2026-01-01T00:00:0{at}Z'}}\n\
             spec: {{queueRef: {{name: {queue}}}, targetRef: {{kind: Deployment, name: web}}, {more}}}\n"
        )
    };
    let yaml = format!("{QUEUES}{}", consumers.iter().enumerate().map(one).collect::<String>());
    let (mut queues, mut all): (Vec<Queue>, Vec<Arc<Consumer>>) = (Vec::new(), Vec::new());
    for object in parse(&yaml).unwrap() {
        match object {
            Object::Queue(queue) => queues.push(queue.as_ref().clone()),
            Object::Consumer(consumer) => all.push(Arc::new(consumer.as_ref().clone())),
            other => panic!("not expected here: {other:?}"),
        }
    }
    let resolution = resolve(&queues, all.iter().map(AsRef::as_ref));
    let claim = |consumer: Arc<Consumer>| Claimant {
        resolved: resolution.consumers[&Key::of(&consumer.metadata)].clone(),
        consumer,
    };
    let mut claimants: Vec<Claimant> = all.into_iter().map(claim).collect();
    sort(&mut claimants);
    claimants
}

/// The workload that they name.
#[must_use]
pub fn reference() -> Reference {
    "Deployment/web".parse().unwrap()
}

/// It, as a cluster has it before anything is injected.
#[must_use]
pub fn workload() -> Workload {
    Workload {
        key: Key::new("shop", "web"),
        uid: "w".into(),
        replicas: 2,
        grace_seconds: 30,
        ..Workload::default()
    }
}
