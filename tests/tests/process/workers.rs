//! The package `sdk/workers`, by its own tests: against scripted sidecars, and against `capstan dev`.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use e2e::process::program;

/// What npm says when it runs `script` of the package.
fn npm(script: &[&str], environment: &[(&str, &Path)]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/workers");
    let mut npm = Command::new("npm");
    npm.args(script).current_dir(folder).envs(environment.iter().copied());
    let output = npm.output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "npm {script:?}: {}\n{}\n{}", output.status, said[0], said[1]);
    said.concat()
}

fn build() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| drop(npm(&["run", "build"], &[])));
}

/// How many tests Node's runner says have passed.
fn passed(said: &str) -> u64 {
    let count = said.lines().find_map(|line| line.trim_start_matches(['#', 'ℹ', ' ']).strip_prefix("pass "));
    count.unwrap_or_else(|| panic!("no count of tests: {said}")).parse().unwrap()
}

#[test]
fn a_worker_is_run_by_the_rules_of_its_own_runtime() {
    build();
    let passed = passed(&npm(&["test"], &[]));
    assert!(passed > 100, "{passed} tests: most are missing");
}

#[test]
fn workers_run_beside_the_real_sidecar_and_broker() {
    build();
    let capstan = program("capstan");
    let passed = passed(&npm(&["run", "test:local"], &[("CAPSTAN", &capstan)]));
    assert!(passed > 3, "{passed} tests: some are missing");
}
