//! What surrounds a broker: its account, and who may reach it.

use capstan_crds::Broker;
use e2e::cluster::{Namespace, SHORT};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::play;
use crate::fixture::{QUEUE, message, until_condition};
use crate::stage::{SYSTEM, on_stage};

const NAME: &str = "capstan-main";

/// Waits until the policy of the Broker `main` has these ports in its rules, each with the number of its peers.
async fn until_admits(namespace: &Namespace, expected: &[(i32, Option<usize>)]) {
    namespace
        .wait_for::<NetworkPolicy>(NAME, &format!("admits {expected:?}"), SHORT, |policy| {
            let spec: Value = json!(policy.spec);
            let rules = spec["ingress"].as_array().cloned().unwrap_or_default();
            let found: Vec<_> = rules
                .iter()
                .map(|rule| {
                    let port = rule["ports"][0]["port"].as_i64().unwrap_or_default();
                    (i32::try_from(port).unwrap(), rule["from"].as_array().map(Vec::len))
                })
                .collect();
            if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brokers_policy_guards_its_admin_port_and_opens_nothing() {
    on_stage("policy", async |stage, namespace| {
        // Without an election it does not know where it is.
        play::broker(namespace, "main", "{}").await;
        until_admits(namespace, &[(9796, None), (9795, None)]).await;
        stage.restart_operator(&[("CAPSTAN_LEASE_NAMESPACE", SYSTEM)]).await;
        until_admits(namespace, &[(9796, None), (9795, Some(1))]).await;
        // Another policy that guards the pod is not undone by this one.
        let deny = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny}\nspec: {podSelector: {}}\n";
        namespace.apply(deny).await;
        until_admits(namespace, &[(9795, Some(1))]).await;
        namespace.kubectl(&["delete", "networkpolicy", "deny"]).await;
        until_admits(namespace, &[(9796, None), (9795, Some(1))]).await;
        let peers = json!([{"namespaceSelector": {"matchLabels": {"team": "web"}}}]);
        play::change(namespace, "main", json!({"networkPolicy": {"from": peers, "adminFrom": peers}})).await;
        until_admits(namespace, &[(9796, Some(2)), (9795, Some(2))]).await;
        namespace.kubectl(&["delete", "networkpolicy", NAME]).await;
        until_admits(namespace, &[(9796, Some(2)), (9795, Some(2))]).await;
        play::change(namespace, "main", json!({"networkPolicy": {"enabled": false}})).await;
        play::until_gone::<NetworkPolicy>(namespace, NAME).await;
        until_condition::<Broker>(namespace, "main", ("Ready", "True", "AsDeclared")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brokers_policy_of_somebody_else_is_left_alone() {
    on_stage("theirs", async |_, namespace| {
        let theirs = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {NAME}}}\nspec: {{podSelector: {{}}}}\n"
        );
        namespace.apply(&theirs).await;
        play::broker(namespace, "main", "{}").await;
        let refused: Broker = until_condition(namespace, "main", ("Ready", "False", "ApplyRefused")).await;
        assert!(message(&refused, "Ready").contains("NetworkPolicy capstan-main"), "{refused:?}");
        namespace.wait_for::<StatefulSet>(NAME, "is there all the same", SHORT, |_| Ok(())).await;
        play::change(namespace, "main", json!({"networkPolicy": {"enabled": false}})).await;
        until_condition::<Broker>(namespace, "main", ("Ready", "True", "AsDeclared")).await;
        let left: NetworkPolicy = namespace.api().get(NAME).await.unwrap();
        assert!(left.labels().is_empty(), "{left:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brokers_account_has_no_token_and_the_namespaces_pull_secrets() {
    on_stage("account", async |_, namespace| {
        let accounts = namespace.api::<ServiceAccount>();
        namespace.wait_for::<ServiceAccount>("default", "is there", SHORT, |_| Ok(())).await;
        let patch = json!({"imagePullSecrets": [{"name": "mirror"}]});
        accounts.patch("default", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        play::broker(namespace, "main", "{}").await;
        let pod = play::pod(namespace, "main", None).await;
        let spec = pod.spec.unwrap();
        assert_eq!(spec.service_account_name.as_deref(), Some(NAME));
        assert_eq!(spec.image_pull_secrets.unwrap()[0].name, "mirror");
        assert!(spec.volumes.unwrap().iter().all(|volume| volume.projected.is_none()), "it has no token");
        let account = accounts.get(NAME).await.unwrap();
        assert_eq!(account.automount_service_account_token, Some(false));
        namespace.kubectl(&["delete", "serviceaccount", NAME]).await;
        namespace.wait_for::<ServiceAccount>(NAME, "is there again", SHORT, |_| Ok(())).await;
    })
    .await;
}

/// What the API server fills in is no difference that is applied again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_brokers_objects_are_written_once() {
    on_stage("once", async |_, namespace| {
        let spec = "
  storage: {size: 1.5Gi, reservePercent: 20}
  service: {type: LoadBalancer, annotations: {a: b}}
  networkPolicy: {from: [{ipBlock: {cidr: 10.0.0.0/8}}]}
  pod: {resources: {requests: {cpu: '0.1', memory: 131072Ki}}, tolerations: [{key: a, operator: Exists}]}";
        play::broker(namespace, "main", spec).await;
        until_condition::<Broker>(namespace, "main", ("Ready", "True", "AsDeclared")).await;
        until_condition::<Broker>(namespace, "main", ("Updated", "True", "AsDeclared")).await;
        play::pod(namespace, "main", None).await;
        let writes = async || {
            let of = |fields: &kube::api::ObjectMeta| {
                let all = fields.managed_fields.iter().flatten();
                let own: Vec<_> = all.filter(|one| one.manager.as_deref() == Some("capstan")).collect();
                assert_eq!(own.len(), 1, "{own:?}");
                (fields.generation, own[0].time.clone())
            };
            (
                of(&namespace.api::<StatefulSet>().get(NAME).await.unwrap().metadata),
                of(&namespace.api::<NetworkPolicy>().get(NAME).await.unwrap().metadata),
                namespace.api::<Service>().get(NAME).await.unwrap().metadata.resource_version,
                namespace.api::<ServiceAccount>().get(NAME).await.unwrap().metadata.resource_version,
            )
        };
        let before = writes().await;
        // A change of something else has the Broker looked at as a whole.
        namespace.apply(&format!("{QUEUE}spec: {{brokerRef: {{name: main}}}}\n")).await;
        until_condition::<capstan_crds::Queue>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        assert_eq!(writes().await, before);
    })
    .await;
}
