//! `cargo xtask images`: container images as archives, made without a container engine.
//!
//! An image is one program and the shared libraries it names, laid out as in the project's `Dockerfile`. The same program
//! gives the same bytes.

mod archive;
mod closure;
mod files;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::compile;
use crate::progress::Progress;
use crate::repo;

/// What there are images of.
const IMAGES: [Image; 4] = [
    Image { name: "operator", package: "capstan-operator", program: "capstan-operator" },
    Image { name: "broker", package: "capstan-broker", program: "capstan-broker" },
    Image { name: "sidecar", package: "capstan-sidecar", program: "capstan-sidecar" },
    Image { name: "example-orders", package: "example-orders", program: "example-orders" },
];

/// The profile of the programs: what users run, without optimisation across crates, since tests build it time and again.
const PROFILE: &str = "image";

/// One image.
#[derive(Clone, Copy)]
struct Image {
    /// Its name: `capstan/<name>` in a cluster, `<name>.tar` here.
    name: &'static str,
    /// The package of its program.
    package: &'static str,
    /// The program, at `/usr/local/bin/<program>`.
    program: &'static str,
}

/// Which images to build.
#[derive(clap::Args)]
pub struct Args {
    /// Names, such as `broker`; all when none is given.
    names: Vec<String>,
}

impl Args {
    /// Builds them.
    ///
    /// # Errors
    /// A name is unknown, or a build fails.
    pub fn run(&self) -> Result<()> {
        build(&self.names, &mut Progress::new(0)).map(drop)
    }
}

/// Builds the images of these names, or all, and returns their archives. Writes only what changed.
///
/// # Errors
/// A name is unknown, a program does not build, a library is missing, or the disk refuses.
pub fn build(names: &[String], progress: &mut Progress) -> Result<Vec<PathBuf>> {
    let images = select(names)?;
    let programs = programs(&images, progress)?;
    let folder = repo::target().join("images");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut archives = Vec::new();
    for image in images {
        let program = programs.get(image.program).with_context(|| {
            format!(
                "package {} has no program {}: see IMAGES in xtask/src/images/mod.rs",
                image.package, image.program
            )
        })?;
        let path = folder.join(format!("{}.tar", image.name));
        let reference = format!("capstan/{}:{}", image.name, repo::VERSION);
        let bytes = archive::docker(&reference, image.program, &files::of(program, image.program)?)?;
        let unchanged = std::fs::read(&path).is_ok_and(|stored| stored == bytes);
        if !unchanged {
            write(&path, &bytes)?;
        }
        let state = if unchanged { "unchanged" } else { "written" };
        progress.note(&format!("{reference}: {} {state}, {} MB", path.display(), bytes.len() / 1_000_000));
        archives.push(path);
    }
    Ok(archives)
}

/// The archive of an image that runs a program from anywhere, under the name `name`.
///
/// # Errors
/// A library is missing, or the program cannot be read.
pub fn archive(reference: &str, name: &str, program: &std::path::Path) -> Result<Vec<u8>> {
    archive::docker(reference, name, &files::of(program, name)?)
}

fn select(names: &[String]) -> Result<Vec<Image>> {
    if names.is_empty() {
        return Ok(IMAGES.to_vec());
    }
    let find = |name: &String| {
        let known = IMAGES.map(|image| image.name).join(", ");
        let image = IMAGES.into_iter().find(|image| image.name == name);
        image.with_context(|| format!("there is no image {name:?}: there are {known}"))
    };
    names.iter().map(find).collect()
}

/// Compiles the programs; by name, where they lie.
fn programs(images: &[Image], progress: &mut Progress) -> Result<BTreeMap<String, PathBuf>> {
    let mut arguments = vec!["build", "--profile", PROFILE];
    // Always all packages, so that a subset uses their dependencies with the same features and compiles nothing anew.
    for image in &IMAGES {
        arguments.extend(["--package", image.package]);
    }
    for image in images {
        arguments.extend(["--bin", image.program]);
    }
    let built = compile::cargo(&arguments, progress)?;
    Ok(built.into_iter().filter(|built| !built.test).map(|built| (built.target, built.path)).collect())
}

/// Replaces a file at once, so that an interrupted run leaves no half of an archive.
fn write(path: &std::path::Path, bytes: &[u8]) -> Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, bytes)
        .and_then(|()| std::fs::rename(&part, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_select() {
        assert_eq!(select(&[]).unwrap().len(), IMAGES.len());
        let one = select(&["broker".to_owned()]).unwrap();
        assert_eq!(one.iter().map(|image| image.program).collect::<Vec<_>>(), ["capstan-broker"]);
        let Err(error) = select(&["borker".to_owned()]) else { panic!("an unknown name was taken") };
        assert!(error.to_string().contains("there are operator, broker"), "{error}");
    }
}
