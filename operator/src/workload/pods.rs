//! Which pods of a workload have which sidecar.

use capstan_crds::consumer::SidecarStatus;
use capstan_crds::label;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::ListParams;
use kube::core::Selector;
use kube::{Api, Client};

use crate::api::{ApiError, bounded};
use crate::world::Workload;

/// How sidecars get into pods.
const MODE: &str = "Template";
/// Pods of one workload that are looked at; the rest counts as the first ones do not.
const PODS_MAX: u32 = 500;

/// Counts pods by sidecar. While everything is rolled out, nobody needs to be asked.
pub(super) async fn count(
    client: &Client,
    workload: &Workload,
    image: &str,
) -> Result<SidecarStatus, ApiError> {
    if workload.is_rolled_out() {
        return Ok(of_template(workload, image));
    }
    let selector =
        Selector::try_from(workload.selector.clone()).map_err(|e| ApiError::Refused(e.to_string()))?;
    let params = ListParams::default().labels_from(&selector).limit(PODS_MAX);
    let api: Api<Pod> = Api::namespaced(client.clone(), &workload.key.namespace);
    let pods = bounded(api.list(&params)).await?;
    Ok(of_pods(&pods.items, image))
}

/// Every pod is as the template.
fn of_template(workload: &Workload, image: &str) -> SidecarStatus {
    let mut status = empty(image);
    *slot(&mut status, workload.sidecar.as_ref(), image) = workload.current;
    status
}

fn of_pods(pods: &[Pod], image: &str) -> SidecarStatus {
    let mut status = empty(image);
    for pod in pods.iter().filter(|pod| is_alive(pod)) {
        let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        let sidecar = init.into_iter().find(|container| container.name == label::SIDECAR);
        *slot(&mut status, sidecar, image) += 1;
    }
    status
}

fn is_alive(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

fn slot<'a>(status: &'a mut SidecarStatus, sidecar: Option<&Container>, image: &str) -> &'a mut u32 {
    match sidecar {
        Some(container) if container.image.as_deref() == Some(image) => &mut status.updated,
        Some(_) => &mut status.outdated,
        None => &mut status.missing,
    }
}

fn empty(image: &str) -> SidecarStatus {
    SidecarStatus { mode: MODE.to_owned(), version: version(image), ..SidecarStatus::default() }
}

/// The tag or digest of an image, or the whole of it.
fn version(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    let version = name.split_once('@').map_or_else(
        || name.split_once(':'),
        |(tagged, _)| tagged.split_once(':').or_else(|| name.split_once('@')),
    );
    version.map_or(image, |(_, version)| version).to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::workload;
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
        let workload = |sidecar| Workload { current: 3, sidecar, ..workload() };
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
