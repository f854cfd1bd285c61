//! `cargo xtask images`: container images as archives, made without a container engine.
//!
//! An image is one program and the shared libraries it names, laid out as in the project's `Dockerfile`; that of an example
//! Worker is Node, `sdk/workers` and the Worker, as in theirs. The same program gives the same bytes.

mod archive;
mod closure;
mod files;
pub mod keda;
pub mod previous;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::compile;
use crate::progress::Progress;
use crate::repo;

/// What there are images of.
const IMAGES: [Image; 8] = [
    Image { name: "operator", runs: Runs::Program("capstan-operator") },
    Image { name: "broker", runs: Runs::Program("capstan-broker") },
    Image { name: "sidecar", runs: Runs::Program("capstan-sidecar") },
    Image { name: "example-orders", runs: Runs::Program("example-orders") },
    // For tests in a cluster; users have none of it.
    Image { name: "e2e-app", runs: Runs::Program("e2e-app") },
    Image { name: "example-workers-orders", runs: Runs::Worker("examples/workers/orders") },
    Image { name: "example-workers-etl", runs: Runs::Worker("examples/workers/etl") },
    Image { name: "example-workers-crawler", runs: Runs::Worker("examples/workers/crawler") },
];

/// As in `Dockerfile`: of the sidecar, which shares a pod's memory.
const SIDECAR_ENVIRONMENT: &[&str] =
    &["MALLOC_ARENA_MAX=1", "MALLOC_MMAP_THRESHOLD_=65536", "MALLOC_TRIM_THRESHOLD_=131072"];

/// The profile of the programs: what users run, without optimisation across crates, since tests build it time and again.
const PROFILE: &str = "image";

/// One image.
#[derive(Clone, Copy)]
struct Image {
    /// Its name: `capstan/<name>` in a cluster, `<name>.tar` here.
    name: &'static str,
    runs: Runs,
}

/// What an image is for.
#[derive(Clone, Copy)]
enum Runs {
    /// A program, of the package of its name, at `/usr/local/bin/<program>`.
    Program(&'static str),
    /// The Worker in a folder of the checkout.
    Worker(&'static str),
}

impl Runs {
    const fn program(self) -> Option<&'static str> {
        match self {
            Self::Program(program) => Some(program),
            Self::Worker(_) => None,
        }
    }
}

/// Which images to build.
#[derive(clap::Args)]
pub struct Args {
    /// Names, such as `broker`; all when none is given.
    names: Vec<String>,
    /// The images of the release before instead, from which upgrades are tested.
    #[arg(long, conflicts_with = "names")]
    previous: bool,
    /// The images of KEDA instead, which the test of the external scaler installs.
    #[arg(long, conflicts_with_all = ["names", "previous"])]
    keda: bool,
}

impl Args {
    /// Builds them.
    ///
    /// # Errors
    /// A name is unknown, or a build fails.
    pub fn run(&self) -> Result<()> {
        let mut progress = Progress::new(0);
        if self.previous || self.keda {
            let build = if self.previous { previous::build } else { keda::build };
            let archives = build(&mut progress)?;
            archives.iter().for_each(|archive| progress.note(&archive.display().to_string()));
            return Ok(());
        }
        build(&self.names, &mut progress).map(drop)
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
    let node = images.iter().any(|image| image.runs.program().is_none()).then(|| worker::prepare(progress));
    let node = node.transpose()?;
    for image in images {
        let path = folder.join(format!("{}.tar", image.name));
        let reference = format!("capstan/{}:{}", image.name, repo::VERSION);
        let bytes = match (image.runs, &node) {
            (Runs::Program(name), _) => {
                let program = programs.get(name).with_context(|| format!("there is no program {name}"))?;
                let mut start = archive::Start::program(name);
                start.environment = environment(image.name);
                archive::docker(&reference, &start, &files::of(program, name)?)?
            }
            (Runs::Worker(place), Some(node)) => {
                archive::docker(&reference, &worker::start(), &worker::files(node, place)?)?
            }
            (Runs::Worker(_), None) => continue,
        };
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
    archive::docker(reference, &archive::Start::program(name), &files::of(program, name)?)
}

fn environment(image: &str) -> &'static [&'static str] {
    if image == "sidecar" { SIDECAR_ENVIRONMENT } else { &[] }
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
    let names = |images: &[Image]| images.iter().filter_map(|image| image.runs.program()).collect::<Vec<_>>();
    let mut arguments = vec!["build", "--profile", PROFILE];
    // Always all packages, so that a subset uses their dependencies with the same features and compiles nothing anew.
    for package in names(&IMAGES) {
        arguments.extend(["--package", package]);
    }
    let wanted = names(images);
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    for program in wanted {
        arguments.extend(["--bin", program]);
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
        assert_eq!(
            one.iter().map(|image| image.runs.program()).collect::<Vec<_>>(),
            [Some("capstan-broker")]
        );
        let Err(error) = select(&["borker".to_owned()]) else { panic!("an unknown name was taken") };
        assert!(error.to_string().contains("there are operator, broker"), "{error}");
    }
}
