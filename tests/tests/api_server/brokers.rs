//! Brokers: what the operator keeps of them, tells them, and learns from them.

mod growth;
mod node;
mod objects;
mod play;
mod rollout;

use capstan_crds::{Broker, Queue};
use e2e::cluster::SHORT;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;

use crate::fixture::{QUEUE, message, until_condition, until_nothing_is_retained};
use crate::stage::on_stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_retained_and_adopted_again() {
    on_stage("retained", async |stage, namespace| {
        namespace.apply(QUEUE).await;
        until_condition::<Queue>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        let send = serde_json::from_str(r#"{"body": {"id": 1}}"#).unwrap();
        let account = namespace.name.parse().unwrap();
        stage.broker.client().send(&account, &"orders".parse().unwrap(), &send).await.unwrap();
        namespace.kubectl(&["delete", "queue.capstan.dev", "orders"]).await;
        namespace
            .wait_for::<Broker>("default", "shows the retained queue", SHORT, |broker| {
                let retained = broker.status.as_ref().map_or(&[][..], |status| &status.retained_queues);
                match retained {
                    [one] if one.name == "orders" && one.messages == 1 => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        namespace.apply(QUEUE).await;
        namespace
            .wait_for::<Queue>("orders", "has its message again", SHORT, |queue| {
                let messages = queue.status.as_ref().and_then(|status| status.messages.as_ref());
                if messages.is_some_and(|m| m.ready == 1) { Ok(()) } else { Err(format!("{messages:?}")) }
            })
            .await;
        until_nothing_is_retained(namespace).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_broker_called_default_comes_by_itself() {
    on_stage("named", async |_, namespace| {
        let queue = format!("{QUEUE}spec: {{brokerRef: {{name: main}}}}\n");
        namespace.apply(&queue).await;
        until_condition::<Queue>(namespace, "orders", ("BrokerResolved", "False", "BrokerNotFound")).await;
        assert!(namespace.api::<Broker>().get_opt("main").await.unwrap().is_none());
        namespace
            .apply("apiVersion: capstan.dev/v1alpha1\nkind: Broker\nmetadata: {name: main}\nspec: {storage: {size: 20Gi}}\n")
            .await;
        until_condition::<Queue>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        let set = namespace.api::<StatefulSet>().get("capstan-main").await.unwrap();
        let claim = serde_json::to_value(&set.spec.volume_claim_templates.unwrap()[0]).unwrap();
        assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "20Gi");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_takes_from_a_broker_comes_back() {
    on_stage("drift", async |_, namespace| {
        namespace.apply(QUEUE).await;
        until_condition::<Broker>(namespace, "default", ("Ready", "True", "AsDeclared")).await;
        namespace.kubectl(&["delete", "service", "capstan-default-pods"]).await;
        namespace.kubectl(&["delete", "statefulset", "capstan-default"]).await;
        namespace
            .kubectl(&[
                "patch",
                "service",
                "capstan-default",
                "-p",
                r#"{"spec":{"ports":[{"port":80,"targetPort":1}]}}"#,
            ])
            .await;
        namespace.wait_for::<StatefulSet>("capstan-default", "is there again", SHORT, |_| Ok(())).await;
        namespace.wait_for::<Service>("capstan-default-pods", "is there again", SHORT, |_| Ok(())).await;
        namespace
            .wait_for::<Service>("capstan-default", "leads to the broker again", SHORT, |service| {
                let spec = serde_json::to_value(service.spec.as_ref().unwrap()).unwrap();
                let port = &spec["ports"][0]["targetPort"];
                if port == 9796 { Ok(()) } else { Err(format!("its target port is {port}")) }
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_broker_that_a_queue_uses_comes_back() {
    on_stage("again", async |_, namespace| {
        namespace.apply(QUEUE).await;
        let before: Broker = until_condition(namespace, "default", ("Ready", "True", "AsDeclared")).await;
        namespace.kubectl(&["delete", "broker.capstan.dev", "default"]).await;
        let after = namespace
            .wait_for::<Broker>("default", "is there anew", SHORT, |broker| {
                if broker.metadata.uid == before.metadata.uid {
                    Err("it is the old one".to_owned())
                } else {
                    Ok(())
                }
            })
            .await;
        namespace
            .wait_for::<StatefulSet>("capstan-default", "belongs to the new one", SHORT, |set| {
                let owners: Vec<_> =
                    set.metadata.owner_references.iter().flatten().map(|owner| &owner.uid).collect();
                if owners == [after.metadata.uid.as_ref().unwrap()] {
                    Ok(())
                } else {
                    Err(format!("{owners:?}"))
                }
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_objects_are_not_taken_over() {
    on_stage("foreign", async |_, namespace| {
        namespace.kubectl(&["create", "service", "clusterip", "capstan-default", "--tcp=80"]).await;
        namespace.apply(QUEUE).await;
        let broker: Broker = until_condition(namespace, "default", ("Ready", "False", "ApplyRefused")).await;
        assert!(message(&broker, "Ready").contains("Service capstan-default"));
        namespace.kubectl(&["delete", "service", "capstan-default"]).await;
        until_condition::<Broker>(namespace, "default", ("Ready", "True", "AsDeclared")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_refuses_is_shown_in_its_words() {
    on_stage("refused", async |_, namespace| {
        namespace.kubectl(&["create", "quota", "none", "--hard=count/statefulsets.apps=0"]).await;
        namespace
            .wait_for::<k8s_openapi::api::core::v1::ResourceQuota>("none", "is in force", SHORT, |quota| {
                let hard = quota.status.as_ref().and_then(|status| status.hard.as_ref());
                if hard.is_some() { Ok(()) } else { Err("not yet".to_owned()) }
            })
            .await;
        namespace.apply(QUEUE).await;
        let broker: Broker = until_condition(namespace, "default", ("Ready", "False", "ApplyRefused")).await;
        assert!(message(&broker, "Ready").contains("exceeded quota"), "{}", message(&broker, "Ready"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_store_is_told_everything_again() {
    on_stage("empty", async |stage, namespace| {
        namespace.apply(QUEUE).await;
        let before: Broker = until_condition(namespace, "default", ("Ready", "True", "AsDeclared")).await;
        let before = before.status.unwrap().incarnation;
        stage.replace_broker().await;
        namespace
            .wait_for::<Queue>("orders", "is in the new store", SHORT, |queue| {
                let incarnation =
                    queue.status.as_ref().and_then(|s| s.broker.as_ref()).map(|b| b.incarnation.clone());
                if incarnation.is_some() && incarnation != Some(before.clone()) {
                    Ok(())
                } else {
                    Err(format!("{incarnation:?}"))
                }
            })
            .await;
        until_condition::<Queue>(namespace, "orders", ("Ready", "True", "AsDeclared")).await;
        let state = stage.broker.control().state().await.unwrap();
        assert!(
            state.queues.iter().any(|queue| queue.name.as_str() == "orders" && !queue.retained),
            "{state:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_answer_is_unavailable() {
    on_stage("silent", async |stage, namespace| {
        namespace.apply(QUEUE).await;
        until_condition::<Broker>(namespace, "default", ("Ready", "True", "AsDeclared")).await;
        stage.restart_operator(&[("CAPSTAN_BROKER_CONTROL_URL", "http://127.0.0.1:1")]).await;
        let broker: Broker =
            until_condition(namespace, "default", ("Available", "False", "NotServing")).await;
        assert!(message(&broker, "Available").contains("capstan-default-0"));
        until_condition::<Queue>(namespace, "orders", ("Ready", "False", "BrokerUnavailable")).await;
        assert!(broker.status.unwrap().incarnation.is_some(), "what it said last is kept");
    })
    .await;
}
