//! Runs cargo as a compiler, says how far it is, and returns the executables it made.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use crate::progress::Progress;
use crate::{repo, run};

/// An executable that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The package's name.
    pub package: String,
    /// The package's folder.
    pub folder: PathBuf,
    /// The target's name: a program, a test file, or a library's own tests.
    pub target: String,
    /// Whether it is an integration test, a file or folder under `tests/`.
    pub integration: bool,
    /// Whether it runs tests.
    pub test: bool,
    /// Where it lies.
    pub path: PathBuf,
}

/// Runs `cargo ARGUMENTS`, a compiling command, and returns every executable, fresh or not.
///
/// # Errors
/// The code does not compile; the error is the compiler's.
pub fn cargo(arguments: &[&str], progress: &mut Progress) -> Result<Vec<Built>> {
    let mut command = repo::cargo();
    command.args(arguments).arg("--message-format=json-render-diagnostics");
    let (mut built, mut compiled, mut said) = (Vec::new(), 0, Vec::new());
    let status = run::listen(&mut command, |event| match event {
        run::Event::Out(line) => {
            let message: Value = serde_json::from_str(line).unwrap_or_default();
            if message["reason"] == "compiler-artifact" && message["fresh"] == false {
                compiled += 1;
            }
            built.extend(executable(&message));
            progress.idle(|| format!("compiling, {compiled} parts done"));
        }
        run::Event::Err(line) if line.contains("Blocking waiting for file lock") => {
            progress.note("another cargo is at work here: waiting for it");
        }
        // What cargo only compiles is no news; the rest matters when it fails.
        run::Event::Err(line) if !line.trim_start().starts_with("Compiling ") => said.push(line.to_owned()),
        run::Event::Err(_) => {}
        run::Event::Tick => progress.idle(|| format!("compiling, {compiled} parts done")),
    })?;
    run::ensure(&command, status, &said)?;
    Ok(built)
}

/// The executable in a message of cargo's, if it is about one.
fn executable(message: &Value) -> Option<Built> {
    let path = message["executable"].as_str()?;
    let manifest = Path::new(message["manifest_path"].as_str()?);
    let kind = message["target"]["kind"][0].as_str()?;
    Some(Built {
        package: package(message["package_id"].as_str()?)?,
        folder: manifest.parent()?.to_path_buf(),
        target: message["target"]["name"].as_str()?.to_owned(),
        integration: kind == "test",
        test: message["profile"]["test"] == true,
        path: PathBuf::from(path),
    })
}

/// The name in a package id: `path+file:///folder/broker#capstan-broker@0.1.0`, or `path+file:///folder/xtask#0.1.0`.
fn package(id: &str) -> Option<String> {
    let (url, tail) = id.rsplit_once('#')?;
    let name = match tail.split_once('@') {
        Some((name, _)) => name,
        None => url.rsplit('/').next()?,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn package_ids() {
        assert_eq!(
            package("path+file:///folder/broker#capstan-broker@0.1.0").as_deref(),
            Some("capstan-broker")
        );
        assert_eq!(package("path+file:///folder/xtask#0.1.0").as_deref(), Some("xtask"));
        assert_eq!(package("nothing"), None);
    }

    #[test]
    fn messages_about_executables() {
        let message = json!({
            "reason": "compiler-artifact", "fresh": true,
            "package_id": "path+file:///c/tests#e2e@0.1.0", "manifest_path": "/c/tests/Cargo.toml",
            "target": { "kind": ["test"], "name": "process" }, "profile": { "test": true },
            "executable": "/c/target/debug/deps/process-1",
        });
        let built = executable(&message).unwrap();
        assert_eq!((built.package.as_str(), built.target.as_str()), ("e2e", "process"));
        assert!(built.integration && built.test);
        assert_eq!(built.folder, Path::new("/c/tests"));
        assert_eq!(executable(&json!({ "reason": "compiler-artifact", "executable": null })), None);
    }
}
