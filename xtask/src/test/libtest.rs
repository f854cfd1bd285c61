//! Reads what a Rust test program prints.

/// What a line of a test program says.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A test ended.
    Ended { name: &'a str, passed: bool },
    /// The count at the end.
    Summary(Summary),
}

/// The count at the end of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests that were not run because they are marked so.
    pub ignored: usize,
}

/// Understands one line, if it is one of the test program's own.
pub fn line(text: &str) -> Option<Line<'_>> {
    if let Some(rest) = text.strip_prefix("test result: ") {
        return summary(rest).map(Line::Summary);
    }
    let (name, outcome) = text.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let passed = match outcome {
        "ok" => true,
        "FAILED" => false,
        _ => return None,
    };
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    Some(Line::Ended { name, passed })
}

/// `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s`
fn summary(rest: &str) -> Option<Summary> {
    let (_, counts) = rest.split_once(". ")?;
    let count = |what: &str| {
        let mut parts = counts.split("; ");
        parts.find_map(|part| part.strip_suffix(what)?.strip_suffix(' ')?.parse().ok())
    };
    Some(Summary { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
}

/// The names in the output of `--list --format terse`.
pub fn listed(output: &str) -> Vec<String> {
    output.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// What the failed tests printed: the part between the last test and the count.
pub fn failures(lines: &[String]) -> &[String] {
    let start = lines.iter().position(|line| line == "failures:").unwrap_or(lines.len());
    let end = lines.iter().rposition(|line| line.starts_with("test result: ")).unwrap_or(lines.len());
    lines.get(start..end.max(start)).unwrap_or_default()
}

/// The names of the failed tests: the list at the end, which is whole even where a program's output broke other lines.
pub fn failed_names(lines: &[String]) -> Vec<String> {
    let Some(start) = lines.iter().rposition(|line| line == "failures:") else { return Vec::new() };
    let names = lines[start + 1..].iter().take_while(|line| line.starts_with("    "));
    names.map(|line| line.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: &str = "
running 3 tests
test a::passes ... ok
test a::fails ... FAILED
test a::panics - should panic ... ok

failures:

---- a::fails stdout ----
failures:
    not a name
thread 'a::fails' panicked at src/lib.rs:1:1

failures:
    a::fails

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.00s
";

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn tests_and_their_outcome() {
        assert_eq!(line("test a::passes ... ok"), Some(Line::Ended { name: "a::passes", passed: true }));
        assert_eq!(line("test a::fails ... FAILED"), Some(Line::Ended { name: "a::fails", passed: false }));
        assert_eq!(line("test a::b - should panic ... ok"), Some(Line::Ended { name: "a::b", passed: true }));
        let other = [
            "test a ... ignored, slow",
            "test x has been running for over 60 seconds",
            "running 3 tests",
            "ok",
        ];
        for text in other {
            assert_eq!(line(text), None, "{text}");
        }
    }

    #[test]
    fn counts() {
        let text =
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 1.20s";
        assert_eq!(line(text), Some(Line::Summary(Summary { passed: 12, failed: 0, ignored: 3 })));
        let text = FAILED.lines().last().unwrap();
        assert_eq!(line(text), Some(Line::Summary(Summary { passed: 2, failed: 1, ignored: 0 })));
        assert_eq!(line("test result: ok. nothing of the kind"), None);
    }

    #[test]
    fn lists() {
        assert_eq!(listed("a::b: test\nc: test\nd: benchmark\n\n2 tests, 1 benchmark\n"), ["a::b", "c"]);
    }

    #[test]
    fn what_failed_and_what_it_said() {
        let lines = lines(FAILED);
        assert_eq!(failed_names(&lines), ["a::fails"]);
        let told = failures(&lines);
        assert!(told.iter().any(|line| line.contains("panicked")), "{told:?}");
        assert!(!told.iter().any(|line| line.contains("passes") || line.contains("test result")), "{told:?}");
    }

    #[test]
    fn nothing_failed() {
        let lines = lines(
            "test a ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        );
        assert!(failures(&lines).is_empty());
        assert!(failed_names(&lines).is_empty());
    }
}
