//! `cargo xtask generate`: writes what is generated from the Rust types.

use anyhow::{Result, ensure};

use crate::test::{Line, Summary};
use crate::{repo, run, test};

/// The tests that write files when they are told to: package, target, and what they write.
const WRITERS: [(&str, &str, &str); 2] = [
    ("capstan-crds", "yaml", "crds/yaml and charts/capstan-crds/templates"),
    ("capstan-inject", "policy", "charts/capstan/templates/sidecar-policy.yaml"),
];

/// Rewrites the YAML of the custom resources and of the admission policy.
///
/// The tests that compare the files write them when told to, so that there is one place that knows which files there are,
/// and this tool builds without the Kubernetes libraries.
///
/// # Errors
/// The types do not compile, or a file cannot be written.
pub fn run() -> Result<()> {
    for (package, target, files) in WRITERS {
        let mut command = repo::cargo();
        command.args(["test", "--package", package, "--test", target, "files_are_up_to_date"]);
        let printed = run::output(command.env("UPDATE", "1"))?;
        let ran = printed
            .lines()
            .any(|line| matches!(test::line(line), Some(Line::Summary(Summary { passed: 1, .. }))));
        ensure!(ran, "the test that writes {files} did not run:\n{printed}");
        println!("current: {files}");
    }
    Ok(())
}
