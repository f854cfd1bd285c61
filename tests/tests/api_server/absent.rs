//! A broker that is away for five minutes, with everything there is to do gone meanwhile: nothing changes until it is back.

use std::time::Duration;

use capstan_crds::{Broker, Consumer, Key};
use e2e::cluster::{Namespace, SHORT, tool, until};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use crate::field::beside_others;
use crate::fixture::{APPLICATION, QUEUE, message, until_condition};
use crate::scaling::consumer;

/// Without an outage pods would go within seconds.
const SCALING: &str =
    "{minReplicas: 0, maxReplicas: 5, backlogPerReplica: 10, scaleDownStabilization: 0s, idlePeriod: 10s}";
/// How long the broker is away.
const OUTAGE: Duration = Duration::from_secs(300);

async fn until_replicas(namespace: &Namespace, wanted: i32) {
    let check = |deployment: &Deployment| {
        let found = deployment.spec.replicas;
        if found == Some(wanted) { Ok(()) } else { Err(format!("{found:?} replicas")) }
    };
    namespace.wait_for::<Deployment>("orders", &format!("has {wanted} replicas"), SHORT, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_minutes_without_the_broker_change_nothing() {
    beside_others("away", async |field, own| {
        let _operator = field.operator(&[]).await;
        let namespace = field.namespace();
        let kubeconfig = format!("--kubeconfig={}", own.kubeconfig().display());
        let apply = [kubeconfig.as_str(), "-n", &namespace.name, "apply", "-f", "-"];
        let objects = [QUEUE, APPLICATION, &consumer(SCALING)].join("---");
        tool::execute("kubectl", &apply, Some(&objects)).await.unwrap();
        let key = Key::new(&namespace.name, "orders");
        field.plane.script(|script| script.say(key.clone(), json!({"ready": 25})));
        until_replicas(&namespace, 3).await;
        field.plane.script(|script| {
            script.be_silent(true);
            script.say(key, json!({}));
        });
        let held: Consumer =
            until_condition(&namespace, "orders", ("ScalingActive", "False", "BrokerUnavailable")).await;
        let text = message(&held, "ScalingActive");
        assert!(text.contains("stays as it is") && text.contains("Available"), "{text}");
        until("the broker was asked in vain for five minutes", OUTAGE + SHORT, async || {
            let deployment = namespace.api::<Deployment>().get("orders").await.map_err(|e| e.to_string())?;
            assert_eq!(deployment.spec.replicas, Some(3));
            let asked = field.plane.script(|script| script.unanswered());
            if asked >= OUTAGE { Ok(()) } else { Err(format!("last after {} s", asked.as_secs())) }
        })
        .await;
        let broker: Broker =
            until_condition(&namespace, "default", ("Available", "False", "NotServing")).await;
        println!("the Broker: {}", message(&broker, "Available"));
        field.plane.script(|script| script.be_silent(false));
        until_replicas(&namespace, 0).await;
        until_condition::<Consumer>(&namespace, "orders", ("ScalingActive", "True", "FollowsDemand")).await;
    })
    .await;
}
