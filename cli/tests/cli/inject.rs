//! `capstan inject` and `capstan uninject`, on manifests as users have them.

use serde_json::Value;

use crate::support::{run, run_with, yaml};

const QUEUE: &str = "{apiVersion: capstan.dev/v1alpha1, kind: Queue, metadata: {name: orders}}\n";
const CONSUMER: &str = "{apiVersion: capstan.dev/v1alpha1, kind: Consumer, metadata: {name: orders}, \
    spec: {queueRef: {name: orders}, targetRef: {kind: Deployment, name: orders}}}\n";
const WORKLOADS: &str = "# The application.
apiVersion: apps/v1
kind: Deployment
metadata: {name: orders}
spec:
  selector: {matchLabels: {app: orders}}
  template:
    metadata: {labels: {app: orders}}
    spec:
      terminationGracePeriodSeconds: 90
      containers: [{name: app, image: 'example.com/app:1'}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: other}   # stays as it is
spec:
  selector: {matchLabels: {app: other}}
  template:
    metadata: {labels: {app: other}}
    spec: {containers: [{name: app, image: 'example.com/app:1'}]}
";

fn documents(text: &str) -> Vec<Value> {
    let all = text.split("---\n").map(|document| serde_yaml::from_str::<Value>(document).unwrap());
    all.filter(|document| !document.is_null()).collect()
}

#[test]
fn workloads_that_consumers_name_get_the_sidecar_and_lose_it_again() {
    let text = [QUEUE, CONSUMER, WORKLOADS].join("---\n");
    let done = run_with(&["inject", "-f", "-", "--namespace", "shop"], &text);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{done:?}");
    let all = documents(&done.out);
    assert_eq!(all.len(), 4);
    let pod = &all[2]["spec"]["template"]["spec"];
    let sidecar = &pod["initContainers"][0];
    assert_eq!((&sidecar["name"], &sidecar["restartPolicy"]), (&"capstan".into(), &"Always".into()));
    let image = concat!("capstan/sidecar:", env!("CARGO_PKG_VERSION"));
    assert_eq!(sidecar["image"], image);
    let variables = sidecar["env"].as_array().unwrap();
    let variable = |name: &str| &variables.iter().find(|one| one["name"] == name).unwrap()["value"];
    assert_eq!(variable("CAPSTAN_BROKER_URL"), "http://capstan-default.shop.svc");
    assert_eq!(variable("CAPSTAN_DRAIN_SECONDS"), "85");
    assert!(done.out.contains("metadata: {name: other}   # stays as it is"), "{}", done.out);

    let again = run_with(&["inject", "-f", "-", "--namespace", "shop"], &done.out);
    assert_eq!(again.out, done.out, "once more changes nothing");
    let without = run_with(&["uninject", "-f", "-"], &done.out);
    assert_eq!(documents(&without.out), documents(&text));
}

#[test]
fn queues_may_be_elsewhere() {
    let (files, with) = (yaml(WORKLOADS), yaml(&[QUEUE, CONSUMER].join("---\n")));
    let (files, with) = (files.path().to_str().unwrap(), with.path().to_str().unwrap());
    let done = run(&[
        "inject",
        "-f",
        files,
        "--with",
        with,
        "-n",
        "shop",
        "--sidecar-image",
        "example.com/s@sha256:ab",
    ]);
    assert_eq!(documents(&done.out).len(), 2, "{done:?}");
    assert!(done.out.contains("image: example.com/s@sha256:ab"), "{}", done.out);
    let text = [CONSUMER, WORKLOADS].join("---\n");
    let done = run_with(&["inject", "-f", "-", "-n", "shop", "--broker", "main"], &text);
    assert!(done.out.contains("http://capstan-main.shop.svc"), "{done:?}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let host = WORKLOADS.replacen("      containers", "      hostNetwork: true\n      containers", 1);
    for (text, more, code, part) in [
        ([QUEUE, CONSUMER, WORKLOADS].join("---\n"), &[][..], 64, "--namespace"),
        ([CONSUMER, WORKLOADS].join("---\n"), &["-n", "shop"], 1, "--with"),
        (WORKLOADS.to_owned(), &["-n", "shop"], 1, "no Consumer"),
        ([QUEUE, CONSUMER].join("---\n"), &["-n", "shop"], 1, "Deployment/orders of Consumer orders"),
        ([QUEUE, CONSUMER, &host].join("---\n"), &["-n", "shop"], 1, "hostNetwork"),
        ("a: [".to_owned(), &["-n", "shop"], 1, "not valid YAML"),
        (
            [QUEUE, &CONSUMER.replace("Deployment", "Pod"), WORKLOADS].join("---\n"),
            &["-n", "shop"],
            1,
            "targetRef.kind",
        ),
    ] {
        let done = run_with(&[&["inject", "-f", "-"], more].concat(), &text);
        assert_eq!((done.code, done.out.as_str()), (Some(code), ""), "{part}: {done:?}");
        assert!(done.err.contains(part), "{part}: {}", done.err);
    }
}
