//! Compiles what the levels run: the programs, and the test programs.

use anyhow::Result;

use super::binary::Program;
use super::level::Level;
use crate::compile::{self, Built};
use crate::progress::Progress;

/// The test programs of each level.
pub type Programs = Vec<(Level, Program)>;

/// Compiles everything for these levels; the test programs by level, in a steady order.
///
/// # Errors
/// The code does not compile.
pub fn build(levels: &[Level], filter: Option<&str>, progress: &mut Progress) -> Result<Programs> {
    let mut programs = Vec::new();
    for arguments in arguments(levels) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        for built in compile::cargo(&arguments, progress)? {
            let level = Level::of(&built);
            if built.test && levels.contains(&level) {
                programs.push((level, Program::list(built, filter)?));
            }
        }
    }
    programs.sort_by_key(|(level, program)| (*level, program.name()));
    programs.dedup_by(|(_, one), (_, other)| is_same(&one.built, &other.built));
    Ok(programs)
}

/// Whether two commands built the same: an integration test may lie at two places, when they differ in features. A library
/// and its program share a name, but not their tests.
fn is_same(one: &Built, other: &Built) -> bool {
    one.path == other.path
        || (one.integration
            && other.integration
            && (&one.package, &one.target) == (&other.package, &other.target))
}

/// What cargo has to be told. Always for the whole workspace, so that every build uses dependencies with the same features.
fn arguments(levels: &[Level]) -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let (mut commands, mut targets) = (Vec::new(), words(&["build", "--workspace"]));
    if levels.contains(&Level::Pure) {
        commands.push(words(&["build", "--workspace", "--bins", "--examples", "--tests"]));
    } else if levels.contains(&Level::Process) || levels.contains(&Level::ApiServer) {
        targets.push("--bins".to_owned());
    }
    // Next to `--tests` cargo would pass over targets that a plain `cargo test` leaves out.
    let before = targets.len();
    for target in levels.iter().filter_map(|level| level.target()) {
        targets.extend(["--test".to_owned(), target.to_owned()]);
    }
    if targets.len() > before {
        commands.push(targets);
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(levels: &[Level], expected: &[&str]) {
        let commands: Vec<String> = arguments(levels).iter().map(|words| words.join(" ")).collect();
        assert_eq!(commands, expected);
    }

    #[test]
    fn each_level_builds_what_it_runs() {
        check(&[Level::Lint], &[]);
        check(&[Level::Pure], &["build --workspace --bins --examples --tests"]);
        check(&[Level::Process], &["build --workspace --bins --test process"]);
        check(&[Level::Node], &["build --workspace --test node"]);
        check(
            &Level::ALL,
            &[
                "build --workspace --bins --examples --tests",
                "build --workspace --test process --test api_server --test node",
            ],
        );
    }

    #[test]
    fn a_library_and_its_program_are_not_the_same() {
        let built = |path: &str, integration| Built {
            package: "capstan-broker".to_owned(),
            folder: "/c/broker".into(),
            target: "capstan-broker".to_owned(),
            integration,
            test: true,
            path: path.into(),
        };
        assert!(!is_same(&built("/t/lib", false), &built("/t/program", false)));
        assert!(is_same(&built("/t/lib", false), &built("/t/lib", false)));
        assert!(is_same(&built("/t/test-1", true), &built("/t/test-2", true)));
    }
}
