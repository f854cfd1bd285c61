//! The release before this one, from which upgrades are tested: its charts, and images of its programs under a tag of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{PROFILE, archive, environment, files, write};
use crate::compile;
use crate::progress::Progress;
use crate::{repo, run};

/// The commit of the release before. To be raised with each release.
const COMMIT: &str = "c32bb0c82a9dd934b3c5b3a2b07e0aa943d4869c";
/// The tag of its images: its own version may be the one of today.
const TAG: &str = "previous";
/// Images, and the programs in them, which are packages too.
const PROGRAMS: [(&str, &str); 3] =
    [("operator", "capstan-operator"), ("broker", "capstan-broker"), ("sidecar", "capstan-sidecar")];

/// The folder of its charts, whether or not it was built.
pub fn charts() -> PathBuf {
    folder().join("source/charts")
}

/// Builds it once, and returns the archives of its images, `capstan/NAME:previous`.
///
/// # Errors
/// The commit is not there, as in a shallow clone, or does not build.
pub fn build(progress: &mut Progress) -> Result<Vec<PathBuf>> {
    let folder = folder();
    let archives = PROGRAMS.map(|(image, _)| folder.join(format!("{image}.tar"))).to_vec();
    let done = folder.join("commit");
    if std::fs::read_to_string(&done).is_ok_and(|commit| commit == COMMIT) {
        progress.note(&format!("the release before ({COMMIT}) was built already: {}", folder.display()));
        return Ok(archives);
    }
    progress.note(&format!("building the release before ({COMMIT}), once"));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let source = check_out(&folder)?;
    let target = folder.join("target");
    reuse_dependencies(&target)?;
    for ((image, program), path) in PROGRAMS.into_iter().zip(&archives) {
        let built = compile_program(&source, &target, program, progress)?;
        let mut start = archive::Start::program(program);
        start.environment = environment(image);
        let bytes = archive::docker(&format!("capstan/{image}:{TAG}"), &start, &files::of(&built, program)?)?;
        write(path, &bytes)?;
    }
    std::fs::remove_dir_all(&target).with_context(|| format!("cannot remove {}", target.display()))?;
    std::fs::write(&done, COMMIT).with_context(|| format!("cannot write {}", done.display()))?;
    Ok(archives)
}

fn folder() -> PathBuf {
    repo::target().join("previous")
}

/// Its files, as new as today, so that nothing that was built from others passes for them.
fn check_out(folder: &Path) -> Result<PathBuf> {
    let source = folder.join("source");
    std::fs::create_dir_all(&source).with_context(|| format!("cannot make {}", source.display()))?;
    let archive = folder.join("source.tar");
    let mut git = Command::new("git");
    git.current_dir(repo::root()).args(["archive", "--format=tar", COMMIT, "-o"]).arg(&archive);
    run::output(&mut git).with_context(|| {
        format!("the commit {COMMIT} is needed: git fetch --unshallow, in a shallow clone")
    })?;
    run::output(Command::new("tar").args(["-x", "-m", "-f"]).arg(&archive).arg("-C").arg(&source))?;
    std::fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
    Ok(source)
}

/// Copies what today's programs were built with, most of which is other people's and the same. In a target folder of its
/// own, because cargo takes two checkouts of a package in one folder for the same.
fn reuse_dependencies(target: &Path) -> Result<()> {
    let from = repo::target().join(PROFILE);
    if from.exists() {
        std::fs::create_dir_all(target).with_context(|| format!("cannot make {}", target.display()))?;
        run::output(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&from).arg(target))?;
    }
    Ok(())
}

fn compile_program(source: &Path, target: &Path, program: &str, progress: &mut Progress) -> Result<PathBuf> {
    let (manifest, target) = (source.join("Cargo.toml").display().to_string(), target.display().to_string());
    let mut arguments =
        vec!["build", "--profile", PROFILE, "--manifest-path", &manifest, "--target-dir", &target];
    // Always all packages, so that their dependencies have the same features each time.
    for (_, package) in PROGRAMS {
        arguments.extend(["--package", package]);
    }
    arguments.extend(["--bin", program]);
    let built = compile::cargo(&arguments, progress)?;
    let found = built.into_iter().find(|built| built.target == program);
    found.map(|built| built.path).with_context(|| format!("{program} was not built"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_before_is_named_without_doubt() {
        assert!(COMMIT.len() == 40 && COMMIT.bytes().all(|digit| digit.is_ascii_hexdigit()), "{COMMIT}");
    }
}
