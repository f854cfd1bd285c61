//! `updatePolicy: Rolling` where sidecars come by admission: pods with an older sidecar are replaced once for a new one, two
//! workloads at a time, and never twice.

mod play;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, resume_unwind};

use capstan_crds::Consumer;
use e2e::cluster::{LONG, Namespace, SHORT, condition, until};
use futures::FutureExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use self::play::{sidecar_images, until_given, until_settled};
use crate::fixture::{APPLICATION, CONSUMER, Conditions, QUEUE, message, until_condition};
use crate::stage::{BY_ADMISSION, on_stage_with, sidecar_policy};

/// Workloads that ask for the newest sidecar.
const ROLLING: [&str; 5] = ["one", "two", "three", "four", "five"];
/// One that does not.
const STAYING: &str = "staying";
/// Workloads that may roll at once.
const AT_ONCE: usize = 2;
/// The tag of the newer sidecar.
const NEXT: &str = "next";
/// An operator of that version.
const NEWER: [(&str, &str); 2] = [BY_ADMISSION, ("CAPSTAN_SIDECAR_IMAGE", "capstan/sidecar:next")];

type Generations = BTreeMap<&'static str, i64>;

/// A Queue, a Consumer and a Deployment with one pod.
fn objects(name: &str, policy: &str) -> String {
    let consumer = format!("{CONSUMER}  sidecar: {{updatePolicy: {policy}}}\n");
    let application =
        APPLICATION.replace("replicas: 0", "replicas: 1").replace("app: orders", &format!("app: {name}"));
    [QUEUE, &consumer, &application].join("---").replace("name: orders", &format!("name: {name}"))
}

async fn generations(namespace: &Namespace, names: &[&'static str]) -> Generations {
    let mut found = Generations::new();
    for name in names {
        let deployment = namespace.api::<Deployment>().get(name).await.unwrap();
        found.insert(name, deployment.metadata.generation.unwrap());
    }
    found
}

/// Those of a number of workloads whose template has changed since.
async fn begun(namespace: &Namespace, before: &Generations) -> BTreeSet<&'static str> {
    let names: Vec<&str> = before.keys().copied().collect();
    let now = generations(namespace, &names).await;
    before.keys().copied().filter(|name| now[name] > before[name]).collect()
}

/// Waits until a Consumer says so many pods with the newest sidecar, and with an older one.
async fn until_counted(namespace: &Namespace, name: &str, updated: u32, outdated: u32) -> Consumer {
    let check = |consumer: &Consumer| {
        let sidecar = consumer.status.as_ref().and_then(|status| status.sidecar.as_ref());
        let Some(sidecar) = sidecar else { return Err("nothing is counted".to_owned()) };
        let is_so = (sidecar.updated, sidecar.outdated, sidecar.missing) == (updated, outdated, 0);
        if is_so && sidecar.mode == "Admission" { Ok(()) } else { Err(format!("{sidecar:?}")) }
    };
    let what = format!("counts {updated} new and {outdated} old sidecars");
    namespace.wait_for::<Consumer>(name, &what, LONG, check).await
}

/// Has the operator look at a workload, and waits until it has.
async fn look(namespace: &Namespace, name: &str) -> Consumer {
    let consumers = namespace.api::<Consumer>();
    let retries = consumers.get(name).await.unwrap().spec.max_retries + 1;
    let patch = Patch::Merge(json!({"spec": {"maxRetries": retries}}));
    let changed = consumers.patch(name, &PatchParams::default(), &patch).await.unwrap();
    let check = |consumer: &Consumer| {
        condition(consumer.conditions(), changed.metadata.generation, "SidecarsInjected", "True")
    };
    namespace.wait_for::<Consumer>(name, "was looked at", SHORT, check).await
}

/// Creates everything, and lets all pods be ready.
async fn open(namespace: &Namespace, names: &[&'static str]) -> Generations {
    for name in names {
        let policy = if *name == STAYING { "OnRestart" } else { "Rolling" };
        namespace.apply(&objects(name, policy)).await;
    }
    for name in names {
        until_condition::<Consumer>(namespace, name, ("TargetResolved", "True", "Resolved")).await;
        // Marked, and rolled out with the sidecar.
        until(&format!("{name} is marked"), SHORT, async || {
            let generation = namespace.api::<Deployment>().get(name).await.unwrap().metadata.generation;
            if generation > Some(1) { Ok(()) } else { Err(format!("{generation:?}")) }
        })
        .await;
        until_settled(namespace, name).await;
        until_counted(namespace, name, 1, 0).await;
    }
    generations(namespace, names).await
}

/// Runs a test while the cluster's policy gives pods the sidecar of a tag.
async fn with_sidecar(namespace: &Namespace, workload: &str, tag: &str, test: impl AsyncFnOnce()) {
    sidecar_policy(Some(tag)).await;
    until_given(namespace, workload, &format!("capstan/sidecar:{tag}")).await;
    let result = AssertUnwindSafe(test()).catch_unwind().await;
    sidecar_policy(None).await;
    until_given(namespace, workload, "capstan/sidecar:0.1.0").await;
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn older_sidecars_are_replaced_once_two_workloads_at_a_time() {
    on_stage_with("rolling", &[BY_ADMISSION], async |stage, namespace| {
        let names: Vec<&str> = ROLLING.into_iter().chain([STAYING]).collect();
        let before = open(namespace, &names).await;
        with_sidecar(namespace, STAYING, NEXT, async || {
            stage.restart_operator(&NEWER).await;
            let mut left: Generations = before.clone();
            left.remove(STAYING);
            let mut finished = 0;
            while !left.is_empty() {
                let rolling = until_so_many_roll(namespace, &left).await;
                if finished == 1 {
                    // The next operator takes over what the one before began.
                    stage.restart_operator(&NEWER).await;
                }
                others_wait(namespace, &left, &rolling).await;
                let done = *rolling.first().unwrap();
                until_settled(namespace, done).await;
                until_counted(namespace, done, 1, 0).await;
                left.remove(done);
                finished += 1;
            }
            assert_eq!(finished, ROLLING.len());
            until_counted(namespace, STAYING, 0, 1).await;
            never_twice(namespace, &before).await;
            stage.restart_operator(&NEWER).await;
            never_twice(namespace, &before).await;
        })
        .await;
    })
    .await;
}

/// Waits until as many of those that are left roll as may, while the operator looks at the others again and again.
async fn until_so_many_roll(namespace: &Namespace, left: &Generations) -> BTreeSet<&'static str> {
    let wanted = AT_ONCE.min(left.len());
    until(&format!("{wanted} workloads roll"), LONG, async || {
        let rolling = begun(namespace, left).await;
        assert!(rolling.len() <= AT_ONCE, "more than {AT_ONCE} roll at once: {rolling:?}");
        if rolling.len() == wanted {
            return Ok(rolling);
        }
        for name in left.keys().filter(|name| !rolling.contains(*name)) {
            look(namespace, name).await;
        }
        Err(format!("{rolling:?} do"))
    })
    .await
}

/// The others are looked at, and do not begin.
async fn others_wait(namespace: &Namespace, left: &Generations, rolling: &BTreeSet<&'static str>) {
    for name in left.keys().filter(|name| !rolling.contains(*name)) {
        let consumer = look(namespace, name).await;
        let text = message(&consumer, "SidecarsInjected");
        assert!(text.contains("1 an older one: other workloads roll first"), "{name}: {text}");
    }
    assert_eq!(begun(namespace, left).await, *rolling, "no other has begun");
}

/// Each has been rolled once for the new sidecar, if it asked for it, and however often the operator looks.
async fn never_twice(namespace: &Namespace, before: &Generations) {
    for name in before.keys() {
        look(namespace, name).await;
    }
    let names: Vec<&str> = before.keys().copied().collect();
    for (name, generation) in generations(namespace, &names).await {
        assert_eq!(generation - before[name], i64::from(name != STAYING), "rollouts of {name}");
        let images = sidecar_images(namespace, name).await;
        let expected = if name == STAYING { "capstan/sidecar:0.1.0" } else { "capstan/sidecar:next" };
        assert_eq!(images, [expected], "{name}");
    }
}

/// An operator that is upgraded without the policy, which its chart has too.
#[tokio::test(flavor = "multi_thread")]
async fn pods_that_come_with_an_older_sidecar_all_the_same_are_not_replaced_again() {
    on_stage_with("held", &[BY_ADMISSION], async |stage, namespace| {
        let before = open(namespace, &["one"]).await;
        for round in 0..2 {
            stage.restart_operator(&NEWER).await;
            until("it is rolled", SHORT, async || {
                let now = begun(namespace, &before).await;
                if now.is_empty() { Err("not yet".to_owned()) } else { Ok(()) }
            })
            .await;
            until_settled(namespace, "one").await;
            until_counted(namespace, "one", 0, 1).await;
            let consumer = look(namespace, "one").await;
            let text = message(&consumer, "SidecarsInjected");
            assert!(text.contains("gives pods another image than this operator's"), "{text}");
            assert_eq!(generations(namespace, &["one"]).await["one"], before["one"] + 1, "round {round}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_somebody_paused_is_waited_for_and_said() {
    on_stage_with("paused", &[BY_ADMISSION], async |_, namespace| {
        let all = objects("one", "Rolling");
        let (queue, rest) = all.split_once("---").unwrap();
        let (consumer, application) = rest.split_once("---").unwrap();
        namespace.apply(&[queue, application].join("---")).await;
        until_settled(namespace, "one").await;
        namespace.kubectl(&["rollout", "pause", "deployment/one"]).await;
        namespace.apply(consumer).await;
        let waiting: Consumer =
            until_condition(namespace, "one", ("SidecarsInjected", "False", "RollingOut")).await;
        let text = message(&waiting, "SidecarsInjected");
        assert!(text.contains("0 of 1 pods") && text.contains("kubectl rollout resume"), "{text}");
        namespace.kubectl(&["rollout", "resume", "deployment/one"]).await;
        until_settled(namespace, "one").await;
        until_condition::<Consumer>(namespace, "one", ("SidecarsInjected", "True", "Injected")).await;
        until_counted(namespace, "one", 1, 0).await;
    })
    .await;
}
