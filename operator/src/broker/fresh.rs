//! Whether the API server still has the Queues as they are about to be declared.
//!
//! A broker purges what a declaration leaves out, when the Queue wanted it so, and that cannot be taken back. A watch may
//! be behind, such as that of an operator which has just become the active one: before anything can go, it is asked.

use std::collections::{BTreeMap, BTreeSet};

use capstan_api::control::{BrokerState, Declaration, QueueState};
use capstan_crds::{Key, Queue};
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt};

use super::dereference::Scene;
use crate::api::bounded;
use crate::context::Context;

/// Queues by name, and the UID of each.
type Queues = BTreeMap<String, String>;

/// Looks, if messages could go by this declaration.
///
/// # Errors
/// Something changed, or there was no answer; it is declared at the next look.
pub(super) async fn check(
    context: &Context,
    scene: &Scene,
    state: &BrokerState,
    declaration: &Declaration,
) -> Result<(), String> {
    if !may_purge(state, declaration) {
        return Ok(());
    }
    let api: Api<Queue> = Api::namespaced(context.client.clone(), &scene.key.namespace);
    // Without a resource version it is the newest state, not one of a cache.
    let listed =
        bounded(api.list_metadata(&ListParams::default())).await.map_err(|error| error.to_string())?;
    match difference(&known(scene), &there(&listed.items)) {
        None => Ok(()),
        Some(name) => Err(format!("Queue {name} has just changed; the broker is told at the next look")),
    }
}

/// Whether a queue is left out that the broker has, or one is declared whose messages go when it comes from another resource.
fn may_purge(state: &BrokerState, declaration: &Declaration) -> bool {
    let declared: BTreeSet<(&str, &str)> =
        declaration.queues.iter().map(|queue| (queue.namespace.as_str(), queue.name.as_str())).collect();
    let is_left_out = |queue: &QueueState| {
        !queue.retained && !declared.contains(&(queue.namespace.as_str(), queue.name.as_str()))
    };
    declaration.queues.iter().any(|queue| queue.purged_by.is_some()) || state.queues.iter().any(is_left_out)
}

/// The Queues that the declaration was made from; a dead-letter queue that is yet to be created has no UID.
fn known(scene: &Scene) -> Queues {
    let policies =
        scene.resolution.queues.iter().filter_map(|(key, queue)| Some((key, queue.policy.as_ref()?)));
    let with_resource = policies.filter(|(_, policy)| !policy.resource.is_empty());
    with_resource.map(|(key, policy)| (key.name.clone(), policy.resource.clone())).collect()
}

/// Those of the API server, without those that are being deleted.
fn there(listed: &[PartialObjectMeta<Queue>]) -> Queues {
    let alive = listed.iter().filter(|queue| queue.metadata.deletion_timestamp.is_none());
    let named = alive.filter(|queue| capstan_api::Name::new(queue.name_any()).is_ok());
    named.map(|queue| (Key::of(&queue.metadata).name, queue.uid().unwrap_or_default())).collect()
}

/// A queue that is not the same in both.
fn difference<'a>(known: &'a Queues, there: &'a Queues) -> Option<&'a str> {
    let differs = |one: &'a Queues, other: &'a Queues| {
        one.iter().find(|(name, uid)| other.get(*name) != Some(uid)).map(|(name, _)| name.as_str())
    };
    differs(known, there).or_else(|| differs(there, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(list: &[(&str, &str)]) -> Queues {
        list.iter().map(|(name, uid)| ((*name).to_owned(), (*uid).to_owned())).collect()
    }

    #[test]
    fn a_queue_that_came_went_or_is_another_one_is_found() {
        let known = queues(&[("a", "1"), ("b", "2")]);
        assert_eq!(difference(&known, &known), None);
        assert_eq!(difference(&known, &queues(&[("a", "1")])), Some("b"));
        assert_eq!(difference(&known, &queues(&[("a", "1"), ("b", "3")])), Some("b"));
        assert_eq!(difference(&known, &queues(&[("a", "1"), ("b", "2"), ("c", "4")])), Some("c"));
    }

    #[test]
    fn only_what_could_purge_is_checked() {
        let state: BrokerState = serde_json::from_value(serde_json::json!({
            "incarnation": "7f3c", "revision": "r", "version": "0.1.0",
            "storage": {"capacity_bytes": 1, "available_bytes": 1},
            "queues": [{"namespace": "shop", "name": "a", "retained": false, "ready": 1, "delayed": 0, "leased": 0, "dead": 0, "bytes": 1},
                {"namespace": "shop", "name": "old", "retained": true, "ready": 1, "delayed": 0, "leased": 0, "dead": 0, "bytes": 1}],
        }))
        .unwrap();
        let yaml = |policy: &str| {
            format!(
                "apiVersion: capstan.dev/v1alpha1\nkind: Queue\nmetadata: {{name: a, namespace: shop, uid: u}}\nspec: {{deletionPolicy: {policy}}}\n"
            )
        };
        let declaration = |yaml: &str| {
            let objects = capstan_crds::parse(yaml).unwrap();
            let queues: Vec<Queue> = objects
                .into_iter()
                .filter_map(|object| match object {
                    capstan_crds::Object::Queue(queue) => Some(*queue),
                    _ => None,
                })
                .collect();
            capstan_crds::resolve(&queues, []).declaration(&Key::new("shop", "default"), "b")
        };
        assert!(!may_purge(&state, &declaration(&yaml("Retain"))));
        assert!(may_purge(&state, &declaration(&yaml("Delete"))));
        assert!(
            may_purge(&state, &declaration("{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}")),
            "it is left out"
        );
    }
}
