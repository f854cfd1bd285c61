//! etcd, the API server, the controller manager and the scheduler.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::component::{self, inside};
use super::pki::TOKENS;
use super::place::{CONTROL_PLANE, Place, SERVICE_CIDR};
use super::programs::Programs;
use crate::run;

const ETCD: &str = "http://127.0.0.1:2379";
/// Longest start of the API server on a busy machine.
const API_SERVER_START: Duration = Duration::from_secs(120);

/// Starts everything; returns when the API server is ready.
///
/// # Errors
/// A program does not start; shows its log.
pub fn start(place: &Place, programs: &Programs) -> Result<()> {
    component::start(place, "etcd", inside(place, 0, programs.path("etcd")).args(etcd(place)))?;
    component::start(
        place,
        "kube-apiserver",
        inside(place, 0, programs.path("kube-apiserver")).args(api_server(place)),
    )?;
    component::wait(place, "kube-apiserver", API_SERVER_START, || {
        run::output(kubectl(place, programs).args(["get", "--raw", "/readyz"])).is_ok()
    })?;
    for (name, arguments) in [
        ("kube-controller-manager", controller_manager(place)),
        ("kube-scheduler", as_user(place, "scheduler")),
    ] {
        component::start(place, name, inside(place, 0, programs.path(name)).args(arguments))?;
    }
    Ok(())
}

/// kubectl as the cluster's administrator.
pub fn kubectl(place: &Place, programs: &Programs) -> Command {
    let mut command = inside(place, 0, programs.path("kubectl"));
    command.env("KUBECONFIG", place.kubeconfig("admin"));
    command
}

fn etcd(place: &Place) -> Vec<String> {
    let peers = "http://127.0.0.1:2380";
    let data = place.state().join("etcd");
    vec![
        format!("--data-dir={}", data.display()),
        "--name=test".to_owned(),
        // What is stored lives no longer than the machine runs.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=test={peers}"),
    ]
}

fn api_server(place: &Place) -> Vec<String> {
    let pki = |name: &str| place.pki().join(name).display().to_string();
    vec![
        format!("--etcd-servers={ETCD}"),
        format!("--advertise-address={CONTROL_PLANE}"),
        "--secure-port=6443".to_owned(),
        format!("--service-cluster-ip-range={SERVICE_CIDR}"),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", pki(&format!("{TOKENS}.pub"))),
        format!("--service-account-signing-key-file={}", pki(&format!("{TOKENS}.key"))),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--kubelet-client-certificate={}", pki("apiserver-client.crt")),
        format!("--kubelet-client-key={}", pki("apiserver-client.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--requestheader-client-ca-file={}", pki("front-proxy-ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        format!("--proxy-client-cert-file={}", pki("front-proxy-client.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy-client.key")),
        // Webhooks and aggregated APIs are called by endpoint, so they work without a kube-proxy.
        "--enable-aggregator-routing=true".to_owned(),
        "--profiling=false".to_owned(),
    ]
}

fn controller_manager(place: &Place) -> Vec<String> {
    let pki = |name: &str| place.pki().join(name).display().to_string();
    let mut arguments = as_user(place, "controller-manager");
    arguments.extend([
        format!("--service-account-private-key-file={}", pki(&format!("{TOKENS}.key"))),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        "--use-service-account-credentials=true".to_owned(),
        // A lost node is noticed within a test's patience.
        "--node-monitor-period=2s".to_owned(),
        "--node-monitor-grace-period=20s".to_owned(),
        "--horizontal-pod-autoscaler-sync-period=5s".to_owned(),
        // By default it starts its own controllers at the pace of 20 requests a second, which takes 5 s.
        "--kube-api-qps=200".to_owned(),
        "--kube-api-burst=400".to_owned(),
    ]);
    arguments
}

fn as_user(place: &Place, user: &str) -> Vec<String> {
    let config = place.kubeconfig(user).display().to_string();
    vec![
        format!("--kubeconfig={config}"),
        format!("--authentication-kubeconfig={config}"),
        format!("--authorization-kubeconfig={config}"),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        "--profiling=false".to_owned(),
    ]
}
