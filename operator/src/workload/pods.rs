//! Which pods of a workload have which sidecar.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use capstan_api::workload::{Workload as Reference, WorkloadKind};
use capstan_crds::consumer::SidecarStatus;
use capstan_crds::label;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use kube::api::ListParams;
use kube::core::Selector;

use crate::api::{ApiError, bounded};
use crate::context::Context;
use crate::world::Workload;

/// Pods that are asked for at once.
const PODS_MAX: u32 = 1000;
/// Pages that are looked at: pods that failed and were never removed are among them.
const PAGES_MAX: usize = 10;
/// For how long what was seen of pods is believed: the policy may have been away, or ignored, meanwhile.
const LASTS: Duration = Duration::from_secs(540);

/// How sidecars got into a workload's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Admission,
    Template,
    Manual,
}

impl Way {
    /// The way of a workload that has a sidecar, or is to have one.
    pub(super) fn of(workload: &Workload, is_manual: bool, is_by_admission: bool) -> Self {
        match (is_manual, workload.owns_sidecar) {
            (true, _) => Self::Manual,
            (false, true) => Self::Template,
            (false, false) if is_by_admission => Self::Admission,
            (false, false) => Self::Template,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Admission => "Admission",
            Self::Template => "Template",
            Self::Manual => "Manual",
        }
    }
}

/// How many pods have which sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pods {
    image: String,
    pub(super) updated: u32,
    pub(super) outdated: u32,
    pub(super) missing: u32,
}

impl Pods {
    fn none(image: &str) -> Self {
        Self { image: image.to_owned(), updated: 0, outdated: 0, missing: 0 }
    }

    /// As a status has it.
    pub(super) fn status(&self, way: Way, workload: &Workload) -> SidecarStatus {
        let Self { image, updated, outdated, missing } = self;
        let in_template = workload.sidecar.as_ref().filter(|_| way != Way::Admission);
        SidecarStatus {
            mode: way.as_str().to_owned(),
            version: version(in_template.and_then(|sidecar| sidecar.image.as_deref()).unwrap_or(image)),
            updated: *updated,
            outdated: *outdated,
            missing: *missing,
        }
    }

    fn slot(&mut self, sidecar: Option<&Container>) -> &mut u32 {
        match sidecar {
            Some(container) if container.image.as_ref() == Some(&self.image) => &mut self.updated,
            Some(_) => &mut self.outdated,
            None => &mut self.missing,
        }
    }
}

/// Workloads of which every pod was seen to have the newest sidecar: the admission policy sees to it that this stays so.
#[derive(Debug, Default)]
pub(crate) struct Complete(Mutex<HashMap<(String, Reference), Seen>>);

/// Which state of a workload was seen, and when.
#[derive(Debug)]
struct Seen {
    uid: String,
    generation: i64,
    at: Instant,
}

impl Complete {
    fn is(&self, key: &(String, Reference), workload: &Workload) -> bool {
        let complete = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        complete.get(key).is_some_and(|seen| {
            let is_same = seen.uid == workload.uid && seen.generation == workload.generation;
            is_same && seen.at.elapsed() < LASTS
        })
    }

    fn set(&self, key: (String, Reference), workload: &Workload, is_complete: bool) {
        let mut complete = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_complete {
            let (uid, generation) = (workload.uid.clone(), workload.generation);
            complete.insert(key, Seen { uid, generation, at: Instant::now() });
        } else {
            complete.remove(&key);
        }
    }

    /// Forgets all: pods may have been made without a sidecar meanwhile.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Forgets a workload that has no sidecar any more.
    pub(super) fn forget(&self, namespace: &str, reference: &Reference) {
        let mut complete = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        complete.remove(&(namespace.to_owned(), reference.clone()));
    }
}

/// Counts pods by sidecar. While everything is rolled out and the template tells, nobody needs to be asked.
pub(super) async fn count(
    context: &Context,
    reference: &Reference,
    workload: &Workload,
    way: Way,
) -> Result<Pods, ApiError> {
    let image = &context.config.sidecar_image;
    if way != Way::Admission && workload.is_rolled_out() {
        return Ok(of_template(workload, image));
    }
    let key = (workload.key.namespace.clone(), reference.clone());
    if workload.is_rolled_out() && context.complete.is(&key, workload) {
        return Ok(Pods { updated: workload.current, ..Pods::none(image) });
    }
    let pods = of_pods(&list(context, reference, workload).await?, image);
    let is_complete = workload.is_rolled_out() && pods.missing == 0 && pods.outdated == 0;
    context.complete.set(key, workload, is_complete);
    Ok(pods)
}

/// The pods of a workload, the first [`PAGES_MAX`] times [`PODS_MAX`].
pub(crate) async fn list(
    context: &Context,
    reference: &Reference,
    workload: &Workload,
) -> Result<Vec<Pod>, ApiError> {
    let selector =
        Selector::try_from(workload.selector.clone()).map_err(|e| ApiError::Refused(e.to_string()))?;
    let mut params = ListParams::default().labels_from(&selector).limit(PODS_MAX);
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &workload.key.namespace);
    let mut all = Vec::new();
    for _ in 0..PAGES_MAX {
        let page = bounded(api.list(&params)).await?;
        all.extend(page.items.into_iter().filter(|pod| is_of(pod, reference, workload)));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    Ok(all)
}

/// Every pod is as the template.
fn of_template(workload: &Workload, image: &str) -> Pods {
    let mut pods = Pods::none(image);
    *pods.slot(workload.sidecar.as_ref()) = workload.current;
    pods
}

fn of_pods(all: &[Pod], image: &str) -> Pods {
    let mut pods = Pods::none(image);
    for pod in all.iter().filter(|pod| is_alive(pod)) {
        let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        let sidecar = init.into_iter().find(|container| container.name == label::SIDECAR);
        *pods.slot(sidecar) += 1;
    }
    pods
}

/// Whether a pod is one of the workload's, and not one that its selector finds too, such as a Job's. By the rule of the
/// admission policy: a ReplicaSet is called like its Deployment, with the hash of the pod template.
fn is_of(pod: &Pod, reference: &Reference, workload: &Workload) -> bool {
    let owners = pod.metadata.owner_references.iter().flatten();
    let Some(owner) = owners.into_iter().find(|owner| owner.controller == Some(true)) else { return false };
    match reference.kind {
        WorkloadKind::StatefulSet => owner.uid == workload.uid,
        WorkloadKind::Deployment => {
            let labels = pod.metadata.labels.as_ref();
            let hash = labels.and_then(|labels| labels.get("pod-template-hash"));
            owner.kind == "ReplicaSet"
                && hash.is_some_and(|hash| owner.name == format!("{}-{hash}", reference.name))
        }
    }
}

/// Whether a pod is not ending, and has not ended.
pub(crate) fn is_alive(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// The tag or digest of an image, or the whole of it.
pub(super) fn version(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    let version = name.split_once('@').map_or_else(
        || name.split_once(':'),
        |(tagged, _)| tagged.split_once(':').or_else(|| name.split_once('@')),
    );
    version.map_or(image, |(_, version)| version).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(image: Option<&str>, more: &str) -> Pod {
        let sidecar = image.map_or(String::new(), |image| {
            format!("initContainers: [{{name: capstan, image: '{image}'}}], ")
        });
        serde_yaml::from_str(&format!("{{spec: {{{sidecar}containers: [{{name: app}}]}}, {more}}}")).unwrap()
    }

    #[test]
    fn pods_are_counted_by_their_sidecar() {
        let pods = [
            pod(Some("s:2"), ""),
            pod(Some("s:2"), ""),
            pod(Some("s:1"), ""),
            pod(None, ""),
            pod(None, "metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}"),
            pod(None, "status: {phase: Succeeded}"),
        ];
        let status = of_pods(&pods, "s:2");
        assert_eq!((status.updated, status.outdated, status.missing), (2, 1, 1));
    }

    #[test]
    fn a_workload_that_is_rolled_out_is_as_its_template() {
        let container = |image: &str| Container { image: Some(image.into()), ..Container::default() };
        let workload =
            |sidecar| Workload { current: 3, updated: 3, replicas: 3, sidecar, ..Workload::default() };
        let of = |sidecar| {
            let status = of_template(&workload(sidecar), "s:2");
            (status.updated, status.outdated, status.missing)
        };
        assert_eq!(of(Some(container("s:2"))), (3, 0, 0));
        assert_eq!(of(Some(container("s:1"))), (0, 3, 0));
        assert_eq!(of(None), (0, 0, 3));
    }

    #[test]
    fn the_version_is_the_tag() {
        for (image, expected) in [
            ("capstan/sidecar:0.1.0", "0.1.0"),
            ("registry:5000/capstan/sidecar:0.1.0", "0.1.0"),
            ("registry:5000/capstan/sidecar", "registry:5000/capstan/sidecar"),
            ("capstan/sidecar:0.1.0@sha256:ab", "0.1.0"),
            ("capstan/sidecar@sha256:ab", "sha256:ab"),
        ] {
            assert_eq!(version(image), expected, "{image}");
        }
    }
}
