//! What this tool cannot install for the user: root, Go, Node.

use std::process::Command;

use crate::run;
use crate::test::Level;

const GO: (u32, u32) = (1, 26);
const NODE: (u32, u32) = (20, 0);

/// What keeps a level from running on this machine, each with what to do.
pub fn problems(level: Level, existing: bool) -> Vec<String> {
    let mut problems = Vec::new();
    let own_cluster = level.has_cluster() && !(existing && level == Level::Node);
    if own_cluster && !rustix::process::geteuid().is_root() {
        problems.push(
            "it starts containers in network namespaces, which only root may: run it as root".to_owned(),
        );
    }
    if own_cluster {
        let kubernetes = "Kubernetes and Helm are built from source";
        problems.extend(program("go", "version", GO).map(|problem| format!("{kubernetes}: {problem}")));
    }
    if level == Level::Process {
        let client = "a client with Cloudflare's Go SDK is built";
        problems.extend(program("go", "version", GO).map(|problem| format!("{client}: {problem}")));
    }
    if level == Level::Node && existing {
        problems.extend(program("kubectl", "help", (0, 0)));
        problems.extend(program("helm", "version", (3, 0)));
    }
    if matches!(level, Level::Process | Level::Node) {
        problems.extend(program("node", "--version", NODE));
        problems.extend(program("npm", "--version", (0, 0)));
    }
    problems
}

/// What is wrong with a program, if anything.
fn program(name: &str, ask: &str, least: (u32, u32)) -> Option<String> {
    let Ok(answer) = run::output(Command::new(name).arg(ask)) else {
        return Some(format!("there is no `{name}`: install it, {}.{} or newer", least.0, least.1));
    };
    let found = version(&answer)?;
    (found < least).then(|| {
        let answer = answer.trim();
        format!("`{name}` is too old ({answer}): install {}.{} or newer", least.0, least.1)
    })
}

/// The first two numbers in what a program says about itself; none for a development version, which is taken as new.
fn version(answer: &str) -> Option<(u32, u32)> {
    let number = |word: &str| {
        let mut parts = word.trim_start_matches(|c: char| c.is_ascii_alphabetic()).split('.');
        let first = parts.next()?.parse().ok()?;
        let second = parts.next()?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
        Some((first, second))
    };
    answer.split_whitespace().find_map(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version("go version go1.26.8 linux/amd64"), Some((1, 26)));
        assert_eq!(version("go version go1.27rc1 linux/amd64"), Some((1, 27)));
        assert_eq!(version("go version devel +abc linux/amd64"), None);
        assert_eq!(version("v20.20.2\n"), Some((20, 20)));
    }

    #[test]
    fn a_program_that_is_missing_or_too_old_is_a_problem() {
        let missing = program("capstan-no-such-program", "version", (1, 0)).unwrap();
        assert!(missing.contains("install it, 1.0 or newer"), "{missing}");
        let old = program("cargo", "--version", (999, 0)).unwrap();
        assert!(old.contains("too old"), "{old}");
        assert_eq!(program("cargo", "--version", (1, 0)), None);
    }
}
