//! One run of the tests, step by step.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use super::binary::Program;
use super::clusters::Place;
use super::level::Level;
use super::report::Report;
use super::{Args, Whose, doc, lint, programs};
use crate::progress::Progress;
use crate::{cluster, images, interrupt, setup};

/// A run: what was asked, what came of it so far.
pub struct Session<'a> {
    args: &'a Args,
    levels: Vec<Level>,
    report: &'a mut Report,
    progress: Progress,
}

/// The test programs of each level.
type Programs = Vec<(Level, Program)>;

impl<'a> Session<'a> {
    /// A run of these levels.
    pub fn new(args: &'a Args, levels: Vec<Level>, report: &'a mut Report) -> Self {
        let progress = Progress::new(steps(&levels, args.cluster.is_some()));
        Self { args, levels, report, progress }
    }

    /// Goes through all steps. Whatever goes wrong is a failure in the report.
    pub fn run(mut self) {
        let names: Vec<&str> = self.levels.iter().map(|level| level.name()).collect();
        println!("levels: {}", names.join(", "));
        let existing = self.is_existing();
        let problems = setup::problems(&self.levels, existing);
        if !problems.is_empty() {
            println!("{}", setup::advice(&problems));
            problems.keys().for_each(|level| self.report.fail(*level, "it cannot run here"));
            return;
        }
        self.progress.step("what the tests need");
        let levels = self.levels.clone();
        let install = |run: &mut Self| setup::install(&run.levels, existing, &mut run.progress);
        if !self.try_levels(&levels, "what it needs could not be installed", install) {
            return;
        }
        if self.levels.contains(&Level::Lint) {
            self.progress.step("format and lints");
            self.attempt(Level::Lint, |run| lint::run(run.report, &mut run.progress));
        }
        if let Some(programs) = self.build() {
            self.tests(&programs);
            self.cluster_tests(&programs);
        }
    }

    fn build(&mut self) -> Option<Programs> {
        let tested: Vec<Level> = self.levels.iter().copied().filter(|level| *level != Level::Lint).collect();
        if tested.is_empty() || interrupt::asked() {
            return None;
        }
        self.progress.step("compiling programs and tests");
        let mut programs = None;
        let filter = self.args.filter.as_deref();
        self.try_levels(&tested, "its programs did not build", |run| {
            programs = Some(programs::build(&run.levels, filter, &mut run.progress)?);
            Ok(())
        });
        let mut programs = programs?;
        programs.retain(|(_, program)| !program.tests.is_empty());
        if filter.is_some() && !programs.is_empty() {
            self.levels.retain(|level| programs.iter().any(|(of, _)| of == level));
            *self.report = Report::new(&self.levels);
            self.progress.replan(steps(&self.levels, self.is_existing()));
        }
        Some(programs)
    }

    fn tests(&mut self, programs: &Programs) {
        for level in [Level::Pure, Level::Process] {
            if self.levels.contains(&level) && !interrupt::asked() {
                self.begin(level, programs);
                self.attempt(level, |run| run.programs(level, programs, |path| Command::new(path)));
            }
        }
        if self.levels.contains(&Level::Pure) && self.args.filter.is_none() && !interrupt::asked() {
            self.attempt(Level::Pure, |run| doc::run(run.report, &mut run.progress));
        }
    }

    fn cluster_tests(&mut self, programs: &Programs) {
        let existing = self.is_existing();
        let mut own: Vec<Level> = self.levels.iter().copied().filter(|level| level.has_cluster()).collect();
        own.retain(|level| !(existing && *level == Level::Node));
        if let Some((binaries, archives)) = self.cluster_needs(&own, programs) {
            for level in own {
                let archives = if level == Level::Node { archives.as_deref() } else { Some(&[][..]) };
                // Images that did not build are a failure already.
                if let Some(archives) = archives {
                    let start = |run: &mut Self| Place::start(level, &binaries, archives, &mut run.progress);
                    self.in_cluster(level, programs, start);
                }
            }
        }
        if existing && self.levels.contains(&Level::Node) {
            self.in_cluster(Level::Node, programs, |_| Place::existing());
        }
    }

    /// Kubernetes for these levels, and the images that pods run.
    fn cluster_needs(
        &mut self,
        own: &[Level],
        programs: &Programs,
    ) -> Option<(cluster::Programs, Option<Vec<PathBuf>>)> {
        if own.is_empty() || interrupt::asked() {
            return None;
        }
        let (mut binaries, mut archives) = (None, None);
        self.progress.step("Kubernetes");
        let is_good = self.try_levels(own, "Kubernetes did not build", |run| {
            binaries = Some(cluster::build(&mut |text| run.progress.note(text))?);
            Ok(())
        });
        if is_good && own.contains(&Level::Node) {
            self.progress.step("images");
            self.try_levels(&[Level::Node], "the images did not build", |run| {
                let mut all = images::build(&[], &mut run.progress)?;
                match images::previous::build(&mut run.progress) {
                    Ok(previous) => all.extend(previous),
                    // The test of upgrades then fails, and says so; the others need nothing of it.
                    Err(error) => run.progress.note(&format!("the release before was not built: {error:#}")),
                }
                if programs.iter().any(|(level, program)| *level == Level::Node && needs_keda(program)) {
                    match images::keda::build(&mut run.progress) {
                        Ok(keda) => all.extend(keda),
                        // As above: one test fails of it.
                        Err(error) => run.progress.note(&format!("KEDA was not built: {error:#}")),
                    }
                }
                archives = Some(all);
                Ok(())
            });
        }
        Some((binaries?, archives))
    }

    fn in_cluster(
        &mut self,
        level: Level,
        programs: &Programs,
        start: impl FnOnce(&mut Self) -> Result<Place>,
    ) {
        if interrupt::asked() {
            return;
        }
        self.begin(level, programs);
        self.attempt(level, |run| {
            let place = start(run)?;
            let before = run.report.failed();
            let result = run.programs(level, programs, |program| place.command(program));
            let is_good = result.is_ok() && run.report.failed() == before;
            if !is_good && !interrupt::asked() {
                place.collect(level, &mut run.progress);
            }
            let keep = run.args.keep && !is_good && !interrupt::asked();
            let ended = place.end(keep, &mut run.progress);
            result.and(ended)
        });
    }

    fn begin(&mut self, level: Level, programs: &Programs) {
        let of_level = programs.iter().filter(|(of, _)| *of == level);
        let tests: usize = of_level.map(|(_, program)| program.tests.len()).sum();
        self.progress.step(&format!("level {level}: {tests} tests"));
    }

    fn programs(
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
    fn attempt(&mut self, level: Level, work: impl FnOnce(&mut Self) -> Result<()>) {
        if let Err(error) = work(self) {
            println!("{error:#}");
            let text = format!("{error}");
            self.report.fail(level, text.lines().next().unwrap_or("an error without words"));
        }
    }

    /// Does something that these levels need; an error is a failure of each.
    fn try_levels(
        &mut self,
        levels: &[Level],
        what: &str,
        work: impl FnOnce(&mut Self) -> Result<()>,
    ) -> bool {
        let Err(error) = work(self) else { return true };
        println!("{error:#}");
        for level in levels {
            self.report.fail(*level, what);
        }
        false
    }

    fn is_existing(&self) -> bool {
        self.args.cluster == Some(Whose::Existing)
    }
}

/// Whether a test with KEDA is among those that run.
fn needs_keda(program: &Program) -> bool {
    program.tests.iter().any(|test| test.starts_with("keda::"))
}

/// How many steps these levels take.
fn steps(levels: &[Level], existing: bool) -> usize {
    let has = |level: Level| usize::from(levels.contains(&level));
    let tests = levels.iter().filter(|level| **level != Level::Lint).count();
    let node = if existing { 0 } else { has(Level::Node) };
    let kubernetes = usize::from(node + has(Level::ApiServer) > 0);
    // Preparation and lints; compilation and one for each level; Kubernetes and the images.
    1 + has(Level::Lint) + usize::from(tests > 0) + tests + kubernetes + node
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted() {
        assert_eq!(steps(&[Level::Lint], false), 2);
        assert_eq!(steps(&[Level::Pure], false), 3);
        assert_eq!(steps(&[Level::ApiServer], false), 4);
        assert_eq!(steps(&[Level::Node], false), 5);
        assert_eq!(steps(&[Level::Node], true), 3);
        assert_eq!(steps(&Level::ALL, false), 9);
    }
}
