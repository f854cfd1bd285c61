//! KEDA, for the test of the external scaler: an image of each of its programs, and its resource definitions.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{archive, write};
use crate::progress::Progress;
use crate::{cluster, repo};

/// The folder of the archives and the definitions.
pub fn folder() -> PathBuf {
    repo::target().join("keda")
}

/// The file of the definitions.
pub fn definitions() -> PathBuf {
    folder().join("definitions.yaml")
}

/// Builds the images, and puts the definitions beside them; returns the archives.
///
/// # Errors
/// It does not compile, or the disk refuses.
pub fn build(progress: &mut Progress) -> Result<Vec<PathBuf>> {
    let keda = cluster::build_keda(&mut |text| progress.note(text))?;
    let folder = folder();
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut archives = Vec::new();
    for (name, program) in &keda.programs {
        let path = folder.join(format!("{name}.tar"));
        write(&path, &archive(&format!("capstan/{name}:{}", repo::VERSION), name, program)?)?;
        archives.push(path);
    }
    let text = read_all(&keda.definitions)
        .with_context(|| format!("no definitions in {}", keda.definitions.display()))?;
    write(&definitions(), text.as_bytes())?;
    Ok(archives)
}

/// All files of a folder, as one stream of YAML.
fn read_all(folder: &std::path::Path) -> std::io::Result<String> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let texts: std::io::Result<Vec<String>> = files.iter().map(std::fs::read_to_string).collect();
    Ok(texts?.join("\n---\n"))
}
