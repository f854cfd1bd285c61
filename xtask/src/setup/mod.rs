//! `cargo xtask setup`: installs or builds what the tests need and this machine lacks, and says what it does.

mod clients;
mod debian;
mod toolchain;

use anyhow::{Result, bail};

use crate::cluster;
use crate::progress::Progress;
use crate::test::Level;

/// For which levels of tests.
#[derive(clap::Args)]
pub struct Args {
    /// Prepares for this level; may be repeated. All when none is given.
    #[arg(long = "level")]
    levels: Vec<Level>,
    /// Leaves a level out; may be repeated.
    #[arg(long)]
    without: Vec<Level>,
}

impl Args {
    /// Installs everything, and builds the cluster's programs.
    ///
    /// # Errors
    /// Something cannot be installed; says what to do.
    pub fn run(&self) -> Result<()> {
        let levels = crate::test::choose(&self.levels, &self.without);
        let mut progress = Progress::new(0);
        check(&levels, false)?;
        install(&levels, false, &mut progress)?;
        if levels.iter().any(|level| level.has_cluster()) {
            cluster::build(&mut |text| progress.note(text))?;
        }
        println!("ready for the levels {}", names(&levels));
        Ok(())
    }
}

/// Checks what this tool cannot install. `existing`: the node level runs against a cluster that is already there.
///
/// # Errors
/// Something is missing; names every such thing, the levels it prevents, and the way around.
pub fn check(levels: &[Level], existing: bool) -> Result<()> {
    let mut problems = Vec::new();
    let mut prevented = Vec::new();
    for level in levels {
        let found = toolchain::problems(*level, existing);
        if !found.is_empty() {
            prevented.push(*level);
            problems.extend(found.into_iter().map(|problem| format!("level {level}: {problem}")));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let without: Vec<String> = prevented.iter().map(|level| format!("--without {level}")).collect();
    bail!(
        "{}\nTo leave out what cannot run here: cargo xtask test {}",
        problems.join("\n"),
        without.join(" ")
    )
}

/// Installs what is missing: Debian's packages, the official clients.
///
/// # Errors
/// An installation fails.
pub fn install(levels: &[Level], existing: bool, progress: &mut Progress) -> Result<()> {
    let own_cluster = levels.iter().any(|level| level.has_cluster() && !(existing && *level == Level::Node));
    let has_clients = levels.contains(&Level::Process) || levels.contains(&Level::Node);
    debian::install(has_clients, own_cluster, progress)?;
    if has_clients {
        clients::npm(progress)?;
    }
    if levels.contains(&Level::Process) {
        clients::python(progress)?;
    }
    Ok(())
}

fn names(levels: &[Level]) -> String {
    levels.iter().map(|level| level.name()).collect::<Vec<_>>().join(", ")
}
