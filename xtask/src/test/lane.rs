//! Levels that run one after the other: what came of them so far, and how far they are. Two lanes run side by side.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use super::Args;
use super::binary::Program;
use super::clusters::Place;
use super::level::Level;
use super::programs::Programs;
use super::report::Report;
use crate::interrupt;
use crate::progress::Progress;

/// One of them.
pub struct Lane<'a> {
    args: &'a Args,
    /// What came of it.
    pub report: Report,
    /// How far it is.
    pub progress: Progress,
}

impl<'a> Lane<'a> {
    /// One in which these levels must run a test each.
    pub fn new(args: &'a Args, levels: &[Level], progress: Progress) -> Self {
        Self { args, report: Report::new(levels), progress }
    }

    /// Another one for a level that runs at the same time. `width`: that of the longest name among them.
    pub fn beside(&self, level: Level, width: usize) -> Self {
        Self::new(self.args, &[level], self.progress.beside(label(level, width)))
    }

    /// Begins a level.
    pub fn begin(&mut self, level: Level, programs: &Programs) {
        let of_level = programs.iter().filter(|(of, _)| *of == level);
        let tests: usize = of_level.map(|(_, program)| program.tests.len()).sum();
        self.progress.step(&format!("level {level}: {tests} tests"));
    }

    /// Runs a level's tests in the cluster that `start` gives.
    pub fn in_cluster(
        &mut self,
        level: Level,
        programs: &Programs,
        start: impl FnOnce(&mut Progress) -> Result<Place>,
    ) {
        self.attempt(level, |lane| {
            let place = start(&mut lane.progress)?;
            let before = lane.report.failed();
            let result = lane.programs(level, programs, |program| place.command(program));
            let is_good = result.is_ok() && lane.report.failed() == before;
            if !is_good && !interrupt::asked() {
                place.collect(level, &mut lane.progress);
            }
            let keep = lane.args.keep && !is_good && !interrupt::asked();
            let ended = place.end(keep, level, &mut lane.progress);
            result.and(ended)
        });
    }

    /// Runs a level's test programs by `command`, one after the other.
    ///
    /// # Errors
    /// One does not start, or the user asked to stop.
    pub fn programs(
        &mut self,
        level: Level,
        programs: &Programs,
        command: impl Fn(&Path) -> Command,
    ) -> Result<()> {
        for (_, program) in programs.iter().filter(|(of, _)| *of == level) {
            self.one(level, program, command(&program.built.path))?;
        }
        Ok(())
    }

    fn one(&mut self, level: Level, program: &Program, command: Command) -> Result<()> {
        let start = Instant::now();
        let outcome = program.run(command, self.args.filter.as_deref(), &mut self.progress)?;
        let name = program.name();
        let failed = outcome.failed.into_iter().map(|test| format!("{name}: {test}")).collect();
        self.report.add(level, outcome.passed, failed, start.elapsed());
        Ok(())
    }

    /// Does something for one level; an error is that level's failure.
    pub fn attempt(&mut self, level: Level, work: impl FnOnce(&mut Self) -> Result<()>) {
        if let Err(error) = work(self) {
            self.progress.say(&format!("{error:#}"));
            let text = format!("{error}");
            self.report.fail(level, text.lines().next().unwrap_or("an error without words"));
        }
    }

    /// Does something that these levels need; an error is a failure of each.
    pub fn try_levels(
        &mut self,
        levels: &[Level],
        what: &str,
        work: impl FnOnce(&mut Progress) -> Result<()>,
    ) -> bool {
        let Err(error) = work(&mut self.progress) else { return true };
        self.progress.say(&format!("{error:#}"));
        for level in levels {
            self.report.fail(*level, what);
        }
        false
    }
}

/// What a lane's lines begin with.
fn label(level: Level, width: usize) -> String {
    format!("{:<width$} ", format!("{level}:"), width = width + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_two_lanes_stand_below_each_other() {
        let width = Level::ApiServer.name().len();
        assert_eq!(label(Level::ApiServer, width), "api-server: ");
        assert_eq!(label(Level::Node, width), "node:       ");
    }
}
