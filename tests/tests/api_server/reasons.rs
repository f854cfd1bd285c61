//! Reasons of conditions that no other test brings about.

use capstan_crds::{Consumer, Queue};
use e2e::cluster::{Namespace, SHORT, tool, until};
use k8s_openapi::api::apps::v1::Deployment;

use crate::fixture::{APPLICATION, CONSUMER, QUEUE, message, until_condition, until_injected};
use crate::stage::on_stage;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_switched_off_or_not_there_yet_is_said() {
    on_stage("reasons", async |_, namespace| {
        namespace.apply(&[CONSUMER, APPLICATION].join("---")).await;
        until_condition::<Consumer>(namespace, "orders", ("Accepted", "False", "QueueNotFound")).await;
        until_condition::<Consumer>(namespace, "orders", ("SidecarsInjected", "False", "Pending")).await;
        let elsewhere = format!("{QUEUE}spec: {{brokerRef: {{name: main}}}}\n");
        namespace.apply(&elsewhere).await;
        until_condition::<Queue>(namespace, "orders", ("BrokerResolved", "False", "BrokerNotFound")).await;
        let consumer: Consumer =
            until_condition(namespace, "orders", ("Ready", "False", "QueueNotReady")).await;
        assert!(message(&consumer, "Ready").contains("there is no Broker main"));

        namespace.kubectl(&["delete", "capq", "orders"]).await;
        namespace.apply(&format!("{QUEUE}spec: {{delivery: Paused}}\n")).await;
        let queue: Queue = until_condition(namespace, "orders", ("Delivering", "False", "Paused")).await;
        assert!(message(&queue, "Delivering").contains("spec.delivery"));
        namespace.apply(&format!("{QUEUE}spec: {{delivery: Active}}\n")).await;
        until_condition::<Queue>(namespace, "orders", ("Delivering", "True", "Delivering")).await;
        namespace.apply(&format!("{CONSUMER}  paused: true\n")).await;
        let queue: Queue = until_condition(namespace, "orders", ("Delivering", "False", "Paused")).await;
        assert!(message(&queue, "Delivering").contains("Consumer orders"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grace_period_that_cuts_calls_is_said() {
    on_stage("grace", async |_, namespace| {
        namespace.apply(&[QUEUE, CONSUMER, APPLICATION].join("---")).await;
        let consumer: Consumer =
            until_condition(namespace, "orders", ("DrainBounded", "True", "GracePeriodShort")).await;
        let text = message(&consumer, "DrainBounded");
        for part in ["60 s", "30 s", "25 s", "terminationGracePeriodSeconds of the workload to 65"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // As the message says.
        let longer =
            APPLICATION.replace("    spec:\n", "    spec:\n      terminationGracePeriodSeconds: 65\n");
        namespace.apply(&longer).await;
        until_condition::<Consumer>(namespace, "orders", ("DrainBounded", "False", "GracePeriodSuffices"))
            .await;
    })
    .await;
}

/// A policy of the cluster that wants no such container.
fn refusal(namespace: &Namespace) -> String {
    format!(
        "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {name}}}
spec:
  matchConstraints:
    resourceRules: [{{apiGroups: [apps], apiVersions: [v1], operations: [UPDATE], resources: [deployments]}}]
  validations:
  - expression: \"!has(object.spec.template.spec.initContainers) || object.spec.template.spec.initContainers.all(c, c.name != 'capstan')\"
    message: no sidecars in this shop
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {name}}}
spec:
  policyName: {name}
  validationActions: [Deny]
  matchResources: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}}}
",
        name = namespace.name
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_is_refused_is_said_in_the_clusters_words() {
    on_stage("refused", async |_, namespace| {
        namespace.apply(APPLICATION).await;
        tool::execute("kubectl", &["apply", "-f", "-"], Some(&refusal(namespace))).await.unwrap();
        // It is in force a moment later.
        let patch = r#"{"spec":{"template":{"spec":{"initContainers":[{"name":"capstan","image":"a"}]}}}}"#;
        let arguments =
            ["-n", &namespace.name, "patch", "deployment", "orders", "--dry-run=server", "--patch", patch];
        until("the policy is in force", SHORT, async || {
            match tool::execute("kubectl", &arguments, None).await {
                Err(error) if error.contains("no sidecars in this shop") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        namespace.apply(&[QUEUE, CONSUMER].join("---")).await;
        let consumer: Consumer =
            until_condition(namespace, "orders", ("SidecarsInjected", "False", "InjectionRefused")).await;
        assert!(message(&consumer, "SidecarsInjected").contains("no sidecars in this shop"));
        for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
            tool::run("kubectl", &["delete", kind, &namespace.name]).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_in_the_manifest_is_left_alone_and_a_wrong_one_is_said() {
    on_stage("manual", async |_, namespace| {
        let sidecar = format!(
            "      - name: capstan\n        image: capstan/sidecar:0.1.0\n        restartPolicy: Always\n        env:\n        \
             - {{name: CAPSTAN_BROKER_URL, value: 'http://capstan-default.{}.svc'}}\n        \
             - {{name: CAPSTAN_WORKLOAD, value: Deployment/orders}}\n",
            namespace.name
        );
        let manifest = APPLICATION.replace("      initContainers:\n", &format!("      initContainers:\n{sidecar}"));
        namespace.apply(&[QUEUE, CONSUMER, &manifest].join("---")).await;
        let consumer: Consumer =
            until_condition(namespace, "orders", ("SidecarsInjected", "True", "Injected")).await;
        assert_eq!(consumer.status.unwrap().sidecar.unwrap().mode, "Manual");
        let before = namespace.api::<Deployment>().get("orders").await.unwrap().metadata.generation;
        namespace.apply(&format!("{CONSUMER}  sidecar: {{gatewayPort: 9001}}\n")).await;
        let consumer: Consumer =
            until_condition(namespace, "orders", ("TargetResolved", "False", "RenderedDiffers")).await;
        let text = message(&consumer, "TargetResolved");
        assert!(text.contains("CAPSTAN_GATEWAY_PORT 9797 instead of 9001"), "{text}");
        let after = namespace.api::<Deployment>().get("orders").await.unwrap().metadata.generation;
        assert_eq!(before, after, "the manifest is the user's");
        // Taken out of the manifest, it comes from the operator.
        namespace.apply(APPLICATION).await;
        until_injected(namespace, "orders", true).await;
        until_condition::<Consumer>(namespace, "orders", ("TargetResolved", "True", "Resolved")).await;
    })
    .await;
}
