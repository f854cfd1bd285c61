//! Runs one test program, says how far it is, and counts what it did.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::libtest::{self, Line, Summary};
use crate::compile::Built;
use crate::progress::{Progress, clock};
use crate::repo;
use crate::run::{self, Event};

/// A test that takes so long is worth a line when it ends.
const SLOW: Duration = Duration::from_secs(5);
/// Lines of a failure that are printed; all of them are in the log.
const TOLD: usize = 1_000;
/// The last lines of a program that died.
const LAST: usize = 100;
/// Tests that are named when nothing was heard for a while.
const NAMED: usize = 3;

/// A test program and the tests in it that are to run.
pub struct Program {
    /// The executable.
    pub built: Built,
    /// The tests, in the order in which they start.
    pub tests: Vec<String>,
}

/// What a program's tests did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Tests that passed.
    pub passed: usize,
    /// The names of those that failed, and what else went wrong.
    pub failed: Vec<String>,
}

impl Program {
    /// Asks an executable for the tests whose name contains `filter`.
    ///
    /// # Errors
    /// It does not start, or is no test program.
    pub fn list(built: Built, filter: Option<&str>) -> Result<Self> {
        let mut command = Command::new(&built.path);
        command.args(["--list", "--format", "terse"]).args(filter);
        let tests = libtest::listed(&run::output(&mut command)?);
        Ok(Self { built, tests })
    }

    /// `package target`, or the package alone for a library's own tests.
    pub fn name(&self) -> String {
        let Built { package, target, .. } = &self.built;
        if package.replace('-', "_") == target.replace('-', "_") {
            package.clone()
        } else {
            format!("{package} {target}")
        }
    }

    /// Where everything it prints is kept.
    fn log(&self) -> PathBuf {
        repo::target().join("test-logs").join(format!("{}.log", self.name().replace(' ', "-")))
    }

    /// Runs its tests with `command`, which must start the executable.
    ///
    /// # Errors
    /// It does not start, the log cannot be written, or the user asked to stop.
    pub fn run(
        &self,
        mut command: Command,
        filter: Option<&str>,
        progress: &mut Progress,
    ) -> Result<Outcome> {
        command.args(filter).current_dir(&self.built.folder).env("CARGO_MANIFEST_DIR", &self.built.folder);
        let log = self.log();
        let mut file = create(&log)?;
        let mut watch = Watch::new(&self.tests);
        let (mut lines, mut last, start) = (Vec::new(), VecDeque::new(), Instant::now());
        let status = run::listen(&mut command, |event| {
            if let Event::Out(line) | Event::Err(line) = event {
                // A full disk shows in the tests themselves.
                let _ = writeln!(file, "{line}");
                if last.len() == LAST {
                    last.pop_front();
                }
                last.push_back(line.to_owned());
            }
            match event {
                Event::Out(line) => {
                    watch.hear(line, progress);
                    lines.push(line.to_owned());
                }
                Event::Err(line) => watch.said = Some(line.to_owned()),
                Event::Tick => {}
            }
            progress.idle(|| watch.state());
        })?;
        crate::interrupt::check()?;
        let outcome = judge(&self.tests, &lines, status);
        let count = self.count(&outcome, start.elapsed());
        if outcome.failed.is_empty() {
            progress.note(&count);
        } else {
            let told = libtest::failures(&lines);
            // A program that died has no such part: its last words are all there is.
            let told = if told.is_empty() { &*last.make_contiguous() } else { told };
            let told = told.get(..TOLD).unwrap_or(told).join("\n");
            progress.quote(&count, &told, &format!("everything it printed: {}", log.display()));
        }
        Ok(outcome)
    }

    fn count(&self, Outcome { passed, failed }: &Outcome, time: Duration) -> String {
        let failed = if failed.is_empty() { String::new() } else { format!(", {} FAILED", failed.len()) };
        format!("{}: {passed} passed{failed}, {:.1} s", self.name(), time.as_secs_f64())
    }
}

fn create(log: &Path) -> Result<File> {
    let folder = log.parent().context("a log has a folder")?;
    std::fs::create_dir_all(folder)
        .and_then(|()| File::create(log))
        .with_context(|| format!("cannot write {}", log.display()))
}

/// Counts by the program's own summary, and fails where it does not fit what was asked of it.
fn judge(tests: &[String], lines: &[String], status: ExitStatus) -> Outcome {
    let summary = lines.iter().rev().find_map(|line| match libtest::line(line) {
        Some(Line::Summary(summary)) => Some(summary),
        _ => None,
    });
    let Some(Summary { passed, failed, ignored }) = summary else {
        let ended = |line: &String| matches!(libtest::line(line), Some(Line::Ended { passed: true, .. }));
        let passed = lines.iter().filter(|line| ended(line)).count();
        return Outcome { passed, failed: vec![format!("the program ended early ({status})")] };
    };
    let mut names = libtest::failed_names(lines);
    names.resize_with(failed.max(names.len()), || "a test whose name is not known".to_owned());
    if ignored > 0 {
        names.push(format!("{ignored} tests are ignored: no test may be"));
    }
    if passed + failed + ignored != tests.len() {
        names.push(format!("{} tests were to run, {} did", tests.len(), passed + failed));
    }
    if names.is_empty() && !status.success() {
        names.push(format!("all tests passed, but the program failed ({status})"));
    }
    Outcome { passed, failed: names }
}

/// Follows a run: which tests ended, and which are running.
struct Watch<'a> {
    order: &'a [String],
    ended: BTreeSet<String>,
    /// When each of the running tests was first seen as such.
    since: BTreeMap<&'a str, Instant>,
    /// Tests that run at a time.
    threads: usize,
    /// The last line of standard error: long tests say there how far they are.
    said: Option<String>,
}

impl<'a> Watch<'a> {
    fn new(order: &'a [String]) -> Self {
        let threads = std::env::var("RUST_TEST_THREADS").ok().and_then(|threads| threads.parse().ok());
        let threads = threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
        let mut watch = Self {
            order,
            ended: BTreeSet::new(),
            since: BTreeMap::new(),
            threads: threads.unwrap_or(1),
            said: None,
        };
        watch.update();
        watch
    }

    fn hear(&mut self, line: &str, progress: &mut Progress) {
        let Some(Line::Ended { name, passed }) = libtest::line(line) else { return };
        let time = self.since.get(name).map(Instant::elapsed).unwrap_or_default();
        self.ended.insert(name.to_owned());
        self.said = None;
        if !passed || time >= SLOW {
            let outcome = if passed { "ok" } else { "FAILED" };
            let (done, all) = (self.ended.len(), self.order.len());
            progress.note(&format!("{done}/{all} {name} {outcome}, {:.1} s", time.as_secs_f64()));
        }
        self.update();
    }

    /// Tests start in their order, so the running ones are the first that did not end.
    fn update(&mut self) {
        let running = self.order.iter().filter(|name| !self.ended.contains(*name)).take(self.threads);
        let running: BTreeSet<&str> = running.map(String::as_str).collect();
        self.since.retain(|name, _| running.contains(name));
        for name in running {
            self.since.entry(name).or_insert_with(Instant::now);
        }
    }

    fn state(&self) -> String {
        let running = self.since.iter().take(NAMED);
        let running: Vec<String> =
            running.map(|(name, at)| format!("{name} {}", clock(at.elapsed()))).collect();
        let said = self.said.as_deref().map(|said| format!("; {}", short(said))).unwrap_or_default();
        format!("{}/{} done, running {}{said}", self.ended.len(), self.order.len(), running.join(", "))
    }
}

/// A line that fits.
fn short(line: &str) -> String {
    line.trim().chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn check(tests: &[&str], output: &str, code: i32) -> Outcome {
        let tests: Vec<String> = tests.iter().map(|test| (*test).to_owned()).collect();
        let lines: Vec<String> = output.lines().map(str::to_owned).collect();
        judge(&tests, &lines, ExitStatus::from_raw(code << 8))
    }

    fn failed(outcome: &Outcome) -> Vec<&str> {
        outcome.failed.iter().map(String::as_str).collect()
    }

    #[test]
    fn all_passed() {
        let output =
            "test a ... ok\ntest b ... ok\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured";
        assert_eq!(check(&["a", "b"], output, 0), Outcome { passed: 2, failed: Vec::new() });
    }

    #[test]
    fn failures_are_named() {
        let output = "failures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured";
        let outcome = check(&["a", "b"], output, 101);
        assert_eq!((outcome.passed, failed(&outcome)), (1, vec!["b"]));
    }

    #[test]
    fn a_program_that_died_has_failed() {
        let outcome = check(&["a", "b"], "test a ... ok", 134);
        assert_eq!(outcome.passed, 1);
        assert!(outcome.failed[0].contains("ended early"), "{outcome:?}");
    }

    #[test]
    fn a_program_that_ran_less_than_it_listed_has_failed() {
        let outcome = check(&["a", "b"], "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured", 0);
        assert_eq!(failed(&outcome), ["2 tests were to run, 1 did"]);
    }

    #[test]
    fn an_ignored_test_is_a_failure() {
        let outcome = check(&["a", "b"], "test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured", 0);
        assert_eq!(failed(&outcome), ["1 tests are ignored: no test may be"]);
    }

    #[test]
    fn a_status_that_contradicts_the_summary_is_a_failure() {
        let outcome = check(&["a"], "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured", 1);
        assert!(outcome.failed[0].contains("but the program failed"), "{outcome:?}");
    }

    #[test]
    fn the_running_tests_are_the_first_that_did_not_end() {
        let order: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let mut watch =
            Watch { order: &order, ended: BTreeSet::new(), since: BTreeMap::new(), threads: 2, said: None };
        watch.update();
        assert_eq!(watch.since.keys().copied().collect::<Vec<_>>(), ["a", "b"]);
        watch.hear("test b ... ok", &mut Progress::new(0));
        assert_eq!(watch.since.keys().copied().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(watch.state(), "1/4 done, running a 0:00, c 0:00");
        watch.said = Some("round 3 of 50".to_owned());
        assert_eq!(watch.state(), "1/4 done, running a 0:00, c 0:00; round 3 of 50");
    }
}
