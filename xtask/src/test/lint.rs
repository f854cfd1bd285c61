//! The level `lint`: format and clippy over the whole workspace. Stale generated files are found by tests of their crates.

use std::time::Instant;

use anyhow::Result;

use super::level::Level;
use super::report::Report;
use crate::progress::Progress;
use crate::run::{self, Event};
use crate::{interrupt, repo};

const FORMAT: &[&str] = &["fmt", "--all", "--check"];
const CLIPPY: &[&str] = &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
/// `--all-targets` leaves out the tests that a plain `cargo test` leaves out.
const CLIPPY_CLUSTER: &[&str] =
    &["clippy", "--quiet", "--package", "e2e", "--test", "*", "--", "-D", "warnings"];

/// Runs all and counts them.
///
/// # Errors
/// Cargo does not start, or the user asked to stop.
pub fn run(report: &mut Report, progress: &mut Progress) -> Result<()> {
    for arguments in [FORMAT, CLIPPY, CLIPPY_CLUSTER] {
        let start = Instant::now();
        let mut command = repo::cargo();
        command.args(arguments);
        let mut lines = Vec::new();
        let name = run::name(&command);
        let status = run::listen(&mut command, |event| {
            if let Event::Out(line) | Event::Err(line) = event {
                lines.push(line.to_owned());
            }
            progress.idle(|| name.clone());
        })?;
        interrupt::check()?;
        let what = format!("cargo {}", arguments.join(" "));
        if status.success() {
            progress.note(&format!("{what}: ok"));
            report.add(Level::Lint, 1, Vec::new(), start.elapsed());
        } else {
            progress.note(&format!("{what}: FAILED"));
            println!("{}", lines.join("\n"));
            report.add(Level::Lint, 0, vec![what], start.elapsed());
        }
    }
    Ok(())
}
