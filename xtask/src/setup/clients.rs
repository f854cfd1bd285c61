//! What npm, pip and Go install for tests, with exactly the versions that the lists beside them name: other people's clients,
//! and what `sdk/workers` is built with.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::Progress;
use crate::{repo, run};

/// A copy of the list of versions, written after the installation: equal means done.
const STAMP: &str = "installed-versions";

/// Cloudflare's SDK for JavaScript, into `tests/clients/npm/node_modules`.
///
/// # Errors
/// npm fails.
pub fn npm(progress: &mut Progress) -> Result<()> {
    packages("tests/clients/npm", progress)
}

/// The compiler and types for `sdk/workers`.
///
/// # Errors
/// npm fails.
pub fn workers(progress: &mut Progress) -> Result<()> {
    packages("sdk/workers", progress)
}

fn packages(place: &str, progress: &mut Progress) -> Result<()> {
    let folder = repo::root().join(place);
    let modules = folder.join("node_modules");
    once(&folder.join("package-lock.json"), &modules, || {
        progress.note(&format!("installing npm packages: {place}"));
        run::output(Command::new("npm").args(["ci", "--no-progress"]).current_dir(&folder)).map(drop)
    })
}

/// Cloudflare's SDK for Python, into an environment of its own in the cache.
///
/// # Errors
/// Python or pip fails.
pub fn python(progress: &mut Progress) -> Result<()> {
    let list = repo::root().join("tests/clients/python/requirements.txt");
    let folder = repo::cache()?.join("clients-python");
    once(&list, &folder, || {
        progress.note(&format!("installing Python packages: {}", folder.display()));
        run::output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        let mut pip = Command::new(folder.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&list);
        run::output(&mut pip).map(drop)
    })
}

/// A program with Cloudflare's SDK for Go, into the cache. Go itself knows what has changed; the first time takes minutes.
///
/// # Errors
/// Go fails.
pub fn go(progress: &mut Progress) -> Result<()> {
    let program = repo::cache()?.join("clients-go/tour");
    progress.note(&format!("building {}: minutes the first time", program.display()));
    let mut go = Command::new("go");
    go.args(["build", "-buildvcs=false", "-o"]).arg(&program).arg(".");
    run::output(go.current_dir(repo::root().join("tests/clients/go"))).map(drop)
}

/// Installs into `folder` unless that was done for this very list of versions.
fn once(list: &Path, folder: &Path, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = folder.join(STAMP);
    let wanted = std::fs::read(list).with_context(|| format!("cannot read {}", list.display()))?;
    if std::fs::read(&stamp).is_ok_and(|done| done == wanted) {
        return Ok(());
    }
    install()?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installs_once_for_each_list() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        let mut installed = 0;
        for versions in ["a 1", "a 1", "a 2", "a 2"] {
            std::fs::write(&list, versions).unwrap();
            once(&list, folder.path(), || {
                installed += 1;
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(installed, 2);
    }

    #[test]
    fn a_failed_installation_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        std::fs::write(&list, "a 1").unwrap();
        once(&list, folder.path(), || anyhow::bail!("no network")).unwrap_err();
        let mut installed = false;
        once(&list, folder.path(), || {
            installed = true;
            Ok(())
        })
        .unwrap();
        assert!(installed);
    }
}
