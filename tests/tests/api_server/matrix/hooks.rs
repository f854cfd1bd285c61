//! `sidecar.appPreStop: Inject` in the template: the one case in which a deploy is refused because of a sidecar, and its way out.

use capstan_crds::Consumer;
use e2e::cluster::{Namespace, SHORT, tool};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::fixture::{APPLICATION, CONSUMER, QUEUE, until_injected};
use crate::stage::on_stage;

/// Of the only container.
fn hook(deployment: &Deployment) -> Value {
    let pod = deployment.spec.template.spec.as_ref().unwrap();
    json!(pod.containers[0].lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()))
}

async fn until_hook(namespace: &Namespace, wanted: &Value) -> Deployment {
    let check = |deployment: &Deployment| match hook(deployment) {
        found if found == *wanted => Ok(()),
        found => Err(format!("it has {found}")),
    };
    namespace.wait_for::<Deployment>("orders", &format!("has the hook {wanted}"), SHORT, check).await
}

async fn apply(namespace: &Namespace, more: &[&str], manifest: &str) -> Result<String, String> {
    let arguments = [&["-n", &namespace.name, "apply"], more, &["-f", "-"]].concat();
    tool::execute("kubectl", &arguments, Some(manifest)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_in_the_template_is_in_the_way_of_the_users_own_until_it_is_taken_back() {
    on_stage("hooks", async |_, namespace| {
        let inject = format!("{CONSUMER}  sidecar: {{appPreStop: Inject}}\n");
        let own = APPLICATION.replace(
            "image: example.com/app:1",
            "image: example.com/app:1\n        lifecycle: {preStop: {exec: {command: [sleep, '5']}}}",
        );
        let ours = json!({"httpGet": {"path": "/quiesce", "port": 9798, "scheme": "HTTP"}});
        let theirs = json!({"exec": {"command": ["sleep", "5"]}});
        namespace.apply(&[QUEUE, &inject, APPLICATION].join("---")).await;
        until_hook(namespace, &ours).await;
        // Other changes work.
        for more in [&[][..], &["--server-side", "--force-conflicts"]] {
            apply(namespace, more, &APPLICATION.replace("example.com/app:1", "example.com/app:2"))
                .await
                .unwrap();
            until_hook(namespace, &ours).await;
            // Known, and said in the field's description and in docs/gitops.md.
            let refused = apply(namespace, more, &own).await.unwrap_err();
            assert!(refused.contains("may not specify more than 1 handler type"), "{more:?}: {refused}");
        }
        namespace.apply(CONSUMER).await;
        until_hook(namespace, &Value::Null).await;
        apply(namespace, &[], &own).await.unwrap();
        until_hook(namespace, &theirs).await;
        // A hook of the user's own stays, whatever the Consumer asks for.
        namespace.apply(&inject).await;
        until_injected(namespace, "orders", true).await;
        until_hook(namespace, &theirs).await;
        namespace.api::<Consumer>().delete("orders", &DeleteParams::default()).await.unwrap();
        until_injected(namespace, "orders", false).await;
        until_hook(namespace, &theirs).await;
    })
    .await;
}
