//! The admission policy by which the API server itself gives pods their sidecar: no webhook, no certificate, and it works
//! while no operator runs.
//!
//! It is made from the same container that the mode Template applies. What differs from workload to workload it reads from
//! the pod and from the status of the Consumer (`params`), where the operator has put what it decided.

use capstan_api::SIDECAR_GATEWAY_PORT;
use capstan_crds::{API_VERSION, Key, label};
use serde_json::{Value, json};

use crate::cel::{Replaced, expression, string, unused};
use crate::container::{
    ADMIN_PORT, BROKER_URL, DRAIN_SECONDS, DRAIN_SECONDS_MAX, GATEWAY_PORT, Images, MARGIN_SECONDS,
    NAMESPACE, WORKLOAD, sidecar,
};
use crate::fields::hook;
use crate::{Identity, Workload};

/// What the operator decided for the workload.
const DECIDED: &str = "params.status.injection";

/// `MutatingAdmissionPolicy.spec`, for an image that `image` and `pull_policy` name (a template of the chart's).
#[must_use]
pub fn spec(image: &str, pull_policy: &str) -> Value {
    json!({
        "paramKind": {"apiVersion": API_VERSION, "kind": "Consumer"},
        "matchConstraints": {
            "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        },
        // A pod without a sidecar consumes nothing, which the Consumer's status shows; a pod that is refused is an outage.
        "failurePolicy": "Ignore",
        "reinvocationPolicy": "IfNeeded",
        "matchConditions": [
            {"name": "has-controller", "expression": HAS_CONTROLLER},
            {"name": "has-no-sidecar", "expression": no_sidecar()},
            // The gateway would be open to the node.
            {"name": "has-own-network", "expression": "!has(object.spec.hostNetwork) || !object.spec.hostNetwork"},
        ],
        "variables": [
            {"name": "owner", "expression": "object.metadata.ownerReferences.filter(o, has(o.controller) && o.controller)[0]"},
            {"name": "isTarget", "expression": IS_TARGET},
            {"name": "sidecar", "expression": container(image, pull_policy)},
        ],
        "mutations": [
            {"patchType": "JSONPatch", "jsonPatch": {"expression": ADD_SIDECAR}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": add_hooks()}},
        ],
    })
}

/// `MutatingAdmissionPolicyBinding.spec`: every Consumer of the pod's namespace is a parameter.
#[must_use]
pub fn binding(policy: &str) -> Value {
    json!({"policyName": policy, "paramRef": {"selector": {}, "parameterNotFoundAction": "Allow"}})
}

const HAS_CONTROLLER: &str = "has(object.metadata.ownerReferences) && object.metadata.ownerReferences.exists(o, \
     o.apiVersion == 'apps/v1' && o.kind in ['ReplicaSet', 'StatefulSet'] && has(o.controller) && o.controller)";

fn no_sidecar() -> String {
    format!(
        "!has(object.spec.initContainers) || object.spec.initContainers.all(c, c.name != '{}')",
        label::SIDECAR
    )
}

/// A ReplicaSet is called like its Deployment, with the hash of the pod template.
const IS_TARGET: &str = "has(params.spec.targetRef) && has(params.status) && has(params.status.injection) && \
     !(has(params.metadata.deletionTimestamp)) && \
     (params.spec.targetRef.kind == 'StatefulSet' \
     ? variables.owner.kind == 'StatefulSet' && variables.owner.name == params.spec.targetRef.name \
     : variables.owner.kind == 'ReplicaSet' && has(object.metadata.labels) && 'pod-template-hash' in object.metadata.labels && \
     variables.owner.name == params.spec.targetRef.name + '-' + object.metadata.labels['pod-template-hash'])";

const ADD_SIDECAR: &str = "!variables.isTarget ? [] : \
     (has(object.spec.initContainers) ? [] : [JSONPatch{op: 'add', path: '/spec/initContainers', value: []}]) + \
     [JSONPatch{op: 'add', path: '/spec/initContainers/0', value: variables.sidecar}]";

/// Containers that have no preStop hook get one.
fn add_hooks() -> String {
    let hook = json!(hook(0));
    let port: Replaced = [("/preStop/httpGet/port".to_owned(), format!("{DECIDED}.adminPort"))].into();
    let whole = expression(&hook, &port);
    let handler: Replaced = [("/httpGet/port".to_owned(), format!("{DECIDED}.adminPort"))].into();
    let part = expression(&hook["preStop"], &handler);
    format!(
        "!variables.isTarget ? [] : object.spec.containers.transformList(i, c, \
         !has(c.lifecycle) || !has(c.lifecycle.preStop), \
         has(c.lifecycle) \
         ? JSONPatch{{op: 'add', path: '/spec/containers/' + string(i) + '/lifecycle/preStop', value: {part}}} \
         : JSONPatch{{op: 'add', path: '/spec/containers/' + string(i) + '/lifecycle', value: {whole}}})"
    )
}

/// The container as an expression.
fn container(image: &str, pull_policy: &str) -> String {
    let value = example();
    let replaced: Replaced = [
        ("/env", variables(&value)),
        ("/image", string(image)),
        ("/imagePullPolicy", string(pull_policy)),
        ("/ports/0/containerPort", format!("{DECIDED}.adminPort")),
        ("/startupProbe/httpGet/port", format!("{DECIDED}.adminPort")),
        ("/livenessProbe/httpGet/port", format!("{DECIDED}.adminPort")),
        ("/resources", format!("{DECIDED}.resources")),
    ]
    .map(|(path, expression)| (path.to_owned(), expression))
    .into();
    debug_assert_eq!(unused(&value, &replaced), Vec::<&str>::new());
    expression(&value, &replaced)
}

/// A container like those of the mode Template.
fn example() -> Value {
    let workload = capstan_api::workload::Workload {
        kind: capstan_api::workload::WorkloadKind::Deployment,
        name: "example".to_owned(),
    };
    let identity = Identity::new(
        "example",
        &workload,
        &Key::new("example", "example"),
        &capstan_crds::consumer::Sidecar::default(),
    );
    let images = Images { sidecar: "example".to_owned(), pull_policy: "IfNotPresent".to_owned() };
    json!(sidecar(&identity, Workload::GRACE_SECONDS_DEFAULT, &images))
}

/// The list of variables as an expression: one of them is there only when it differs from the program's own default.
fn variables(container: &Value) -> String {
    let all = container["env"].as_array().cloned().unwrap_or_default();
    let one = |variable: &Value| {
        let name = variable["name"].as_str().unwrap_or_default();
        let replaced: Replaced =
            of_variable(name).map(|value| ("/value".to_owned(), value)).into_iter().collect();
        format!("[dyn({})]", expression(variable, &replaced))
    };
    let (last, first) = match all.split_last() {
        Some((last, first)) if last["name"] == DRAIN_SECONDS => (one(last), first),
        _ => (String::from("[]"), &all[..]),
    };
    let first: Vec<String> = first.iter().map(one).collect();
    let gateway = format!(
        "({DECIDED}.gatewayPort == {SIDECAR_GATEWAY_PORT} ? [] : [dyn({{\"name\": dyn(\"{GATEWAY_PORT}\"), \"value\": dyn(string({DECIDED}.gatewayPort))}})])"
    );
    format!("{} + {gateway} + {last}", first.join(" + "))
}

/// The value of a variable that differs from pod to pod.
fn of_variable(name: &str) -> Option<String> {
    let grace =
        "(has(object.spec.terminationGracePeriodSeconds) ? object.spec.terminationGracePeriodSeconds : 30)";
    match name {
        BROKER_URL => Some(format!("{DECIDED}.brokerUrl")),
        NAMESPACE => Some("params.metadata.namespace".to_owned()),
        WORKLOAD => Some("params.spec.targetRef.kind + '/' + params.spec.targetRef.name".to_owned()),
        ADMIN_PORT => Some(format!("string({DECIDED}.adminPort)")),
        DRAIN_SECONDS => Some(format!(
            "string({grace} - {MARGIN_SECONDS} < 1 ? 1 : ({grace} - {MARGIN_SECONDS} > {DRAIN_SECONDS_MAX} ? {DRAIN_SECONDS_MAX} : {grace} - {MARGIN_SECONDS}))"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_of_the_container_is_in_the_policy() {
        let spec = spec("i:1", "Always");
        let container = spec["variables"][2]["expression"].as_str().unwrap();
        for variable in example()["env"].as_array().unwrap() {
            let name = variable["name"].as_str().unwrap();
            assert!(container.contains(&format!("\"name\": dyn(\"{name}\")")), "{name}");
        }
        for part in [
            "\"image\": dyn(\"i:1\")",
            "\"imagePullPolicy\": dyn(\"Always\")",
            "runAsNonRoot",
            "startupProbe",
        ] {
            assert!(container.contains(part), "{part}: {container}");
        }
        // Nothing of the example is left over.
        assert!(!container.contains("example") && !container.contains("9798"), "{container}");
    }

    #[test]
    fn every_replaced_path_is_one_of_the_container() {
        // In a release build nothing checks it.
        let value = example();
        for path in [
            "/env",
            "/ports/0/containerPort",
            "/startupProbe/httpGet/port",
            "/livenessProbe/httpGet/port",
            "/resources",
        ] {
            assert!(value.pointer(path).is_some(), "{path}");
        }
    }
}
