//! The programs of a cluster, compiled from Go modules into the cache.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::place::Place;
use crate::progress::clock;
use crate::repo;
use crate::run::{self, Event};

/// A program: the module in `tests/cluster/go` that builds it, its package, and its name here.
struct Program {
    module: &'static str,
    package: &'static str,
    name: &'static str,
}

const fn program(module: &'static str, package: &'static str, name: &'static str) -> Program {
    Program { module, package, name }
}

const PROGRAMS: [Program; 11] = [
    program("pause", ".", "pause"),
    program("etcd", "go.etcd.io/etcd/server/v3", "etcd"),
    program("k8s", "k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
    program("k8s", "k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager"),
    program("k8s", "k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler"),
    program("k8s", "k8s.io/kubernetes/cmd/kubectl", "kubectl"),
    program("k8s", "k8s.io/kubernetes/cmd/kubelet", "kubelet"),
    program("k8s", "k8s.io/kubernetes/cmd/kube-proxy", "kube-proxy"),
    program("coredns", "github.com/coredns/coredns", "coredns"),
    program("helm4", "helm.sh/helm/v4/cmd/helm", "helm"),
    program("helm3", "helm.sh/helm/v3/cmd/helm", "helm3"),
];

/// KEDA's module.
const KEDA_MODULE: &str = "github.com/kedacore/keda/v2";
/// What runs in pods, and only where a test asks for it: it takes as long to compile as all of Kubernetes.
const KEDA: [Program; 2] = [
    program("keda", "github.com/kedacore/keda/v2/cmd/operator", "keda-operator"),
    program("keda", "github.com/kedacore/keda/v2/cmd/adapter", "keda-adapter"),
];

/// How long a compilation may be silent.
const QUIET: Duration = Duration::from_secs(30);
/// Programs that say what they are by the version of Kubernetes.
const KUBERNETES: &str = "k8s";

/// Where the compiled programs lie.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// The programs that a running cluster was started with.
    pub fn of(place: &Place) -> Self {
        Self { folder: place.bin() }
    }

    /// The folder of all programs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One of them.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Compiles those of Kubernetes that are not there yet, and says which of how many.
///
/// # Errors
/// Go is missing, a module cannot be fetched, or the disk refuses.
pub fn build(folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<Programs> {
    build_all(&PROGRAMS, folder, progress)
}

/// KEDA, as tests install it.
#[derive(Debug, Clone)]
pub struct Keda {
    /// Its programs by name.
    pub programs: Vec<(&'static str, PathBuf)>,
    /// The folder of its custom resource definitions.
    pub definitions: PathBuf,
}

/// Compiles KEDA's programs, where they are not there yet.
///
/// # Errors
/// Go is missing, the module cannot be fetched, or the disk refuses.
pub fn build_keda(folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<Keda> {
    let built = build_all(&KEDA, folder, progress)?;
    // Programs from the cache need no source, the definitions do.
    run::output(go(&KEDA[0]).args(["mod", "download", KEDA_MODULE]))?;
    let mut list = go(&KEDA[0]);
    let source = run::output(list.args(["list", "-m", "-f", "{{.Dir}}", KEDA_MODULE]))?;
    Ok(Keda {
        programs: KEDA.iter().map(|program| (program.name, built.path(program.name))).collect(),
        definitions: Path::new(source.trim()).join("config/crd/bases"),
    })
}

fn build_all(programs: &[Program], folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<Programs> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // Two runs at a time would compile the same twice, and into the same files.
    let lock = folder.join(".lock");
    let lock = File::create(&lock).with_context(|| format!("cannot write {}", lock.display()))?;
    if lock.try_lock().is_err() {
        progress("another run is compiling the cluster's programs: waiting for it");
        lock.lock().context("cannot wait for another run")?;
    }
    let go = run::output(Command::new("go").args(["env", "GOVERSION"]))?;
    let mut missing = Vec::new();
    for program in programs {
        let key = key(&go, program)?;
        let stamp = folder.join(format!(".{}", program.name));
        let is_current = std::fs::read_to_string(&stamp).is_ok_and(|built| built == key);
        if !is_current || !folder.join(program.name).exists() {
            missing.push((program, stamp, key));
        }
    }
    let count = missing.len();
    for (i, (program, stamp, key)) in missing.into_iter().enumerate() {
        let what = format!("compiling {} ({} of {count})", program.name, i + 1);
        progress(&what);
        compile(program, folder, &mut |elapsed| progress(&format!("… {what}, {}", clock(elapsed))))?;
        std::fs::write(&stamp, key).with_context(|| format!("cannot write {}", stamp.display()))?;
    }
    Ok(Programs { folder: folder.to_owned() })
}

/// Compiles a program, and tells from time to time how long that takes.
fn compile(program: &Program, folder: &Path, still: &mut dyn FnMut(Duration)) -> Result<()> {
    // A cluster may be running the old one, which is replaced as a whole.
    let fresh = folder.join(format!(".{}.new", program.name));
    let mut command = go(program);
    command.args(["build", "-trimpath", "-ldflags", &flags(program)?, "-o"]).arg(&fresh).arg(program.package);
    let (start, mut spoke, mut lines) = (Instant::now(), Instant::now(), Vec::new());
    let status = run::listen(&mut command, |event| match event {
        Event::Out(line) | Event::Err(line) => lines.push(line.to_owned()),
        Event::Tick if spoke.elapsed() >= QUIET => {
            spoke = Instant::now();
            still(start.elapsed());
        }
        Event::Tick => {}
    })?;
    run::ensure(&command, status, &lines)?;
    let path = folder.join(program.name);
    std::fs::rename(&fresh, &path).with_context(|| format!("cannot write {}", path.display()))
}

/// Go, in the module of a program.
fn go(program: &Program) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(module(program))
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "");
    command
}

/// Linker flags. Kubernetes' programs say v0.0.0 unless told their version, and Helm's `kubeVersion` checks fail.
fn flags(program: &Program) -> Result<String> {
    let mut flags = "-s -w".to_owned();
    if program.module == KUBERNETES {
        let version = kubernetes_version(&module(program))?;
        let minor = version.split('.').nth(1).unwrap_or_default();
        for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
            flags.push_str(&format!(
                " -X {package}.gitVersion={version} -X {package}.gitMajor=1 -X {package}.gitMinor={minor} \
                 -X {package}.gitTreeState=clean -X {package}.buildDate=1970-01-01T00:00:00Z"
            ));
        }
    }
    Ok(flags)
}

fn kubernetes_version(module: &Path) -> Result<String> {
    let file = module.join("go.mod");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    required(&text, "k8s.io/kubernetes")
        .with_context(|| format!("{} requires no k8s.io/kubernetes", file.display()))
}

/// The version of a module that a go.mod requires.
fn required(text: &str, module: &str) -> Option<String> {
    let version = |line: &str| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some(module)).then(|| words.next().map(str::to_owned)).flatten()
    };
    text.lines().find_map(version).filter(|version| version.starts_with('v'))
}

fn module(program: &Program) -> PathBuf {
    repo::root().join("tests/cluster/go").join(program.module)
}

/// What a program is made of: another key means to compile it again.
fn key(go: &str, program: &Program) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(go);
    hash.update(program.package);
    let folder = module(program);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    for file in files {
        hash.update(std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_kubernetes_is_read_from_its_module() {
        let text = "require (\n\tk8s.io/kubelet v0.36.3 // indirect\n\tk8s.io/kubernetes v1.36.3 // indirect\n)\n\
                    replace k8s.io/api v0.0.0 => k8s.io/api v0.36.3\n";
        assert_eq!(required(text, "k8s.io/kubernetes").as_deref(), Some("v1.36.3"));
        assert_eq!(
            required("require k8s.io/kubernetes v1.34.4\n", "k8s.io/kubernetes").as_deref(),
            Some("v1.34.4")
        );
        assert_eq!(required("tool (\n\tk8s.io/kubernetes/cmd/kubectl\n)\n", "k8s.io/kubernetes"), None);
    }

    #[test]
    fn every_program_has_a_module() {
        for program in PROGRAMS.iter().chain(&KEDA) {
            assert!(module(program).join("go.mod").exists(), "{}", program.name);
            assert_eq!(key("go1", program).unwrap(), key("go1", program).unwrap());
            assert_ne!(key("go1", program).unwrap(), key("go2", program).unwrap());
        }
        let version = kubernetes_version(&repo::root().join("tests/cluster/go/k8s")).unwrap();
        assert!(version.starts_with("v1."), "{version}");
    }
}
