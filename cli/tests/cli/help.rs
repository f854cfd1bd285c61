//! The program explains itself.

use crate::support::run;

#[test]
fn every_command_has_help_with_an_example() {
    for command in ["dev", "send", "pull", "ack", "retry", "peek", "queues", "inject", "uninject"] {
        let done = run(&[command, "--help"]);
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{command}");
        assert!(
            done.out.contains("Example") && done.out.contains(&format!("capstan {command}")),
            "{}",
            done.out
        );
        let overview = run(&["--help"]).out;
        assert!(overview.lines().any(|line| line.trim_start().starts_with(command)), "{command}: {overview}");
    }
}

#[test]
fn it_says_its_version() {
    assert_eq!(run(&["--version"]).out, format!("capstan {}\n", env!("CARGO_PKG_VERSION")));
}
