//! The archive format that `docker load`, `ctr images import` and `kind load image-archive` read.

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::files::{Entry, Files, USER};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Archives carry no time, so that the same files give the same bytes.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// What an image's containers run.
#[derive(Debug, Default)]
pub struct Start {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// The arguments that a pod may replace.
    pub arguments: Vec<String>,
    /// The folder, when it is not `/`.
    pub folder: Option<&'static str>,
    /// Variables beside `PATH`.
    pub environment: &'static [&'static str],
}

impl Start {
    /// `/usr/local/bin/<program>`, alone.
    pub fn program(program: &str) -> Self {
        Self { entrypoint: vec![format!("/usr/local/bin/{program}")], ..Self::default() }
    }
}

/// An image of one layer.
///
/// # Errors
/// A path is too long for an archive.
pub fn docker(reference: &str, start: &Start, files: &Files) -> Result<Vec<u8>> {
    let layer = layer(files)?;
    let digest = hex(&layer);
    let environment = [&[PATH], start.environment].concat();
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "created": CREATED,
        "config": {
            "User": format!("{USER}:{USER}"),
            "Env": environment,
            "Entrypoint": start.entrypoint,
            "Cmd": start.arguments,
            "WorkingDir": start.folder.unwrap_or("/"),
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        "history": [{ "created": CREATED, "created_by": "cargo xtask images" }],
    })
    .to_string();
    let (config_name, layer_name) =
        (format!("{}.json", hex(config.as_bytes())), format!("{digest}/layer.tar"));
    let manifest =
        json!([{ "Config": config_name, "RepoTags": [reference], "Layers": [layer_name] }]).to_string();
    let mut archive = Builder::new(Vec::new());
    append(&mut archive, &config_name, EntryType::Regular, 0o644, config.as_bytes())?;
    append(&mut archive, &format!("{digest}/"), EntryType::Directory, 0o755, &[])?;
    append(&mut archive, &layer_name, EntryType::Regular, 0o644, &layer)?;
    append(&mut archive, "manifest.json", EntryType::Regular, 0o644, manifest.as_bytes())?;
    archive.into_inner().context("cannot end the archive")
}

fn layer(files: &Files) -> Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    for (path, entry) in files {
        match entry {
            Entry::Folder(mode) => append(&mut layer, &format!("{path}/"), EntryType::Directory, *mode, &[])?,
            Entry::File(mode, content) => append(&mut layer, path, EntryType::Regular, *mode, content)?,
        }
    }
    layer.into_inner().context("cannot end the layer")
}

fn append(to: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    to.append_data(&mut header, path, content).with_context(|| format!("cannot archive {path}"))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// This machine's processor as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    fn files() -> Files {
        let mut files = Files::new();
        files.insert("tmp".to_owned(), Entry::Folder(0o1777));
        files.insert("usr".to_owned(), Entry::Folder(0o755));
        files.insert("usr/program".to_owned(), Entry::File(0o755, b"ELF".to_vec()));
        files
    }

    fn unpack(bytes: &[u8]) -> BTreeMap<String, (Header, Vec<u8>)> {
        let mut archive = tar::Archive::new(bytes);
        let entry = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), (entry.header().clone(), content))
        };
        archive.entries().unwrap().map(entry).collect()
    }

    #[test]
    fn digests_name_what_is_there() {
        let archive = unpack(&docker("capstan/x:1", &Start::program("program"), &files()).unwrap());
        let manifest: serde_json::Value = serde_json::from_slice(&archive["manifest.json"].1).unwrap();
        assert_eq!(manifest[0]["RepoTags"], json!(["capstan/x:1"]));
        let config = &archive[manifest[0]["Config"].as_str().unwrap()].1;
        let layer = &archive[manifest[0]["Layers"][0].as_str().unwrap()].1;
        assert_eq!(manifest[0]["Config"], format!("{}.json", hex(config)));
        let config: serde_json::Value = serde_json::from_slice(config).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!([format!("sha256:{}", hex(layer))]));
        assert_eq!(config["config"]["Entrypoint"], json!(["/usr/local/bin/program"]));
        assert_eq!(config["config"]["User"], "65532:65532");
    }

    #[test]
    fn a_layer_keeps_modes_and_carries_no_time() {
        let entries = unpack(&layer(&files()).unwrap());
        assert_eq!(entries.keys().collect::<Vec<_>>(), ["tmp/", "usr/", "usr/program"]);
        assert_eq!(entries["tmp/"].0.mode().unwrap(), 0o1777);
        assert_eq!(entries["usr/program"].1, b"ELF");
        for (path, (header, _)) in &entries {
            let owner = (header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap());
            assert_eq!(owner, (0, 0, 0), "{path}");
        }
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let bytes = || docker("capstan/x:1", &Start::program("program"), &files()).unwrap();
        assert_eq!(bytes(), bytes());
        let mut other = files();
        other.insert("usr/program".to_owned(), Entry::File(0o755, b"ELG".to_vec()));
        assert_ne!(bytes(), docker("capstan/x:1", &Start::program("program"), &other).unwrap());
    }

    #[test]
    fn sha256_is_sha256() {
        assert_eq!(hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
