//! What is in an image's file system.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::closure;

/// The user and group of every program.
pub const USER: u32 = 65_532;

const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\ncapstan:x:65532:65532:capstan:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ncapstan:x:65532:\n";
/// Names resolve by the files and the name server that the kubelet writes for each pod.
const NSSWITCH: &str = "hosts: files dns\n";

/// A file or folder of an image, owned by root.
#[derive(Debug)]
pub enum Entry {
    /// A folder with its mode.
    Folder(u32),
    /// A file with its mode and content.
    File(u32, Vec<u8>),
}

/// All entries by path without the leading `/`: a folder comes before what is in it.
pub type Files = BTreeMap<String, Entry>;

/// The file system of the image of `program`, which gets the name `name`.
///
/// # Errors
/// A library is missing, or a file cannot be read.
pub fn of(program: &Path, name: &str) -> Result<Files> {
    let mut files = Files::new();
    add(&mut files, &format!("usr/local/bin/{name}"), 0o755, read(program)?);
    for library in closure::libraries(program)? {
        let mode = std::fs::metadata(&library).map(|data| data.permissions().mode() & 0o755 | 0o444);
        let mode = mode.with_context(|| format!("cannot read {}", library.display()))?;
        add(&mut files, library.to_string_lossy().trim_start_matches('/'), mode, read(&library)?);
    }
    add(&mut files, "etc/passwd", 0o644, PASSWD.into());
    add(&mut files, "etc/group", 0o644, GROUP.into());
    add(&mut files, "etc/nsswitch.conf", 0o644, NSSWITCH.into());
    files.insert("tmp".to_owned(), Entry::Folder(0o1777));
    Ok(files)
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Adds all that is in a folder, as files that everyone may read.
///
/// # Errors
/// The folder, or a file in it, cannot be read.
pub(super) fn add_folder(files: &mut Files, at: &str, folder: &Path) -> Result<()> {
    let failed = || format!("cannot read {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let (path, at) = (entry.path(), format!("{at}/{}", entry.file_name().to_string_lossy()));
        if path.is_dir() {
            add_folder(files, &at, &path)?;
        } else {
            add(files, &at, 0o644, read(&path)?);
        }
    }
    Ok(())
}

/// Adds a file and the folders above it.
pub(super) fn add(files: &mut Files, path: &str, mode: u32, content: Vec<u8>) {
    for (at, _) in path.match_indices('/') {
        files.entry(path[..at].to_owned()).or_insert(Entry::Folder(0o755));
    }
    files.insert(path.to_owned(), Entry::File(mode, content));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them() {
        let files = of(&std::env::current_exe().unwrap(), "program").unwrap();
        let paths: Vec<&String> = files.keys().collect();
        let at = |path: &str| paths.iter().position(|have| *have == path).unwrap();
        assert!(at("usr") < at("usr/local") && at("usr/local/bin") < at("usr/local/bin/program"));
        assert!(matches!(files["tmp"], Entry::Folder(0o1777)));
        for file in ["etc/passwd", "etc/group"] {
            let Entry::File(_, content) = &files[file] else { panic!("{file}") };
            assert!(String::from_utf8_lossy(content).contains(&USER.to_string()), "{file}");
        }
    }
}
