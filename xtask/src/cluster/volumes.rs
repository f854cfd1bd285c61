//! Volumes: for each claim an ext4 file system of exactly the size it asks for, loop-mounted, offered as a `local` volume.
//!
//! So `fsGroup` is honoured, the data outlives pods, and a full disk is really full. The class `standard` follows its pod to
//! any node, as a cloud's disk does (all nodes share this machine's disk); `pinned` stays on the node of its first pod.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::component::{self, inside};
use super::control_plane::kubectl;
use super::place::{Place, node_name};
use super::programs::Programs;
use crate::run;

/// The component's name.
pub const NAME: &str = "volumes";
const PROVISIONER: &str = "capstan.test/loop";
/// The class whose volumes stay on a node.
const PINNED: &str = "pinned";
const CLASSES: [&str; 2] = ["standard", PINNED];
/// Objects that may wait for their turn.
const OBJECTS: usize = 256;
/// A watch ends after this and lists anew, so that whatever failed is tried again.
const WATCH: &str = "20s";
const PAUSE: Duration = Duration::from_millis(500);

/// Starts this program once more, as the provisioner of a cluster.
///
/// # Errors
/// It cannot be started.
pub fn start(place: &Place) -> Result<()> {
    // A copy, because a build may replace the program while the cluster lives; and of the program that runs, because
    // a build may have replaced it already.
    let copy = program(place);
    // By another program: a child that another thread starts meanwhile would hold a file that we write open for a moment,
    // and what is open for writing cannot be run.
    let own = format!("/proc/{}/exe", std::process::id());
    run::output(Command::new("cp").arg("--dereference").arg(own).arg(&copy))
        .with_context(|| format!("cannot copy this program to {}", copy.display()))?;
    component::start(place, NAME, inside(place, 0, copy).args(["cluster", "provision"]))
}

/// Where the copy of this program lies that a running cluster uses, and whoever tests it.
pub fn program(place: &Place) -> PathBuf {
    place.state().join("xtask")
}

/// Provisions until it is ended.
///
/// # Errors
/// kubectl cannot be started.
pub fn provision(place: &Place, programs: &Programs) -> Result<()> {
    let (sender, objects) = sync_channel(OBJECTS);
    for kind in ["persistentvolumeclaims", "persistentvolumes"] {
        let (place, programs, sender) = (place.clone(), programs.clone(), sender.clone());
        std::thread::spawn(move || {
            loop {
                if let Err(error) = follow(&place, &programs, kind, &sender) {
                    eprintln!("the watch of {kind} broke: {error:#}");
                }
                std::thread::sleep(PAUSE);
            }
        });
    }
    drop(sender);
    for object in objects {
        if let Err(error) = handle(place, programs, &object) {
            eprintln!("{}: {error:#}", object["metadata"]["name"]);
        }
    }
    bail!("all watches ended")
}

/// Hands on every object of a kind, and its changes, until the watch ends.
fn follow(place: &Place, programs: &Programs, kind: &str, objects: &SyncSender<Value>) -> Result<()> {
    let mut command = plain_kubectl(place, programs);
    command.args(["get", kind, "--all-namespaces", "--watch", "--output=json"]);
    command.arg(format!("--request-timeout={WATCH}")).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start kubectl")?;
    let result = child.stdout.take().context("kubectl has no output").and_then(|out| read(out, objects));
    end(&mut child);
    result
}

fn read(out: ChildStdout, objects: &SyncSender<Value>) -> Result<()> {
    for object in serde_json::Deserializer::from_reader(std::io::BufReader::new(out)).into_iter::<Value>() {
        let object = object.context("kubectl printed no JSON")?;
        match object["items"].as_array() {
            Some(items) => items.iter().try_for_each(|item| objects.send(item.clone()))?,
            None => objects.send(object)?,
        }
    }
    Ok(())
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// What an object asks of a provisioner.
#[derive(Debug, PartialEq, Eq)]
enum Task<'a> {
    /// A volume for a claim of this class, whose pod was given to this node.
    Offer { class: &'a str, node: &'a str },
    /// The end of a volume whose claim is gone.
    TakeBack,
}

fn task(object: &Value) -> Option<Task<'_>> {
    let class = object["spec"]["storageClassName"].as_str().filter(|class| CLASSES.contains(class))?;
    let (meta, kind, phase) =
        (&object["metadata"], object["kind"].as_str()?, object["status"]["phase"].as_str()?);
    match (kind, phase) {
        ("PersistentVolumeClaim", "Pending") if meta["deletionTimestamp"].is_null() => {
            let node = meta["annotations"]["volume.kubernetes.io/selected-node"].as_str()?;
            Some(Task::Offer { class, node })
        }
        ("PersistentVolume", "Released")
            if meta["annotations"]["pv.kubernetes.io/provisioned-by"] == PROVISIONER
                && object["spec"]["persistentVolumeReclaimPolicy"] == "Delete" =>
        {
            Some(Task::TakeBack)
        }
        _ => None,
    }
}

fn handle(place: &Place, programs: &Programs, object: &Value) -> Result<()> {
    match task(object) {
        Some(Task::Offer { class, node }) => offer(place, programs, object, class, node),
        Some(Task::TakeBack) => take_back(place, programs, object),
        None => Ok(()),
    }
}

fn offer(place: &Place, programs: &Programs, claim: &Value, class: &str, node: &str) -> Result<()> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a claim lacks a field");
    let (meta, spec) = (&claim["metadata"], &claim["spec"]);
    let size = text(&spec["resources"]["requests"]["storage"])?;
    let name = format!("pvc-{}", text(&meta["uid"])?);
    let folder = place.volumes().join(&name);
    mount(&folder, bytes(&size).with_context(|| format!("cannot read the size {size:?}"))?)?;
    let nodes: Vec<String> = match class {
        PINNED => vec![node.to_owned()],
        _ => (0..place.nodes().unwrap_or(1)).map(node_name).collect(),
    };
    let volume = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": spec["accessModes"],
            "storageClassName": class,
            "persistentVolumeReclaimPolicy": "Delete",
            "local": {"path": folder},
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"],
            },
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": nodes},
            ]}]}},
        },
    });
    let mut apply = plain_kubectl(place, programs);
    let mut child =
        apply.args(["apply", "-f", "-"]).stdin(Stdio::piped()).spawn().context("cannot start kubectl")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(volume.to_string().as_bytes()).context("cannot hand kubectl a volume")?;
    }
    let status = child.wait().context("cannot wait for kubectl")?;
    if !status.success() {
        bail!("the volume was refused");
    }
    Ok(())
}

fn mount(folder: &Path, bytes: u64) -> Result<()> {
    if mounts().contains(folder) {
        return Ok(());
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let image = folder.with_extension("img");
    let file = File::create(&image).with_context(|| format!("cannot write {}", image.display()))?;
    file.set_len(bytes).with_context(|| format!("cannot size {}", image.display()))?;
    run::output(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
    run::output(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(folder)).map(drop)
}

fn take_back(place: &Place, programs: &Programs, volume: &Value) -> Result<()> {
    let name = volume["metadata"]["name"].as_str().context("a volume has no name")?;
    let folder = place.volumes().join(name);
    if mounts().contains(&folder) {
        run::output(Command::new("umount").arg(&folder))?;
    }
    run::output(plain_kubectl(place, programs).args([
        "delete",
        "persistentvolume",
        name,
        "--wait=false",
        "--ignore-not-found",
    ]))?;
    let _ = std::fs::remove_file(folder.with_extension("img"));
    let _ = std::fs::remove_dir(folder);
    Ok(())
}

/// The provisioner runs in the namespace already, so it needs no entering.
fn plain_kubectl(place: &Place, programs: &Programs) -> Command {
    let outer = kubectl(place, programs);
    let mut command = Command::new(programs.path("kubectl"));
    command.envs(outer.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// Where something is mounted.
pub fn mounts() -> BTreeSet<PathBuf> {
    let table = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .collect()
}

/// A quantity of bytes.
fn bytes(quantity: &str) -> Option<u64> {
    let digits = quantity.find(|c: char| !c.is_ascii_digit()).unwrap_or(quantity.len());
    let (number, unit) = quantity.split_at(digits);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, size) in [("1Gi", 1 << 30), ("512Mi", 512 << 20), ("5", 5), ("2G", 2_000_000_000)] {
            assert_eq!(bytes(text), Some(size), "{text}");
        }
        for bad in ["", "Gi", "1.5Gi", "1Xi", "99999999999999999999Gi"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    fn claim() -> Value {
        json!({
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "annotations": {"volume.kubernetes.io/selected-node": "node-0"}},
            "spec": {"storageClassName": "standard"},
            "status": {"phase": "Pending"},
        })
    }

    #[test]
    fn a_claim_is_served_once_its_pod_has_a_node() {
        assert_eq!(task(&claim()), Some(Task::Offer { class: "standard", node: "node-0" }));
        for (path, value) in [
            ("/spec/storageClassName", json!("other")),
            ("/status/phase", json!("Bound")),
            ("/metadata/annotations", json!({})),
            ("/kind", json!("PersistentVolume")),
        ] {
            let mut other = claim();
            *other.pointer_mut(path).unwrap() = value;
            assert_eq!(task(&other), None, "{path}");
        }
        let mut going = claim();
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(task(&going), None);
    }

    #[test]
    fn a_volume_of_ours_goes_with_its_claim() {
        let volume = json!({
            "kind": "PersistentVolume",
            "metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
            "spec": {"storageClassName": "pinned", "persistentVolumeReclaimPolicy": "Delete"},
            "status": {"phase": "Released"},
        });
        assert_eq!(task(&volume), Some(Task::TakeBack));
        for (path, value) in [
            ("/metadata/annotations", json!({})),
            ("/spec/persistentVolumeReclaimPolicy", json!("Retain")),
            ("/status/phase", json!("Bound")),
        ] {
            let mut other = volume.clone();
            *other.pointer_mut(path).unwrap() = value;
            assert_eq!(task(&other), None, "{path}");
        }
    }

    #[test]
    fn mounts_are_read() {
        assert!(mounts().contains(Path::new("/")), "{:?}", mounts());
    }
}
