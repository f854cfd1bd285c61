//! Where things are: the checkout, its target folder, the cache outside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The version of everything in the workspace, and so the tag of its images.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The folder of the checkout.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where cargo builds, and where this tool writes.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// What is kept between runs and checkouts: `CAPSTAN_CACHE`, or `capstan` in the user's cache folder.
pub fn cache() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("CAPSTAN_CACHE") {
        return std::path::absolute(folder).context("CAPSTAN_CACHE is not a path");
    }
    let home = std::env::var_os("HOME").context("neither CAPSTAN_CACHE nor HOME is set: set one of them")?;
    Ok(Path::new(&home).join(".cache/capstan"))
}

/// The cargo that runs this tool, in the checkout.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // What cargo told this tool about its own package is not for the packages that it builds.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR") {
            command.env_remove(name);
        }
    }
    command
}
