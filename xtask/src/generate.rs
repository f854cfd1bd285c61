//! `cargo xtask generate`: writes what is generated from the Rust types.

use anyhow::{Result, ensure};

use crate::test::{Line, Summary};
use crate::{repo, run, test};

/// The tests that compare generated files with what they are made from: package, target, test.
const WRITERS: [(&str, &[&str], &str); 4] = [
    ("capstan-crds", &["--test", "yaml"], "files_are_up_to_date"),
    ("capstan-inject", &["--test", "policy"], "files_are_up_to_date"),
    ("capstan-operator", &["--lib"], "rights::tests::generated_files_are_up_to_date"),
    ("capstan-operator", &["--test", "proto"], "files_are_up_to_date"),
];

/// Rewrites the YAML of the custom resources, in `crds/yaml` and in their chart, and in the operator's chart the admission policy that
/// injects sidecars, and the operator's rights, which are in docs too; and the messages of KEDA's external scaler.
///
/// The tests that compare them write them when told to, so that there is one place that knows which files there are,
/// and this tool builds without the Kubernetes libraries.
///
/// # Errors
/// The types do not compile, or a file cannot be written.
pub fn run() -> Result<()> {
    for (package, target, test) in WRITERS {
        let mut command = repo::cargo();
        command.args(["test", "--package", package]).args(target).args(["--", "--exact", test]);
        let printed = run::output(command.env("UPDATE", "1"))?;
        let ran = printed
            .lines()
            .any(|line| matches!(test::line(line), Some(Line::Summary(Summary { passed: 1, .. }))));
        ensure!(ran, "the test that writes the files of {package} did not run:\n{printed}");
    }
    println!(
        "crds/yaml, charts/capstan-crds/templates, charts/capstan/templates/_rights.tpl, sidecar-policy.yaml beside it, docs/rights.md, and operator/src/external_scaler/generated.rs are current"
    );
    Ok(())
}
