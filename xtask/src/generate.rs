//! `cargo xtask generate`: writes what is generated from the Rust types.

use anyhow::{Result, ensure};

use crate::test::{Line, Summary};
use crate::{repo, run, test};

/// Rewrites the YAML of the custom resources, in `crds/yaml` and in the chart.
///
/// The test that compares them writes them when told to, so that there is one place that knows which files there are,
/// and this tool builds without the Kubernetes libraries.
///
/// # Errors
/// The types do not compile, or a file cannot be written.
pub fn run() -> Result<()> {
    let mut command = repo::cargo();
    command.args(["test", "--package", "capstan-crds", "--test", "yaml", "files_are_up_to_date"]);
    let printed = run::output(command.env("UPDATE", "1"))?;
    let ran = printed
        .lines()
        .any(|line| matches!(test::line(line), Some(Line::Summary(Summary { passed: 1, .. }))));
    ensure!(ran, "the test that writes the files did not run:\n{printed}");
    println!("crds/yaml and charts/capstan-crds/templates are current");
    Ok(())
}
