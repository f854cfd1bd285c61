//! The image of an example Worker, laid out as by `sdk/workers/Dockerfile` and the example's own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::Start;
use super::files::{self, Files};
use crate::progress::Progress;
use crate::setup::clients;
use crate::{repo, run};

/// Where `npm install --global` puts the package.
const PACKAGE: &str = "usr/local/lib/node_modules/@capstan-dev/workers";
const FOLDER: &str = "/worker";

/// Builds `sdk/workers`; returns where Node is.
///
/// # Errors
/// npm fails, or Node is missing.
pub fn prepare(progress: &mut Progress) -> Result<PathBuf> {
    clients::workers(progress)?;
    run::output(Command::new("npm").args(["run", "build"]).current_dir(sdk()))?;
    let printed = run::output(Command::new("node").args(["--print", "process.execPath"]))?;
    Ok(PathBuf::from(printed.trim()))
}

/// What its containers run.
pub fn start() -> Start {
    Start {
        entrypoint: vec!["/usr/local/bin/node".to_owned(), format!("/{PACKAGE}/dist/main.js")],
        arguments: ["--bindings", "bindings.js"].map(str::to_owned).to_vec(),
        folder: Some(FOLDER),
        environment: &[],
    }
}

/// Node, the package, and the Worker in the folder `place` of the checkout.
///
/// # Errors
/// A library is missing, or a file cannot be read.
pub fn files(node: &Path, place: &str) -> Result<Files> {
    let mut all = files::of(node, "node")?;
    files::add(
        &mut all,
        &format!("{PACKAGE}/package.json"),
        0o644,
        files::read(&sdk().join("package.json"))?,
    );
    files::add_folder(&mut all, &format!("{PACKAGE}/dist"), &sdk().join("dist"))?;
    let worker = repo::root().join(place);
    files::add_folder(&mut all, FOLDER.trim_start_matches('/'), &worker)
        .with_context(|| format!("the Worker in {place}"))?;
    Ok(all)
}

fn sdk() -> PathBuf {
    repo::root().join("sdk/workers")
}
