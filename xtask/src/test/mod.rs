//! `cargo xtask test`: every level of tests, with what it needs.

mod binary;
mod clusters;
mod collect;
mod doc;
mod lane;
mod level;
mod libtest;
mod lint;
mod programs;
mod report;
mod session;

use std::process::ExitCode;

use anyhow::{Result, bail};

pub use level::{Level, choose};
pub use libtest::{Line, Summary, line};

use crate::interrupt;
use crate::progress::Progress;
use session::Session;

/// The exit code of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Which tests to run, and how.
#[derive(clap::Args)]
pub struct Args {
    /// Runs this level; may be repeated. All when none is given.
    #[arg(long = "level", value_name = "LEVEL")]
    levels: Vec<Level>,
    /// Leaves a level out; may be repeated.
    #[arg(long, value_name = "LEVEL")]
    without: Vec<Level>,
    /// Runs the node level against the cluster of KUBECONFIG instead of one that is started for it.
    #[arg(long, value_name = "WHOSE")]
    cluster: Option<Whose>,
    /// Lists the tests instead of running them.
    #[arg(long)]
    list: bool,
    /// Leaves a cluster up when a test in it failed.
    #[arg(long)]
    keep: bool,
    /// Runs the levels that need a cluster one after the other: slower, for machines that cannot bear two clusters.
    #[arg(long)]
    one_at_a_time: bool,
    /// Runs only tests whose name contains this; levels without such a test, and the lints, are left out.
    filter: Option<String>,
}

/// Whose cluster the node level uses.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Whose {
    /// The one of KUBECONFIG.
    Existing,
}

impl Args {
    /// Runs them; the last line printed is `N passed, N failed`.
    ///
    /// # Errors
    /// There is nothing to run. All else is counted as a failure.
    pub fn run(&self) -> Result<ExitCode> {
        let mut levels = choose(&self.levels, &self.without);
        if self.filter.is_some() {
            levels.retain(|level| *level != Level::Lint);
        }
        if levels.is_empty() {
            bail!("no level is left to run");
        }
        if self.list {
            return self.print_list(&levels);
        }
        let mut report = Session::new(self, levels).run();
        report.close();
        println!("{}", report.text());
        Ok(match (interrupt::asked(), report.is_good()) {
            (true, _) => ExitCode::from(INTERRUPTED),
            (false, true) => ExitCode::SUCCESS,
            (false, false) => ExitCode::FAILURE,
        })
    }

    fn print_list(&self, levels: &[Level]) -> Result<ExitCode> {
        let mut found = 0;
        for (level, program) in programs::build(levels, self.filter.as_deref(), &mut Progress::new(0))? {
            for test in &program.tests {
                println!("{level}: {} {test}", program.name());
                found += 1;
            }
        }
        println!("{found} tests");
        Ok(if found > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
