//! The rules of the house, as far as a program can check them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Lines after which a source file is two files.
const LINES_MAX: usize = 500;

/// What must not even be able to do I/O: it depends on nothing at all.
const PURE: &str = "capstan-core";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Normal and build dependencies of each package of the workspace.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = output(env!("CARGO"), &["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |package: &Value| {
        let used = package["dependencies"].as_array().unwrap().iter().filter(|one| one["kind"] != "dev");
        (text(&package["name"]), used.map(|one| text(&one["name"])).collect())
    };
    metadata["packages"].as_array().unwrap().iter().map(of).collect()
}

/// Tracked files and new ones that are not ignored.
fn files() -> Vec<String> {
    let listed = output("git", &["ls-files", "--cached", "--others", "--exclude-standard"]);
    let there = |file: &&str| root().join(file).is_file();
    let files: Vec<String> = listed.lines().filter(there).map(str::to_owned).collect();
    assert!(files.len() > 100, "only {} files were found", files.len());
    files
}

fn sources() -> Vec<(String, String)> {
    let rust = files().into_iter().filter(|file| file.ends_with(".rs"));
    rust.map(|file| (file.clone(), std::fs::read_to_string(root().join(file)).unwrap())).collect()
}

/// The map in ARCHITECTURE.md: each package's folder and name, and the folders of those that it may use.
fn map() -> Vec<(String, String, Vec<String>)> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>();
    let rows = text.lines().filter(|line| line.starts_with("| `")).map(cells).filter(|row| row.len() == 6);
    let words = |cell: &str| cell.split(", ").filter(|word| !word.is_empty()).map(str::to_owned).collect();
    rows.filter(|row| !row[2].is_empty())
        .map(|row| (row[1].clone(), row[2].clone(), words(&row[4])))
        .collect()
}

#[test]
fn packages_use_only_what_the_map_says() {
    let found = dependencies();
    let ours: BTreeSet<&String> = found.keys().collect();
    let map = map();
    let named: BTreeSet<&String> = map.iter().map(|(_, package, _)| package).collect();
    assert_eq!(named, ours, "ARCHITECTURE.md names the packages of the workspace");
    // A folder's last part is its short name.
    let short = |folder: &str| folder.trim_end_matches('/').rsplit('/').next().unwrap().to_owned();
    let packages: BTreeMap<String, &String> =
        map.iter().map(|(folder, package, _)| (short(folder), package)).collect();
    for (folder, package, allowed) in &map {
        assert!(root().join(folder).join("Cargo.toml").exists(), "{folder} is no package");
        if allowed == &["anything"] {
            continue;
        }
        let allowed: BTreeSet<&String> = allowed.iter().map(|short| packages[short]).collect();
        let wrong: Vec<_> =
            found[package].iter().filter(|one| ours.contains(one) && !allowed.contains(one)).collect();
        assert!(wrong.is_empty(), "{package} must not use {wrong:?}");
    }
    assert!(found[PURE].is_empty(), "{PURE} is pure and must not use {:?}", found[PURE]);
}

#[test]
fn each_source_file_opens_with_its_job_and_is_not_two() {
    let mut problems = Vec::new();
    for (file, text) in sources() {
        if !text.starts_with("//! ") {
            problems.push(format!("{file}: its first line does not say its job (//! …)"));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            problems.push(format!("{file}: {lines} lines, split it below {LINES_MAX}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn documents_name_files_that_exist() {
    let mut named = 0;
    let mut missing = Vec::new();
    for document in files().iter().filter(|file| file.ends_with(".md")) {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        for path in paths(document, &text) {
            named += 1;
            if !path.exists() {
                missing.push(format!("{document}: {}", path.display()));
            }
        }
    }
    assert!(named > 10, "only {named} paths were found in all documents");
    assert!(missing.is_empty(), "named, but not there:\n{}", missing.join("\n"));
}

/// Files of the repository that a document names: links, and Rust files in backticks.
fn paths(document: &str, text: &str) -> Vec<PathBuf> {
    let folder = root().join(document).parent().unwrap().to_owned();
    let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    let links = links.filter(|link| !link.is_empty() && !link.contains(':')).map(|link| folder.join(link));
    let quoted = text.split('`').skip(1).step_by(2);
    let quoted =
        quoted.filter(|path| path.contains('/') && path.ends_with(".rs") && !path.contains(['{', '*', ' ']));
    links.chain(quoted.map(|path| root().join(path))).collect()
}

/// Tests whose operator is the real program, on a real API server.
const ON_CLUSTERS: [&str; 2] = ["tests/tests/api_server/", "tests/tests/node/"];

#[test]
fn every_reason_of_a_condition_is_brought_about_on_an_api_server() {
    let sources = sources();
    let (_, text) = sources.iter().find(|(file, _)| file == "crds/src/condition.rs").unwrap();
    let text = text.split("pub mod reason").nth(1).unwrap().split("cfg(test)").next().unwrap();
    let reasons: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(": &str = \""))
        .map(|(name, rest)| (name, rest.split('"').next().unwrap()))
        .collect();
    assert!(reasons.len() > 40, "{reasons:?}");
    let is_on_cluster = |file: &str| ON_CLUSTERS.iter().any(|folder| file.starts_with(folder));
    let tests: String =
        sources.iter().filter(|(file, _)| is_on_cluster(file)).map(|(_, text)| text.as_str()).collect();
    let is_missing = |(name, reason): &&(&str, &str)| {
        !tests.contains(&format!("\"{reason}\"")) && !tests.contains(&format!("reason::{name}"))
    };
    let missing: Vec<_> = reasons.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "no test brings about {missing:?}");
}
