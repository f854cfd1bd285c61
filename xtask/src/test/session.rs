//! One run of the tests, step by step.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::binary::Program;
use super::clusters::Place;
use super::lane::Lane;
use super::level::Level;
use super::programs::{self, Programs};
use super::report::Report;
use super::{Args, Whose, doc, lint};
use crate::progress::Progress;
use crate::{cluster, images, interrupt, setup};

/// A run: what was asked, what came of it so far.
pub struct Session<'a> {
    args: &'a Args,
    levels: Vec<Level>,
    lane: Lane<'a>,
}

impl<'a> Session<'a> {
    /// A run of these levels.
    pub fn new(args: &'a Args, levels: Vec<Level>) -> Self {
        let progress = Progress::new(steps(&levels, args.cluster.is_some()));
        let lane = Lane::new(args, &levels, progress);
        Self { args, levels, lane }
    }

    /// Goes through all steps. Whatever goes wrong is a failure in the report.
    pub fn run(mut self) -> Report {
        let names: Vec<&str> = self.levels.iter().map(|level| level.name()).collect();
        println!("levels: {}", names.join(", "));
        let problems = setup::problems(&self.levels, self.is_existing());
        if problems.is_empty() {
            self.go();
        } else {
            println!("{}", setup::advice(&problems));
            problems.keys().for_each(|level| self.lane.report.fail(*level, "it cannot run here"));
        }
        self.lane.report
    }

    fn go(&mut self) {
        self.lane.progress.step("what the tests need");
        let existing = self.is_existing();
        let install = |progress: &mut Progress| setup::install(&self.levels, existing, progress);
        if !self.lane.try_levels(&self.levels, "what it needs could not be installed", install) {
            return;
        }
        if self.levels.contains(&Level::Lint) {
            self.lane.progress.step("format and lints");
            self.lane.attempt(Level::Lint, |lane| lint::run(&mut lane.report, &mut lane.progress));
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
        self.lane.progress.step("compiling programs and tests");
        let mut programs = None;
        let filter = self.args.filter.as_deref();
        self.lane.try_levels(&tested, "its programs did not build", |progress| {
            programs = Some(programs::build(&self.levels, filter, progress)?);
            Ok(())
        });
        let mut programs = programs?;
        programs.retain(|(_, program)| !program.tests.is_empty());
        if filter.is_some() && !programs.is_empty() {
            self.levels.retain(|level| programs.iter().any(|(of, _)| of == level));
            self.lane.report = Report::new(&self.levels);
            self.lane.progress.replan(steps(&self.levels, self.is_existing()));
        }
        Some(programs)
    }

    fn tests(&mut self, programs: &Programs) {
        for level in [Level::Pure, Level::Process] {
            if self.levels.contains(&level) && !interrupt::asked() {
                self.lane.begin(level, programs);
                self.lane.attempt(level, |lane| lane.programs(level, programs, |path| Command::new(path)));
            }
        }
        if self.levels.contains(&Level::Pure) && self.args.filter.is_none() && !interrupt::asked() {
            self.lane.attempt(Level::Pure, |lane| doc::run(&mut lane.report, &mut lane.progress));
        }
    }

    fn cluster_tests(&mut self, programs: &Programs) {
        let existing = self.is_existing();
        let mut own: Vec<Level> = self.levels.iter().copied().filter(|level| level.has_cluster()).collect();
        own.retain(|level| !(existing && *level == Level::Node));
        if let Some((binaries, archives)) = self.cluster_needs(&own, programs) {
            // Images that did not build are a failure already.
            own.retain(|level| *level != Level::Node || archives.is_some());
            let archives = archives.unwrap_or_default();
            let start = |level, progress: &mut Progress| Place::start(level, &binaries, &archives, progress);
            if own.len() > 1 && !self.args.one_at_a_time {
                self.side_by_side(&own, programs, start);
            } else {
                own.into_iter().for_each(|level| self.alone(level, programs, |p| start(level, p)));
            }
        }
        if existing && self.levels.contains(&Level::Node) {
            self.alone(Level::Node, programs, |_| Place::existing());
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
        self.lane.progress.step("Kubernetes");
        let is_good = self.lane.try_levels(own, "Kubernetes did not build", |progress| {
            binaries = Some(cluster::build(&mut |text| progress.note(text))?);
            Ok(())
        });
        if is_good && own.contains(&Level::Node) {
            self.lane.progress.step("images");
            self.lane.try_levels(&[Level::Node], "the images did not build", |progress| {
                let mut all = images::build(&[], progress)?;
                match images::previous::build(progress) {
                    Ok(previous) => all.extend(previous),
                    // The test of upgrades then fails, and says so; the others need nothing of it.
                    Err(error) => progress.note(&format!("the release before was not built: {error:#}")),
                }
                if programs.iter().any(|(level, program)| *level == Level::Node && needs_keda(program)) {
                    match images::keda::build(progress) {
                        Ok(keda) => all.extend(keda),
                        // As above: one test fails of it.
                        Err(error) => progress.note(&format!("KEDA was not built: {error:#}")),
                    }
                }
                archives = Some(all);
                Ok(())
            });
        }
        Some((binaries?, archives))
    }

    fn alone(
        &mut self,
        level: Level,
        programs: &Programs,
        start: impl FnOnce(&mut Progress) -> Result<Place>,
    ) {
        if !interrupt::asked() {
            self.lane.begin(level, programs);
            self.lane.in_cluster(level, programs, start);
        }
    }

    /// Runs levels at the same time, since they wait more than they work. Whatever goes wrong in one leaves the other alone.
    fn side_by_side(
        &mut self,
        levels: &[Level],
        programs: &Programs,
        start: impl Fn(Level, &mut Progress) -> Result<Place> + Sync,
    ) {
        if interrupt::asked() {
            return;
        }
        let (lane, start) = (&mut self.lane, &start);
        let width = levels.iter().map(|level| level.name().len()).max().unwrap_or_default();
        std::thread::scope(|scope| {
            let sides = levels.iter().copied().map(|level| {
                let mut side = lane.beside(level, width);
                side.begin(level, programs);
                let run = move || {
                    side.in_cluster(level, programs, |progress| start(level, progress));
                    side.report
                };
                (level, scope.spawn(run))
            });
            let sides: Vec<_> = sides.collect();
            for (level, side) in sides {
                match side.join() {
                    Ok(report) => lane.report.merge(report),
                    Err(_) => lane.report.fail(level, "the thread that ran it broke"),
                }
            }
        });
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
