//! What is told when a test failed: objects, conditions, events and logs.

use super::{OPERATOR_NAMESPACE, tool};

/// Lines of each container's log.
const TAIL: &str = "--tail=80";

/// Prints the state of a namespace and of the operator.
pub(super) async fn tell(namespace: &str) {
    println!("---- what the cluster looks like after the failure ----");
    let here = ["-n", namespace];
    for arguments in [
        &["get", "pods,deployments,replicasets,statefulsets,services,pvc", "-o", "wide"][..],
        &["get", "capq,capc,capb", "-o", "yaml"],
        &["get", "events", "--sort-by=.metadata.creationTimestamp"],
    ] {
        print("kubectl", &[&here, arguments].concat()).await;
    }
    let names = tool::execute("kubectl", &[&here[..], &["get", "pods", "-o", "name"]].concat(), None).await;
    for pod in names.unwrap_or_default().lines() {
        print("kubectl", &[&here[..], &["logs", pod, "--all-containers", "--prefix", TAIL]].concat()).await;
    }
    let operator = ["-n", OPERATOR_NAMESPACE];
    print("kubectl", &[&operator[..], &["get", "pods,events"]].concat()).await;
    let selector = ["logs", "--selector=app.kubernetes.io/name=capstan", "--prefix", TAIL];
    print("kubectl", &[&operator[..], &selector].concat()).await;
    println!("---- end ----");
}

async fn print(program: &str, arguments: &[&str]) {
    let (Ok(text) | Err(text)) = tool::execute(program, arguments, None).await;
    println!("{text}");
}
