//! The examples in the documentation, which cargo itself compiles and runs.

use std::time::Instant;

use anyhow::Result;

use super::level::Level;
use super::libtest::{self, Line};
use super::report::Report;
use crate::progress::Progress;
use crate::run::{self, Event};
use crate::{interrupt, repo};

/// Runs them and counts them with the level `pure`.
///
/// # Errors
/// Cargo does not start, or the user asked to stop.
pub fn run(report: &mut Report, progress: &mut Progress) -> Result<()> {
    let mut command = repo::cargo();
    command.args(["test", "--quiet", "--doc", "--workspace"]);
    let start = Instant::now();
    let mut lines = Vec::new();
    let status = run::listen(&mut command, |event| {
        if let Event::Out(line) | Event::Err(line) = event {
            lines.push(line.to_owned());
        }
        progress.idle(|| "examples in the documentation".to_owned());
    })?;
    interrupt::check()?;
    let (passed, mut failed) = count(&lines);
    if failed.is_empty() && !status.success() {
        failed.push("examples in the documentation".to_owned());
    }
    if !failed.is_empty() {
        println!("{}", lines.join("\n"));
    }
    if passed + failed.len() > 0 {
        progress.note(&format!("examples in the documentation: {passed} passed, {} failed", failed.len()));
    }
    report.add(Level::Pure, passed, failed, start.elapsed());
    Ok(())
}

/// How many passed and which failed, over all packages.
fn count(lines: &[String]) -> (usize, Vec<String>) {
    let (mut passed, mut failed, mut from) = (0, Vec::new(), 0);
    for (at, text) in lines.iter().enumerate() {
        let Some(Line::Summary(summary)) = libtest::line(text) else { continue };
        passed += summary.passed;
        let mut names = libtest::failed_names(&lines[from..at]);
        names
            .resize_with(summary.failed.max(names.len()), || "an example whose name is not known".to_owned());
        failed.extend(names);
        from = at + 1;
    }
    (passed, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_added_up() {
        let text = "
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

failures:
    src/lib.rs - a (line 2)

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let (passed, failed) = count(&lines);
        assert_eq!(passed, 3);
        assert_eq!(failed, ["src/lib.rs - a (line 2)", "an example whose name is not known"]);
    }
}
