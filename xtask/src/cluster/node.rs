//! A node: container runtime, kubelet and proxy.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::component::{self, inside};
use super::control_groups;
use super::place::{DNS_SERVICE, Place, node_address, node_name, pod_cidr};
use super::programs::Programs;
use crate::{images, run};

/// The image of every pod's first container.
const PAUSE: &str = "capstan-test/pause:1";
/// The container runtime's name for it.
const PAUSE_CANONICAL: &str = "docker.io/capstan-test/pause:1";
const CONTAINERD_START: Duration = Duration::from_secs(60);
/// Where distributions put the network plugins.
const PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// Starts a node. It is Ready some seconds later.
///
/// # Errors
/// A program does not start; shows its log.
pub fn start(place: &Place, programs: &Programs, node: u8) -> Result<()> {
    control_groups::make(place, node)?;
    configure(place, node)?;
    let (dir, pki) = (place.node(node), place.pki());
    let runtime = format!("containerd-{node}");
    component::start(
        place,
        &runtime,
        inside(place, node, "containerd").arg("--config").arg(dir.join("containerd.toml")),
    )?;
    component::wait(place, &runtime, CONTAINERD_START, || {
        run::output(ctr(place, node).arg("version")).is_ok()
    })?;
    load_pause(place, programs, node)?;
    let mut kubelet = inside(place, node, programs.path("kubelet"));
    kubelet
        .arg(format!("--config={}", dir.join("kubelet.json").display()))
        .arg(format!("--kubeconfig={}", place.kubeconfig(&format!("kubelet-{node}")).display()))
        .arg(format!("--hostname-override={}", node_name(node)))
        .arg(format!("--node-ip={}", node_address(node)))
        .arg(format!("--root-dir={}", dir.join("kubelet").display()))
        .arg(format!("--cert-dir={}", pki.join(format!("kubelet-{node}")).display()));
    component::start(place, &format!("kubelet-{node}"), &mut kubelet)?;
    let proxy = format!("--config={}", dir.join("proxy.json").display());
    component::start(
        place,
        &format!("kube-proxy-{node}"),
        inside(place, node, programs.path("kube-proxy")).arg(proxy),
    )
}

/// The names of a node's components, in the order in which they end: the kubelet starts others anew.
pub fn components(node: u8) -> [String; 3] {
    ["kubelet", "kube-proxy", "containerd"].map(|name| format!("{name}-{node}"))
}

/// The container runtime's client on a node.
fn ctr(place: &Place, node: u8) -> Command {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(place.containerd(node)).args(["--namespace", "k8s.io"]);
    command
}

/// Imports an image archive.
///
/// # Errors
/// The archive is none.
pub fn load(place: &Place, node: u8, archive: &Path) -> Result<()> {
    run::output(ctr(place, node).args(["images", "import"]).arg(archive))
        .map(drop)
        .with_context(|| format!("cannot load {} on {}", archive.display(), node_name(node)))
}

fn load_pause(place: &Place, programs: &Programs, node: u8) -> Result<()> {
    let archive = place.node(node).join("pause.tar");
    let bytes = images::archive(PAUSE, "pause", &programs.path("pause"))?;
    std::fs::write(&archive, bytes).with_context(|| format!("cannot write {}", archive.display()))?;
    load(place, node, &archive)
}

fn configure(place: &Place, node: u8) -> Result<()> {
    let dir = place.node(node);
    let Some(plugins) = PLUGINS.into_iter().find(|folder| Path::new(folder).join("ptp").exists()) else {
        bail!("no network plugins in {}: install containernetworking-plugins", PLUGINS.join(" or "));
    };
    for folder in ["cni", "volume-plugins"] {
        let folder = dir.join(folder);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    for (file, text) in [
        ("resolv.conf", format!("nameserver {}\n", node_address(0))),
        ("containerd.toml", containerd(place, node, plugins)),
        ("cni/10-pods.conflist", network(place, node).to_string()),
        ("kubelet.json", kubelet(place, node).to_string()),
        ("proxy.json", proxy(place, node).to_string()),
    ] {
        let path = dir.join(file);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Everything is in the node's folder, so that its end is the end of all.
fn containerd(place: &Place, node: u8, plugins: &str) -> String {
    let dir = place.node(node);
    let (dir, socket) = (dir.display(), place.containerd(node));
    format!(
        r#"version = 2
root = "{dir}/containerd/root"
state = "{dir}/containerd/state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_CANONICAL}"
  # Without CAP_SYS_RESOURCE no sandbox starts otherwise.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  Root = "{dir}/runc"
  SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{plugins}"
  conf_dir = "{dir}/cni"
"#,
        socket = socket.display()
    )
}

/// Pods are routed, not bridged: what they send to a Service passes the node's rules on its way back too, whether or not
/// this machine shows bridged packets to them.
fn network(place: &Place, node: u8) -> serde_json::Value {
    json!({
        "cniVersion": "0.4.0",
        "name": place.label(node),
        "plugins": [
            {
                "type": "ptp", "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": place.node(node).join("addresses"),
                    "ranges": [[{"subnet": pod_cidr(node)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn kubelet(place: &Place, node: u8) -> serde_json::Value {
    let (dir, pki) = (place.node(node), place.pki());
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node_address(node),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki.join("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki.join(format!("kubelet-server-{node}.crt")),
        "tlsPrivateKeyFile": pki.join(format!("kubelet-server-{node}.key")),
        "containerRuntimeEndpoint": format!("unix://{}", place.containerd(node).display()),
        "cgroupDriver": "cgroupfs",
        // A root for each kubelet, or they end each other's pods.
        "cgroupRoot": control_groups::root(place, node),
        "failCgroupV1": false,
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "resolvConf": dir.join("resolv.conf"),
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "maxOpenFiles": 20000,
        "maxPods": 60,
        "evictionHard": {
            "memory.available": "200Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%",
        },
        // There is no registry: an image that is collected never comes back.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "nodeStatusUpdateFrequency": "4s",
        "syncFrequency": "10s",
        "volumePluginDir": dir.join("volume-plugins"),
        "podLogsDir": dir.join("pod-logs"),
    })
}

fn proxy(place: &Place, node: u8) -> serde_json::Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": place.kubeconfig("proxy")},
        "mode": "iptables",
        "clusterCIDR": "10.244.0.0/16",
        "hostnameOverride": node_name(node),
        "bindAddress": node_address(node),
        "oomScoreAdj": 0,
        // None of these can be set in a network namespace.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}

#[cfg(test)]
mod tests {
    use super::super::place::Kind;
    use super::*;

    #[test]
    fn a_runtime_keeps_all_it_has_in_its_folder() {
        let place = Place::under(Path::new("/cache"), Kind::Nodes);
        let text = containerd(&place, 1, "/usr/lib/cni");
        let paths: Vec<&str> = text.split('"').filter(|part| part.starts_with('/')).collect();
        assert_eq!(paths.len(), 7, "{paths:?}");
        let outside: Vec<_> =
            paths.iter().filter(|path| !Path::new(path).starts_with(place.node(1))).collect();
        assert_eq!(outside, [&"/usr/lib/cni"]);
    }

    #[test]
    fn nodes_share_nothing() {
        let place = Place::under(Path::new("/cache"), Kind::Nodes);
        let (first, second) = (kubelet(&place, 0), kubelet(&place, 1));
        for field in ["address", "cgroupRoot", "containerRuntimeEndpoint", "tlsCertFile", "podLogsDir"] {
            assert!(first[field].is_string(), "{field}");
            assert_ne!(first[field], second[field], "{field}");
        }
    }
}
