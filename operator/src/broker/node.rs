//! Why a Broker's pod does not answer: what the pod and its node say.

use capstan_crds::condition::reason;
use capstan_crds::{Key, label};
use k8s_openapi::api::core::v1::{ContainerStatus, Node, NodeCondition, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tracing::debug;

use super::dereference::Scene;
use crate::api::{ApiError, bounded};
use crate::condition::Verdict;
use crate::context::Context;
use crate::names::names;

/// The node that a pod is bound to.
enum Bound {
    Known(Box<Node>),
    Gone,
    /// Nobody may look, or it could not be looked at: what the pod says must do.
    Unknown,
}

/// Looks at the pod and its node. `problem` is what happened when the broker was asked.
pub(super) async fn look(context: &Context, scene: &Scene, problem: &str) -> Verdict {
    match found(context, &scene.key).await {
        Ok((pod, node)) => verdict(&scene.key, pod.as_ref(), &node, problem),
        Err(error) => {
            debug!(broker = %scene.key, %error, "its pod could not be looked at");
            silent(&scene.key, problem)
        }
    }
}

/// The pod, and the node that it is bound to.
async fn found(context: &Context, key: &Key) -> Result<(Option<Pod>, Bound), ApiError> {
    let names = names(&key.name);
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &key.namespace);
    let params = ListParams::default().labels(&format!("{}={}", label::BROKER, key.name)).limit(10);
    let pods = bounded(pods.list(&params)).await?;
    let pod = pods.into_iter().find(|pod| pod.name_any() == names.pod);
    let node = pod.as_ref().and_then(|pod| pod.spec.as_ref()?.node_name.clone());
    let Some(name) = node else { return Ok((pod, Bound::Unknown)) };
    let nodes: Api<Node> = Api::all(context.client.clone());
    let node = match bounded(nodes.get_opt(&name)).await {
        Ok(Some(node)) => Bound::Known(Box::new(node)),
        Ok(None) => Bound::Gone,
        // Without rights in the cluster nobody may look at nodes.
        Err(error) => {
            debug!(broker = %key, node = name, %error, "its node could not be looked at");
            Bound::Unknown
        }
    };
    Ok((pod, node))
}

/// What is to be said. Pure.
fn verdict(key: &Key, pod: Option<&Pod>, node: &Bound, problem: &str) -> Verdict {
    let Some(pod) = pod else { return silent(key, problem) };
    let on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let lost = match node {
        Bound::Known(node) => lost(node),
        Bound::Gone | Bound::Unknown => None,
    };
    match (on, node, lost) {
        (Some(name), Bound::Gone, _) => Verdict::no(
            reason::NODE_LOST,
            format!(
                "node {name} of pod {} is gone from the cluster. Kubernetes removes the pod within some minutes, and another node \
                 goes on with the volume; no message is lost",
                pod.name_any()
            ),
        ),
        (Some(name), _, Some(state)) => node_lost(key, pod, name, &state),
        _ => match ailment(pod) {
            Some(ailment) => {
                Verdict::no(reason::NOT_SERVING, format!("pod {} does not run: {ailment}", pod.name_any()))
            }
            None => silent(key, problem),
        },
    }
}

/// The condition Ready of a node that is not ready, as text.
fn lost(node: &Node) -> Option<String> {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready: Option<&NodeCondition> = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    match ready {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => {
            let since = ready.last_transition_time.as_ref().map(|time| format!(" since {}", time.0));
            Some(format!("not ready{}", since.unwrap_or_default()))
        }
        None => Some("not ready".to_owned()),
    }
}

/// Two brokers on one volume would destroy it, so nothing is forced: whoever does must know that the node is off.
fn node_lost(key: &Key, pod: &Pod, node: &str, state: &str) -> Verdict {
    let pod = pod.name_any();
    let taint = format!("kubectl taint node {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute");
    Verdict::no(
        reason::NODE_LOST,
        format!(
            "node {node} of pod {pod} is {state}. When it comes back, the broker goes on; no message is lost. To move the broker, first \
             make sure that the node is off (power it off or delete its machine: two brokers must never write to one volume). Then \
             run: {taint} (and the same with a - at its end when the node is back), which ends its pods and detaches their volumes. If only \
             the pod hangs and its volume needs no detaching: kubectl -n {} delete pod {pod} --force --grace-period=0",
            key.namespace
        ),
    )
}

/// Why a pod does not run, in the words of the scheduler or the kubelet.
fn ailment(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let unscheduled = status.conditions.iter().flatten();
    let unscheduled =
        unscheduled.into_iter().find(|one| one.type_ == "PodScheduled" && one.status == "False");
    if let Some(condition) = unscheduled {
        return Some(condition.message.clone().unwrap_or_else(|| "no node has room for it".to_owned()));
    }
    status.container_statuses.iter().flatten().find_map(waiting)
}

fn waiting(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    // On its way.
    if matches!(reason, "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let message = waiting.message.as_deref().map(|message| format!(": {message}"));
    Some(format!("{reason}{}", message.unwrap_or_default()))
}

fn silent(key: &Key, problem: &str) -> Verdict {
    let pod = names(&key.name).pod;
    Verdict::no(
        reason::NOT_SERVING,
        format!("pod {pod} does not answer; see kubectl describe pod {pod}: {problem}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str, status: &str) -> Pod {
        let yaml = format!("{{metadata: {{name: capstan-main-0}}, spec: {spec}, status: {status}}}");
        serde_yaml::from_str(&yaml).unwrap()
    }

    fn node(status: &str) -> Bound {
        let condition =
            format!("{{type: Ready, status: '{status}', lastTransitionTime: '2026-01-01T00:00:00Z'}}");
        let yaml = format!("{{metadata: {{name: n1}}, status: {{conditions: [{condition}]}}}}");
        Bound::Known(serde_yaml::from_str(&yaml).unwrap())
    }

    fn of(pod: Option<&Pod>, node: &Bound) -> (&'static str, String) {
        let verdict = verdict(&Key::new("shop", "main"), pod, node, "connection refused");
        assert!(!verdict.holds);
        assert!(verdict.message.len() <= 1024, "it would be cut: {}", verdict.message);
        (verdict.reason, verdict.message)
    }

    #[test]
    fn a_lost_node_is_said_with_the_commands_to_run() {
        let bound = pod("{nodeName: n1, containers: []}", "{}");
        for status in ["False", "Unknown"] {
            let (reason, message) = of(Some(&bound), &node(status));
            assert_eq!(reason, "NodeLost");
            for part in [
                "not ready since 2026-01-01T00:00:00Z",
                "kubectl taint node n1 node.kubernetes.io/out-of-service=nodeshutdown:NoExecute",
                "kubectl -n shop delete pod capstan-main-0 --force --grace-period=0",
                "make sure that the node is off",
            ] {
                assert!(message.contains(part), "{part:?} is not in {message}");
            }
        }
        let (reason, message) = of(Some(&bound), &Bound::Gone);
        assert_eq!(reason, "NodeLost");
        assert!(message.contains("node n1") && !message.contains("kubectl"), "{message}");
    }

    #[test]
    fn a_pod_that_does_not_run_says_why() {
        let ready = node("True");
        let unscheduled = "{conditions: [{type: PodScheduled, status: 'False', message: unbound claim}]}";
        let (reason, message) = of(Some(&pod("{containers: []}", unscheduled)), &Bound::Unknown);
        assert_eq!((reason, message.contains("unbound claim")), ("NotServing", true), "{message}");
        let container = |reason: &str| {
            format!(
                "{{containerStatuses: [{{name: b, image: i, imageID: '', ready: false, restartCount: 0, \
                 state: {{waiting: {{reason: {reason}, message: no such image}}}}}}]}}"
            )
        };
        let bound = |reason: &str| pod("{nodeName: n1, containers: []}", &container(reason));
        // Without the right to look at nodes, too.
        for node in [ready, Bound::Unknown] {
            let (reason, message) = of(Some(&bound("ErrImagePull")), &node);
            assert_eq!(
                (reason, message.contains("ErrImagePull: no such image")),
                ("NotServing", true),
                "{message}"
            );
            let (reason, message) = of(Some(&bound("ContainerCreating")), &node);
            assert_eq!((reason, message.contains("connection refused")), ("NotServing", true), "{message}");
        }
    }

    #[test]
    fn without_a_pod_the_answer_is_said() {
        let (reason, message) = of(None, &Bound::Unknown);
        assert_eq!(reason, "NotServing");
        assert!(message.contains("capstan-main-0") && message.contains("connection refused"));
    }
}
