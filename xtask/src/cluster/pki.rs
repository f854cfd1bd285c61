//! Keys, certificates and kubeconfigs of a cluster, made by openssl.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::place::{API_SERVICE, CONTROL_PLANE, Place, node_address, node_name};
use crate::run;

/// A cluster lives for a test run; its certificates for as long as anyone keeps one.
const DAYS: &str = "365";
/// The authority of everything but aggregated APIs.
const CA: &str = "ca";
/// The authority of the API server as a proxy.
const FRONT_PROXY_CA: &str = "front-proxy-ca";
/// Signs and verifies tokens of service accounts.
pub const TOKENS: &str = "service-accounts";

/// Users of the API server: file name, name, group.
const USERS: [(&str, &str, Option<&str>); 5] = [
    ("admin", "admin", Some("system:masters")),
    ("controller-manager", "system:kube-controller-manager", None),
    ("scheduler", "system:kube-scheduler", None),
    ("proxy", "system:kube-proxy", None),
    ("dns", "dns", Some("system:masters")),
];

/// Makes everything for a cluster of `nodes` nodes.
///
/// # Errors
/// openssl is missing or refuses.
pub fn make(place: &Place, nodes: u8) -> Result<()> {
    let folder = place.pki();
    authority(&folder, CA)?;
    authority(&folder, FRONT_PROXY_CA)?;
    openssl(&folder, &["genrsa", "-out", &format!("{TOKENS}.key"), "2048"])?;
    openssl(&folder, &["rsa", "-in", &format!("{TOKENS}.key"), "-pubout", "-out", &format!("{TOKENS}.pub")])?;
    let names = "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
                 DNS:kubernetes.default.svc.cluster.local";
    let names = format!("IP:127.0.0.1,IP:{API_SERVICE},IP:{CONTROL_PLANE},{names}");
    certificate(&folder, "apiserver", CA, "/CN=kube-apiserver", Some(&names))?;
    certificate(&folder, "apiserver-client", CA, "/O=system:masters/CN=kube-apiserver", None)?;
    certificate(&folder, "front-proxy-client", FRONT_PROXY_CA, "/CN=front-proxy-client", None)?;
    for (file, user, group) in USERS {
        let group = group.map(|group| format!("/O={group}")).unwrap_or_default();
        certificate(&folder, file, CA, &format!("{group}/CN={user}"), None)?;
        kubeconfig(place, file)?;
    }
    for node in 0..nodes {
        let (name, address) = (node_name(node), node_address(node));
        let subject = format!("/O=system:nodes/CN=system:node:{name}");
        let names = format!("IP:127.0.0.1,IP:{address},DNS:{name}");
        certificate(&folder, &format!("kubelet-server-{node}"), CA, &subject, Some(&names))?;
        let client = format!("kubelet-{node}");
        certificate(&folder, &client, CA, &subject, None)?;
        kubeconfig(place, &client)?;
    }
    Ok(())
}

fn authority(folder: &Path, name: &str) -> Result<()> {
    let (key, file) = (format!("{name}.key"), format!("{name}.crt"));
    openssl(folder, &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key])?;
    let subject = format!("/CN=capstan-test-{name}");
    openssl(folder, &["req", "-x509", "-new", "-key", &key, "-subj", &subject, "-days", DAYS, "-out", &file])
}

/// A certificate for a server with names, or for a client without.
fn certificate(folder: &Path, name: &str, ca: &str, subject: &str, names: Option<&str>) -> Result<()> {
    let file = |kind: &str| format!("{name}.{kind}");
    let usage = if names.is_some() { "serverAuth" } else { "clientAuth" };
    let mut extensions = format!("keyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage={usage}\n");
    if let Some(names) = names {
        extensions.push_str(&format!("subjectAltName={names}\n"));
    }
    let path = folder.join(file("ext"));
    std::fs::write(&path, extensions).with_context(|| format!("cannot write {}", path.display()))?;
    openssl(folder, &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &file("key")])?;
    openssl(folder, &["req", "-new", "-key", &file("key"), "-subj", subject, "-out", &file("csr")])?;
    let (ca, ca_key) = (format!("{ca}.crt"), format!("{ca}.key"));
    let signing = ["x509", "-req", "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", DAYS];
    let files = ["-in", &file("csr"), "-extfile", &file("ext"), "-out", &file("crt")];
    openssl(folder, &[&signing[..], &files[..]].concat())
}

fn openssl(folder: &Path, arguments: &[&str]) -> Result<()> {
    run::output(Command::new("openssl").current_dir(folder).args(arguments)).map(drop)
}

/// Writes the kubeconfig of a user that has a certificate.
fn kubeconfig(place: &Place, user: &str) -> Result<()> {
    let path = place.kubeconfig(user);
    std::fs::write(&path, render(&place.pki(), user))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn render(pki: &Path, user: &str) -> String {
    let file = |name: &str| pki.join(name).display().to_string();
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://{CONTROL_PLANE}:6443"),
            "certificate-authority": file(&format!("{CA}.crt")),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate": file(&format!("{user}.crt")),
            "client-key": file(&format!("{user}.key")),
        }}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        "current-context": "test",
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_names_the_files_of_its_user() {
        let text = render(Path::new("/pki"), "admin");
        for part in ["https://10.10.0.1:6443", "/pki/ca.crt", "/pki/admin.crt", "/pki/admin.key"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
