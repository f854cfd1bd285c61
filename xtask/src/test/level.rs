//! The levels of tests, from quick and narrow to slow and real.

use std::fmt;

use crate::compile::Built;

/// A level of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Level {
    /// Format and lints.
    Lint,
    /// Each crate's own tests, in memory and in one process.
    Pure,
    /// Real programs on this machine, and other people's clients.
    Process,
    /// A real Kubernetes API without nodes.
    ApiServer,
    /// A real Kubernetes with pods that run.
    Node,
}

/// The package of the tests that need more than one crate.
const PACKAGE: &str = "e2e";

impl Level {
    /// All, in the order in which they run.
    pub const ALL: [Self; 5] = [Self::Lint, Self::Pure, Self::Process, Self::ApiServer, Self::Node];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lint => "lint",
            Self::Pure => "pure",
            Self::Process => "process",
            Self::ApiServer => "api-server",
            Self::Node => "node",
        }
    }

    /// Whether its tests need a cluster.
    pub fn has_cluster(self) -> bool {
        matches!(self, Self::ApiServer | Self::Node)
    }

    /// The test target that is the level, where it is one.
    pub fn target(self) -> Option<&'static str> {
        match self {
            Self::Lint | Self::Pure => None,
            Self::Process => Some("process"),
            Self::ApiServer => Some("api_server"),
            Self::Node => Some("node"),
        }
    }

    /// The level that an executable's tests belong to.
    pub fn of(built: &Built) -> Self {
        let is = |level: &Self| level.target() == Some(built.target.as_str());
        let own = built.package == PACKAGE && built.integration;
        Self::ALL.into_iter().find(|level| own && is(level)).unwrap_or(Self::Pure)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The levels to run: those asked for, or all, less those left out, in their order.
pub fn choose(asked: &[Level], without: &[Level]) -> Vec<Level> {
    let wanted = |level: &Level| (asked.is_empty() || asked.contains(level)) && !without.contains(level);
    Level::ALL.into_iter().filter(wanted).collect()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn levels_run_in_their_order() {
        assert_eq!(choose(&[], &[]), Level::ALL);
        assert_eq!(choose(&[Level::Node, Level::Pure], &[]), [Level::Pure, Level::Node]);
        assert_eq!(choose(&[], &[Level::Node, Level::ApiServer]), [Level::Lint, Level::Pure, Level::Process]);
        assert_eq!(choose(&[Level::Node], &[Level::Node]), []);
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for level in Level::ALL {
            assert_eq!(Level::from_str(level.name(), false), Ok(level));
        }
    }

    #[test]
    fn each_executable_has_a_level() {
        let built = |package: &str, target: &str, integration| Built {
            package: package.to_owned(),
            target: target.to_owned(),
            integration,
            folder: "/".into(),
            test: true,
            path: "/".into(),
        };
        assert_eq!(Level::of(&built("e2e", "api_server", true)), Level::ApiServer);
        assert_eq!(Level::of(&built("e2e", "node", true)), Level::Node);
        assert_eq!(Level::of(&built("e2e", "process", true)), Level::Process);
        assert_eq!(Level::of(&built("e2e", "tidy", true)), Level::Pure);
        assert_eq!(Level::of(&built("e2e", "e2e", false)), Level::Pure);
        assert_eq!(Level::of(&built("capstan-broker", "process", true)), Level::Pure);
    }
}
