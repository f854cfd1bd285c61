//! `cargo xtask setup`: installs or builds what the tests need and this machine lacks, and says what it does.

pub(crate) mod clients;
mod debian;
mod toolchain;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

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
        let problems = problems(&levels, false);
        ensure!(problems.is_empty(), "{}", advice(&problems));
        install(&levels, false, &mut progress)?;
        if levels.iter().any(|level| level.has_cluster()) {
            cluster::build(&mut |text| progress.note(text))?;
        }
        println!("ready for the levels {}", names(&levels));
        Ok(())
    }
}

/// What this tool cannot install, by the level that it keeps from running. `existing`: the node level runs against a
/// cluster that is already there.
pub fn problems(levels: &[Level], existing: bool) -> BTreeMap<Level, Vec<String>> {
    let problems = |level: &Level| (*level, toolchain::problems(*level, existing));
    levels.iter().map(problems).filter(|(_, problems)| !problems.is_empty()).collect()
}

/// The problems in words, and how to do without.
pub fn advice(problems: &BTreeMap<Level, Vec<String>>) -> String {
    let mut text = String::new();
    for (level, problems) in problems {
        for problem in problems {
            text.push_str(&format!("level {level}: {problem}\n"));
        }
    }
    let without: Vec<String> = problems.keys().map(|level| format!("--without {level}")).collect();
    text + &format!("To leave out what cannot run here: {}", without.join(" "))
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
        clients::workers(progress)?;
        clients::python(progress)?;
        clients::go(progress)?;
    }
    Ok(())
}

/// Installs the servers that the benchmark compares with, where they are missing.
///
/// # Errors
/// An installation fails.
pub fn peers(redis: bool, postgres: bool, progress: &mut Progress) -> Result<()> {
    debian::install_peers(redis, postgres, progress)
}

fn names(levels: &[Level]) -> String {
    levels.iter().map(|level| level.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_every_problem_and_the_way_around() {
        let problem = |text: &str| vec![text.to_owned()];
        let problems = [(Level::ApiServer, problem("no Go")), (Level::Node, problem("no root"))];
        let text = advice(&problems.into_iter().collect());
        assert!(text.starts_with("level api-server: no Go\nlevel node: no root\n"), "{text}");
        assert!(text.ends_with("--without api-server --without node"), "{text}");
    }
}
