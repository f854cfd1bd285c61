//! Debian's packages: found by what they bring, so that other systems may bring it in their own way.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::progress::Progress;
use crate::run;

/// A package and the files of which one is there when it is installed; names without `/` are programs.
struct Package {
    name: &'static str,
    proof: &'static [&'static str],
}

const fn package(name: &'static str, proof: &'static [&'static str]) -> Package {
    Package { name, proof }
}

/// For other people's clients, and for programs whose clock is stepped.
const CLIENTS: &[Package] = &[
    package("python3", &["python3"]),
    package("python3-venv", &[PYTHON_VENV]),
    package("faketime", &["faketime"]),
];
/// Part of Debian's python3-venv; elsewhere it comes with Python. Asked of Python itself.
const PYTHON_VENV: &str = "python3:ensurepip";

/// For a cluster of our own.
const CLUSTER: &[Package] = &[
    package("containerd", &["containerd"]),
    package("runc", &["runc"]),
    package("containernetworking-plugins", &["/usr/lib/cni/bridge", "/opt/cni/bin/bridge"]),
    package("iptables", &["iptables"]),
    package("conntrack", &["conntrack"]),
    package("iproute2", &["ip"]),
    package("openssl", &["openssl"]),
    package("util-linux", &["nsenter"]),
    package("mount", &["mount"]),
    package("e2fsprogs", &["mkfs.ext4"]),
];

/// What the benchmark compares with; no test needs it.
const REDIS: &[Package] = &[package("redis-server", &["redis-server"])];
const POSTGRES: &[Package] = &[package("postgresql", &["/usr/lib/postgresql", "postgres"])];

/// Installs what the tests need and is missing.
///
/// # Errors
/// Something is missing and this is not Debian, or not root; or the installation fails.
pub fn install(clients: bool, cluster: bool, progress: &mut Progress) -> Result<()> {
    install_of(&[(clients, CLIENTS), (cluster, CLUSTER)], progress)
}

/// Installs the servers that the benchmark needs and are missing.
///
/// # Errors
/// As [`install`].
pub fn install_peers(redis: bool, postgres: bool, progress: &mut Progress) -> Result<()> {
    install_of(&[(redis, REDIS), (postgres, POSTGRES)], progress)
}

fn install_of(wanted: &[(bool, &'static [Package])], progress: &mut Progress) -> Result<()> {
    let wanted = wanted.iter().filter(|(is_wanted, _)| *is_wanted).flat_map(|(_, packages)| *packages);
    let missing: Vec<&str> =
        wanted.filter(|package| !is_there(package)).map(|package| package.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if find("apt-get").is_none() {
        bail!("these are missing, by Debian's names: {list}. Install them");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("these packages are missing: {list}. Install them: sudo apt-get install {list}");
    }
    progress.note(&format!("installing Debian's packages {list}"));
    apt(&["update"], progress)?;
    apt(&[&["install", "--yes", "--no-install-recommends"], missing.as_slice()].concat(), progress)
}

fn apt(arguments: &[&str], progress: &mut Progress) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    let mut lines = Vec::new();
    let status = run::listen(&mut command, |event| {
        if let run::Event::Out(line) | run::Event::Err(line) = event {
            lines.push(line.to_owned());
        }
        progress.idle(|| format!("apt-get {}", arguments.join(" ")));
    })?;
    run::ensure(&command, status, &lines)
}

fn is_there(package: &Package) -> bool {
    package.proof.iter().any(|proof| {
        if *proof == PYTHON_VENV {
            run::output(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_ok()
        } else if proof.starts_with('/') {
            Path::new(proof).exists()
        } else {
            find(proof).is_some()
        }
    })
}

/// A program on the search path, or where the system keeps root's.
fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found() {
        assert!(find("sh").is_some());
        assert!(find("capstan-no-such-program").is_none());
        assert!(is_there(&package("x", &["capstan-no-such-program", "/"])));
        assert!(!is_there(&package("x", &["/capstan/no/such/file"])));
    }
}
